"""Portable steps without processes: parameters, the program that is shipped, endings in a log, the files of a step."""

import ast
import itertools
import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId, ExecutionId, StepPath
from flexcore.model.workflow import StepKind
from flexcore.runtime import flexcore_far
from flexcore.runtime.flexcore_far.delivery import lines
from flexcore.runtime.flexcore_far.installer_outcomes import judged
from flexcore.runtime.interface import ExecutionRequest, Failed, Succeeded
from flexcore.runtime.portable.data import NO_DATA
from flexcore.runtime.portable.delivery import mark_of, to_log
from flexcore.runtime.portable.ending import Ending, EndingInLog, decode
from flexcore.runtime.portable.files import needed
from flexcore.runtime.portable.parameters import BashParameters, PythonParameters
from flexcore.runtime.portable.program import Limits, Program, program

ATTEMPT = AttemptId(ExecutionId("exe_1"), StepPath("a"), 1)
MARK = mark_of("installation", ATTEMPT, 7)
STATUS = {
    "version": 1,
    "exit_code": 0,
    "signal": None,
    "reason": "",
    "problem": "",
    "errno": 0,
    "started": 1.0,
    "finished": 2.0,
    "cpu_s": 0.5,
    "peak_bytes": 1024,
    "dropped": {},
}


def told(result: bytes = b"[1]", **more: Any) -> bytes:
    head = {"version": 1, "kind": "python", "phases": {"run": 1.0}, "stored": {}, "status": STATUS}
    head |= {"result_bytes": len(result), **more}
    return json.dumps(head).encode() + b"\n" + result


