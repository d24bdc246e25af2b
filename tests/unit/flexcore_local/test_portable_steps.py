"""A portable step comes to the same on this machine and by the program that runs it far away."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from far_steps import Far
from local_steps import Local
from package_index import package_index

from flexcore.runtime.interface import Failed, LogStream, Succeeded
from flexcore.store.artifacts import LocalArtifacts

FILES = {
    "step.py": "import helper.words\n\ndef main(n):\n    print(__file__[-7:])\n    return helper.words.WORD * n\n",
    "helper/__init__.py": "",
    "helper/words.py": "WORD = 'ab'\n",
    "step.sh": 'echo "$0" | sed "s,.*/,,"; echo "[$#, \\"$1\\"]"\n',
    "data/table.csv": "a,b\n1,2\n",
}

STEPS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "returns what main returns": (
        "python",
        {"script": "def main(a, b):\n    return {'a': a, 'b': b}", "args": {"a": [1, None], "b": "ü"}},
    ),
    "returns nothing": ("python", {"script": "def main():\n    pass"}),
    "awaits": ("python", {"script": "async def main():\n    return 3"}),
    "writes its result itself": (
        "python",
        {"script": "import os\ndef main():\n    open(os.environ['FLEXCORE_RESULT'], 'w').write('[1]')"},
    ),
    "returns no JSON": ("python", {"script": "def main():\n    return {1, 2}"}),
    "raises": ("python", {"script": "def main():\n    raise KeyError('gone')"}),
    "raises for want of memory": ("python", {"script": "def main():\n    raise MemoryError"}),
    "exits with a word": ("python", {"script": "import sys\ndef main():\n    sys.exit('no more')"}),
    "has no main": ("python", {"script": "x = 1"}),
    "does not compile": ("python", {"script": "def main(:"}),
    "imports its own": ("python", {"file": "step.py", "args": {"n": 2}}),
    "last line is JSON": ("bash", {"script": 'echo hello; echo "{\\"n\\": $1}"', "args": [4]}),
    "says text": ("bash", {"script": "printf 'a\\nb c'; echo warning >&2", "args": []}),
    "quotes and lines": (
        "bash",
        {"script": 'printf "%s|" "$@"', "args": ["it's", "a\nb", {"x": 1}, None, "$HOME `ls`"]},
    ),
    "fails with last words": ("bash", {"script": "echo first >&2; echo the cause >&2; exit 3"}),
    "knows no command": ("bash", {"script": "no_such_command"}),
    "is killed": ("bash", {"script": "kill -SEGV $$"}),
    "fails in a pipe": ("bash", {"script": "false | true; echo never"}),
    "runs a file": ("bash", {"file": "step.sh", "args": ["x y"]}),
    "reads files it names": ("bash", {"script": "cat data/table.csv", "files": ["data"]}),
    "sees its variables": (
        "bash",
        {"script": 'echo "[\\"$A\\", $N, \\"$FLEXCORE_ATTEMPT\\"]"', "env": {"A": "x", "N": 5}},
    ),
    "tells its own failure": (
        "bash",
        {"script": 'echo \'{"message": "sold out", "error_class": "quota"}\' > "$FLEXCORE_FAILURE"; exit 9'},
    ),
}


@pytest.fixture
def far(tmp_path: Path) -> Far:
    return Far(tmp_path)


def with_files(*folders: Path) -> None:
    for folder in folders:
        for name, content in FILES.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(content)


@pytest.mark.parametrize(("kind", "parameters"), STEPS.values(), ids=STEPS)
async def test_a_step_comes_to_the_same(local: Local, far: Far, kind: str, parameters: dict[str, Any]) -> None:
    with_files(local.folder, far.workflow)

    here = await local.run(kind, parameters)
    there = await far.run(kind, parameters)

    assert there.result.outcome == here.outcome
    assert sorted(there.log) == sorted(here.log() + here.log(LogStream.STDERR))
    assert (there.code == 0) == isinstance(here.outcome, Succeeded)
    assert there.errors == b""


DATA: Mapping[str, tuple[str, dict[str, Any]]] = {
    "python by keyword": (
        "python",
        {
            "script": "import json\ndef main(orders, model):\n    open(model, 'w').write(open(orders).read() * 2)",
            "outputs": {"model": {"path": "out/model.txt", "format": "text"}},
        },
    ),
    "python in its working folder": (
        "python",
        {
            "script": "def main(orders):\n    open('m.jsonl', 'w').write('1\\n2\\n')\n    return {'n': 2}",
            "outputs": {"model": {"path": "m.jsonl", "format": "jsonl"}},
        },
    ),
    "bash by variables": (
        "bash",
        {
            "script": "wc -c < $INPUT_ORDERS > $OUTPUT_MODEL; echo '{\"x\": 1}'",
            "outputs": {"model": {"path": "deep/er/n.txt", "format": "text"}},
        },
    ),
    "left no file": (
        "bash",
        {"script": "echo '{}'", "outputs": {"model": {"path": "never.txt", "format": "text"}}},
    ),
    "result has no room": (
        "python",
        {
            "script": "def main(orders):\n    open('n', 'w').write('')\n    return [1]",
            "outputs": {"model": {"path": "n", "format": "text"}},
        },
    ),
    "fails before its output": (
        "bash",
        {"script": "exit 4", "outputs": {"model": {"path": "n", "format": "text"}}},
    ),
}


@pytest.mark.parametrize(("kind", "parameters"), DATA.values(), ids=DATA)
async def test_a_step_with_data_comes_to_the_same(
    local: Local, far: Far, kind: str, parameters: dict[str, Any]
) -> None:
    ref = await local.artifacts.put(b'{"id": 1}\n', format="jsonl")
    reference = {"uri": ref.uri, "format": "jsonl", "bytes": ref.bytes, "checksum": ref.checksum}
    far.artifacts = local.artifacts
    parameters = {**parameters, "inputs": {"orders": {"from": reference, "format": "jsonl"}}}

    here = (await local.run(kind, parameters)).outcome
    there = (await far.run(kind, parameters)).result.outcome

    assert type(there) is type(here)
    if isinstance(here, Failed) or isinstance(there, Failed):
        assert there == here
        return
    assert isinstance(here.output, Mapping)
    assert isinstance(there.output, Mapping)
    one, other = here.output["model"], there.output["model"]
    assert isinstance(one, Mapping)
    assert isinstance(other, Mapping)
    assert {**one, "uri": "", "step": ""} == {**other, "uri": "", "step": ""}
    assert {**here.output, "model": None} == {**there.output, "model": None}


async def test_data_goes_from_step_to_step_on_this_machine(local: Local) -> None:
    makes = await local.run(
        "python",
        {
            "script": "def main():\n    open('m.json', 'w').write('[1, 2]')\n    return {'accuracy': 0.5}",
            "outputs": {"model": {"path": "m.json", "format": "json"}},
        },
    )
    model = makes.output["model"]

    reads = await local.run(
        "python",
        {
            "script": "import json\ndef main(model):\n    return json.load(open(model))",
            "inputs": {"model": {"from": model, "format": "json"}},
        },
    )

    assert makes.output["accuracy"] == 0.5
    assert (model["format"], model["bytes"]) == ("json", 6)
    assert reads.output == [1, 2]
    assert not list(local.state.rglob("step"))


async def test_damaged_data_is_not_given_to_a_step(local: Local) -> None:
    ref = await local.artifacts.put(b"right", format="text")
    reference = {"uri": ref.uri, "format": "text", "bytes": 5, "checksum": "sha256-" + "0" * 64}

    seen = await local.run("bash", {"script": "touch ran", "inputs": {"x": {"from": reference}}})

    assert seen.failure.error_class == "dependency"
    assert "is not what was referred to" in seen.failure.message


async def test_a_step_with_data_is_cancelled_and_timed_out_like_any_other(local: Local) -> None:
    step = {"script": "sleep 30", "outputs": {"x": {"path": "x", "format": "text"}}}

    request = local.request("bash", step)
    await local.submit(request)
    report = await local.cancel(request, 0.2)
    timed = local.request("bash", step, grace=timedelta(0))
    deadline = datetime.now(UTC) + timedelta(seconds=0.3)
    late = await local.execute(replace(timed, deadline=deadline))

    assert len(report.gone) == 1
    assert late.failure.error_class == "timeout"


async def test_a_secret_in_the_last_words_is_taken_out(local: Local, far: Far) -> None:
    step = {"script": 'echo "login with $KEY failed" >&2; exit 1', "env": {"KEY": "hunter2"}}

    here = await local.run("bash", step, secrets=("hunter2",))
    there = await far.run("bash", step, secrets=("hunter2",))

    assert here.failure.message == there.failure.message == "ended with exit code 1: login with *** failed"


async def test_a_step_with_data_is_adopted_like_any_other(local: Local) -> None:
    script = "while [ ! -e $GO ]; do sleep 0.01; done; echo made > $OUTPUT_X; echo '{}'"
    outputs = {"x": {"path": "x", "format": "text"}}
    go = local.folder / "go"
    request = local.request("bash", {"script": script, "env": {"GO": str(go)}, "outputs": outputs})

    handle = await local.submit(request)
    go.touch()
    seen = await local.execute(replace(request, handle=handle), local.another())

    assert seen.submitted.adopted
    assert seen.output["x"]["bytes"] == 5


async def test_a_step_may_have_packages_and_data(local: Local, tmp_path: Path) -> None:
    script = "import tiny\ndef main(x):\n    open(x, 'w').write(tiny.VERSION)\n    return {'version': tiny.VERSION}"
    outputs = {"x": {"path": "x", "format": "text"}}
    with package_index(tmp_path / "cache") as index:
        index.add("tiny")
        step = {"script": script, "packages": ["tiny"], "env": dict(index.env), "outputs": outputs}

        seen = await local.run("python", step)
        said = await local.run("bash", {**step, "script": "tiny > $OUTPUT_X; echo '{}'"})

    assert (seen.output["version"], seen.output["x"]["bytes"]) == ("1.0", 3)
    assert said.output["x"]["bytes"] == len("tiny 1.0\n")


async def test_data_that_nobody_has_fails_the_step_before_it_begins(local: Local) -> None:
    reference = {"uri": "artifact:sha256-" + "0" * 64, "format": "text", "bytes": 5}
    local.artifacts = LocalArtifacts(local.state / "artifacts")

    seen = await local.execute(
        local.request("bash", {"script": "", "inputs": {"x": {"from": reference}}}), local.another()
    )

    assert seen.failure.error_class == "input"
    assert len(seen.events) == 1
