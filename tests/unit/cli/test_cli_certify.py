"""`flexcore runtime test`: what it prints, how it exits, and where a runtime's harness comes from."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from flexcore.cli import certify
from flexcore.cli.app import run
from flexcore.model.errors import FlexCoreError
from flexcore.runtime.interface import Feature, Runtime
from flexcore.runtime.plugin import RuntimeContext, RuntimePlugin
from flexcore.testing.fakes import ScriptedRuntime, World
from flexcore.testing.runtime_examination import Examination
from flexcore.testing.runtime_harness import CheckFailed
from flexcore.testing.runtime_processes import BashHarness, Subject
from flexcore.testing.runtime_suite import Check

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("FLEXCORE_SERVER", "FLEXCORE_OUTPUT", "FLEXCORE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


async def _fails(exam: Examination) -> None:
    raise CheckFailed("it was blue")


async def _lacks(exam: Examination) -> None:
    exam.unsupported = {Feature.SURVEY: "it keeps no list"}
    exam.lacks(Feature.SURVEY)


OWN_CHECKS = [Check("it_is_red", "colours", "people stop at red", _fails), Check("it_lists", "lists", "tidy", _lacks)]


def test_a_sound_runtime_passes_and_leaves_nothing(folder: Path, capsys: Capture) -> None:
    code = run(["runtime", "test", "local", "--check", "health_answers*"])

    out, err = capsys.readouterr()
    assert code == 0
    assert "runtime 'local' of type local: 2 checks in" in out
    assert out.rstrip().endswith(": 2 passed")
    assert "[1/2] passed  health_answers_in_time" in err
    assert list(folder.iterdir()) == []


def test_the_report_says_why_it_matters_and_what_was_seen(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(certify, "CHECKS", OWN_CHECKS)

    code = run(["runtime", "test", "local"])

    out = capsys.readouterr().out
    assert code == 1
    assert "failed:\n  it_is_red: people stop at red\n    seen: it was blue\n" in out
    assert "refused as declared:\n  it_lists: tidy\n    survey: it keeps no list\n" in out
    assert out.rstrip().endswith(": 1 refused, 1 failed")


def test_the_document_has_every_check(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(certify, "CHECKS", OWN_CHECKS)

    code = run(["runtime", "test", "local", "--output", "json"])

    document = json.loads(capsys.readouterr().out)
    assert code == 1
    assert document["passed"] is False
    assert document["counts"] == {"passed": 0, "refused": 1, "exempt": 0, "failed": 1}
    assert [(each["name"], each["verdict"]) for each in document["checks"]] == [
        ("it_is_red", "failed"),
        ("it_lists", "refused"),
    ]


def test_a_check_that_a_kind_of_step_cannot_express_is_told(capsys: Capture) -> None:
    code = run(["runtime", "test", "meltano", "--check", "null_is_a_result"])

    assert code == 0
    assert "not asked of this kind of step:\n  null_is_a_result" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("runtime test nowhere", "no such instance"),
        ("runtime test local --check no_such*", "no check is called 'no_such*'"),
        ("runtime test local --server localhost:1", "from the machine it is configured on"),
    ],
)
def test_what_cannot_be_tested_is_refused(line: str, said: str, capsys: Capture) -> None:
    code = run(line.split())

    assert code == 2
    assert said in capsys.readouterr().err


def test_a_runtime_that_is_down_is_not_examined(folder: Path, capsys: Capture) -> None:
    (folder / "flexcore.yaml").write_text("runtimes: {far: {type: remote, address: 'localhost:1', token: x}}\n")

    code = run(["runtime", "test", "far"])

    out, err = capsys.readouterr()
    assert (code, out) == (3, "")
    assert err == (
        "error: runtime 'far' is down: cannot reach server localhost:1: nobody listens there\n"
        "  hint: start it there: flexcore runtime serve NAME --listen ADDR\n"
    )


def scripted(_name: str, _config: object, context: RuntimeContext) -> Runtime:
    return ScriptedRuntime(World(), context.installation)


class OwnHarness(BashHarness):
    """What a plug-in of somebody else's may bring."""

    exempt: Mapping[str, str] = {"everything": "it is only here to be found"}


def test_a_plug_in_brings_its_own_harness(tmp_path: Path) -> None:
    plugin = RuntimePlugin(kind="own", create=scripted, certify=f"{__name__}:OwnHarness")

    made = certify.harness_of(plugin)

    assert (
        made(Subject(plugin=plugin, config=plugin.config(), folder=tmp_path / "a", shared=tmp_path)).exempt
        == OwnHarness.exempt
    )


@pytest.mark.parametrize(
    ("where", "said"),
    [(None, "runs no bash steps"), ("nowhere:At", "cannot be loaded"), ("json:Nope", "cannot be loaded")],
)
def test_a_plug_in_without_a_harness_is_refused(where: str | None, said: str) -> None:
    plugin = RuntimePlugin(kind="own", create=scripted, certify=where)

    with pytest.raises(FlexCoreError, match=said):
        certify.harness_of(plugin)