def in_pieces(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    return [raw[start:end] for start, end in itertools.pairwise(places)]


LIKE_A_MARK = st.sampled_from([b"", b"\n", b"flexcore-", MARK.encode()[:30], MARK.encode(), b" 0 AAAA\n", b"\xff\x00"])


@given(
    st.lists(st.one_of(LIKE_A_MARK, st.binary(max_size=40)), max_size=6).map(b"".join),
    st.integers(0, 60_000),
    st.lists(st.integers(0, 1 << 20), max_size=12),
)
def test_the_log_of_a_step_is_told_from_its_ending(output: bytes, size: int, cuts: list[int]) -> None:
    output = output.replace(MARK.encode() + b" ", b"")
    raw = output + b"".join(lines(MARK, told(json.dumps("x" * size).encode())))
    reader = EndingInLog(MARK)

    given_back = b"".join([reader.feed(piece) for piece in in_pieces(raw, cuts)]) + reader.rest()

    assert given_back == output
    assert reader.ending is not None
    assert reader.ending.outcome == Succeeded("x" * size)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_a_log_can_be_taken_up_at_any_offset_of_the_steps_output(output: bytes, offset: int) -> None:
    offset = min(offset, len(output))
    reader = EndingInLog(MARK)

    given_back = reader.feed((output + b"".join(lines(MARK, told())))[offset:])

    assert given_back == output[offset:]
    assert reader.ending is not None


def test_output_is_given_on_at_once() -> None:
    reader = EndingInLog(MARK)

    assert reader.feed(b"a line\n") == b"a line\n"
    assert reader.feed(b"part") == b"part"
    assert (reader.feed(b" fle"), reader.feed(b"xible")) == (b" ", b"flexible")


def test_a_damaged_ending_is_lost_work_and_not_a_success() -> None:
    whole = b"".join(lines(MARK, told(json.dumps("x" * 40_000).encode()))).splitlines(keepends=True)
    reader = EndingInLog(MARK)

    reader.feed(b"".join([*whole[:1], *whole[2:]]))

    assert reader.ending is not None
    assert isinstance(reader.ending.outcome, Failed)
    assert reader.ending.outcome.failure.error_class is ErrorClass.LOST


def test_an_ending_that_is_cut_off_is_none() -> None:
    reader = EndingInLog(MARK)

    reader.feed(b"".join(lines(MARK, told()))[:-4])

    assert reader.ending is None
    assert decode(told().partition(b"\n")[0]) is None
    assert decode(told(b"[12]")[:-1]) is None
    assert decode(told(b"12")[:-1]) is None


@given(st.binary(max_size=200))
def test_whatever_comes_back_is_read_without_an_accident(raw: bytes) -> None:
    decode(raw)
    decode(raw + b"\n{}")
    reader = EndingInLog(MARK)
    reader.feed(MARK.encode() + b" " + raw + b"\n" + MARK.encode() + b" . 00000000\n")


ENDINGS: Mapping[str, tuple[bytes, Any]] = {
    "a result": (told(b'{"a": 1}'), Succeeded({"a": 1})),
    "null": (told(b"null"), Succeeded(None)),
    "no result": (told(b""), "NoResult"),
    "half a result": (told(b'{"a":'), "InvalidResult"),
    "told to end": (told(b"", is_told_to_end=True, status=None), None),
    "told to end while it ran": (told(b"[1]", status={**STATUS, "reason": "cancelled"}), None),
    "time is up": (told(b"", status={**STATUS, "exit_code": None, "signal": 9, "reason": "timeout"}), "Timeout"),
    "an exit code": (told(b"", status={**STATUS, "exit_code": 3}), "exit 3"),
    "its own words": (told(b"", status={**STATUS, "exit_code": 1}, failed='{"message": "m", "name": "N"}'), "N"),
    "half of its own words": (told(b"", status={**STATUS, "exit_code": 1}, failed='{"message": "m'), "exit 1"),
    "never began": (told(b"", status=None, failure={"message": "m", "name": "NoInstaller"}), "NoInstaller"),
    "says nothing": (told(b"", status=None), "UnreadableEnding"),
}


@pytest.mark.parametrize(("raw", "expected"), ENDINGS.values(), ids=ENDINGS)
def test_an_ending_is_judged(raw: bytes, expected: Any) -> None:
    ending = decode(raw)

    assert ending is not None
    outcome = ending.outcome
    assert (outcome.failure.name if isinstance(outcome, Failed) else outcome) == expected


def test_without_an_outcome_the_runtimes_own_word_counts() -> None:
    instead = Failed(Failure(message="evicted, by hunter2", error_class=ErrorClass.EVICTED))

    result = Ending(outcome=None).result(instead, NO_DATA, ATTEMPT, ("hunter2",))

    assert isinstance(result.outcome, Failed)
    assert result.outcome.failure.message == "evicted, by ***"


def test_marks_differ_by_attempt_token_and_installation() -> None:
    another = AttemptId(ExecutionId("exe_1"), StepPath("a"), 2)

    assert (
        len(
            {
                MARK,
                mark_of("other", ATTEMPT, 7),
                mark_of("installation", ATTEMPT, 8),
                mark_of("installation", another, 7),
            }
        )
        == 4
    )
    assert mark_of("installation", ATTEMPT, 7) == MARK


REFERENCE = {"uri": "artifact:sha256-0", "format": "joblib", "bytes": 3}


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        (
            {"inputs": {"m": {"from": REFERENCE, "format": "parquet"}}},
            "'parquet', and the data is 'joblib'",
        ),
        ({"inputs": {"m": {"from": {"a": 1}}}}, "`from` is no reference"),
        ({"inputs": {"m": {"from": {**REFERENCE, "bytes": "3"}}}}, "its `bytes` is no size"),
        ({"inputs": {"m-1": {"from": REFERENCE}}}, "should match pattern"),
        ({"outputs": {"m": {"path": "../m", "format": "x"}}}, "stays inside"),
        ({"outputs": {"m": {"path": "/m", "format": "x"}}}, "stays inside"),
        ({"files": ["../secrets"]}, "stays inside"),
        ({"inputs": {"m": {"from": REFERENCE}}, "outputs": {"m": {"path": "m", "format": "x"}}}, "input and an output"),
        ({"inputs": {"m": {"from": REFERENCE}, "M": {"from": REFERENCE}}}, "differ only in their case"),
        ({"inputs": {"m": {"from": REFERENCE}}, "args": {"m": 1}}, "in `args` and in `inputs`"),
    ],
)
def test_what_cannot_be_right_about_data_is_refused(parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match="(?s)" + problem.replace("(", r"\(")):
        PythonParameters.model_validate({"script": "", **parameters})


def test_parameters_survive_being_written_down() -> None:
    given = {"script": "x", "inputs": {"m": {"from": REFERENCE, "format": "joblib"}}}

    read = PythonParameters.model_validate(given)

    assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == given


def made(folder: Path, parameters: dict[str, Any], kind: str = "python", **options: Any) -> Program | Failure:
    model = (PythonParameters if kind == "python" else BashParameters).model_validate(parameters)
    request = ExecutionRequest(
        id=ATTEMPT, token=7, kind=StepKind(kind), parameters=parameters, folder=folder, secrets=("hunter2",)
    )
    return program(request, model, data=NO_DATA, delivery=to_log(MARK), **options)


def test_the_files_of_a_program_hold_no_secret_and_do_not_change_with_the_attempt(tmp_path: Path) -> None:
    (tmp_path / "step.py").write_text("def main(key): ...")

    one = made(tmp_path, {"file": "step.py", "args": {"key": "hunter2"}})
    other = made(tmp_path, {"file": "step.py", "args": {"key": "else"}}, limits=Limits(time=timedelta(seconds=1)))

    assert isinstance(one, Program)
    assert isinstance(other, Program)
    assert list(one.files.items()) == list(other.files.items())
    assert b"hunter2" not in b"".join(one.files.values()) + " ".join(one.command).encode()
    assert one.files["workflow/step.py"] == b"def main(key): ..."
    assert msgspec.json.decode(one.order)["args"] == {"key": "hunter2"}


@pytest.mark.parametrize(
    ("kind", "parameters", "problem"),
    [
        ("python", {"file": "gone.py"}, "file 'gone.py' is not in the workflow's folder"),
        ("python", {"file": "../outside.py"}, "outside of the workflow's folder"),
        ("python", {"script": "", "files": ["gone"]}, "file 'gone' is not in the workflow's folder"),
        ("python", {"script": "", "packages": ["hunter2"]}, "a secret stands in `packages`"),
        ("bash", {"script": "", "args": ["a\0b"]}, "holds a NUL character"),
        ("bash", {"script": "", "args": ["\ud800"]}, "half a character"),
    ],
)
def test_a_step_that_cannot_be_started_is_refused(
    tmp_path: Path, kind: str, parameters: dict[str, Any], problem: str
) -> None:
    (tmp_path / "outside.py").touch()
    (tmp_path / "workflow").mkdir()

    refused = made(tmp_path / "workflow", parameters, kind)

    assert isinstance(refused, Failure)
    assert problem in refused.message


def test_the_files_of_a_step_are_those_it_imports_from_beside_it(tmp_path: Path) -> None:
    for name, content in {
        "train.py": "import numpy, features.clean\nfrom shared import constants",
        "features/__init__.py": "from . import scale",
        "features/clean.py": "import features.clean, json",
        "features/scale.py": "",
        "features/unused.py": "",
        "shared/constants.py": "",
        "other.py": "",
        "data/a.csv": "",
        "data/b/c.csv": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)

    found = needed("train.py", ["data"], (tmp_path / "train.py").read_text(), tmp_path, is_python=True)

    assert found == [
        *("data/a.csv", "data/b/c.csv", "features/__init__.py", "features/clean.py", "features/scale.py"),
        *("shared/constants.py", "train.py"),
    ]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text("")
    folder = tmp_path / "workflow"
    folder.mkdir()
    (folder / "mine.py").symlink_to(tmp_path / "outside.py")

    assert needed(None, [], "import mine", folder, is_python=True) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ERROR: Could not find a version\nERROR: No matching distribution found for nowhere", "NoSuchPackage"),
        ("ERROR: ResolutionImpossible: for help", "Conflict"),
        ("WARNING: NewConnectionError: Failed to establish a new connection", "NoPackageIndex"),
    ],
)
def test_the_words_of_pip_are_understood(text: str, name: str) -> None:
    assert judged(text, 1).name == name


@pytest.mark.parametrize("path", sorted(Path(flexcore_far.__file__).parent.glob("*.py")), ids=lambda path: path.name)
def test_what_is_shipped_is_python_of_long_ago_and_imports_nothing_else_of_ours(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))

    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
    names = [node.module or "" for node in imports if isinstance(node, ast.ImportFrom) and not node.level]
    names += [each.name for node in imports if isinstance(node, ast.Import) for each in node.names]
    assert not [name for name in names if name.startswith("flexcore")]
    words = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert words.isdisjoint({"removeprefix", "removesuffix", "is_relative_to", "walk_up", "with_stem", "bit_count"})
