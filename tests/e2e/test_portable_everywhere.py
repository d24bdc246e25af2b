"""One word moves a step: the same results, failures and logs on local, on a real Ray and on a stand-in cluster.

Everything runs once per runtime, side by side; the tests then compare. Ray has a network of its own, so it shares a
folder with us for data, and the pods of the stand-in share an object store.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.embedded import Plane, plane, step_of
from package_index import package_index

from flexcore.model.requests import Bundle, StartRequest
from flexcore.testing.kubernetes.containers import why_not_boxed
from flexcore.testing.object_store import KEYS, REGION, ObjectStore, object_store
from flexcore.testing.runtime_kubernetes import site
from flexcore.testing.runtime_ray import end_cluster_of, no_box

SECRET = "hunter2-hünter2"
FAR = ("ray", "kubernetes")

TELL = """
import hashlib, os, sys
from parts import words
def main(text, count, nothing, nested, word):
    print(text)
    print("the word is", word, end="")
    return {
        "text": text, "count": count, "nothing": nothing, "nested": nested,
        "kinds": [type(each).__name__ for each in (text, count, nothing, nested)],
        "letters": len(word), "word": word, "plain": os.environ["PLAIN"], "many": os.environ["MANY"],
        "beside": words.said(), "stdin": sys.stdin.read(),
        "path": [os.environ["FLEXCORE_STEP"], os.environ["FLEXCORE_ATTEMPT"]],
    }
"""
FILES = {
    "tell.py": TELL,
    "parts/__init__.py": "",
    "parts/words.py": "from pathlib import Path\ndef said(): return Path('data/grüße.txt').read_text('utf-8')\n",
    "data/grüße.txt": "grüße 🦀\n",
    "say.sh": 'cat "data/grüße.txt"\nprintf "%s|" "$@" "$PLAIN" "${#WORD}"\nread -r line || echo "no line"\nexit 0\n',
    "raises.py": "from parts import words\ndef main():\n    raise KeyError(words.said())\n",
}


@dataclass(frozen=True)
class Case:
    """A step as it is written, but for where it runs; `makes` are the output that is expected or the failure."""

    kind: str
    given: Mapping[str, Any]
    makes: Any = None
    fails: tuple[str, str] = ()  # type: ignore[assignment]  # class and name, when it fails
    more: Mapping[str, Any] = field(default_factory=dict)
    log: str | None = None
    same_words: bool = True  # whether the failure has one message: not the installer's, nor that of a backstop


def python(script: str, makes: Any = None, fails: Any = (), log: str | None = None, **given: Any) -> Case:
    return Case("python", {"script": script, **given}, makes, fails, log=log)


def bash(script: str, makes: Any = None, fails: Any = (), log: str | None = None, **given: Any) -> Case:
    return Case("bash", {"script": script, **given}, makes, fails, log=log)


CASES = {
    "arguments": Case(
        "python",
        {
            "file": "tell.py",
            "files": ["data"],
            "args": {
                "text": "naïve\n🦀 $HOME $(date) '\"\\",
                "count": 9007199254740993,
                "nothing": None,
                "nested": {"a": [1, 2.5, True, {"é": ""}]},
                "word": "${{ secrets.WORD }}",
            },
            "env": {"PLAIN": "ü $PATH", "MANY": 3},
        },
        {
            "text": "naïve\n🦀 $HOME $(date) '\"\\",
            "count": 9007199254740993,
            "nothing": None,
            "nested": {"a": [1, 2.5, True, {"é": ""}]},
            "kinds": ["str", "int", "NoneType", "dict"],
            "letters": len(SECRET),
            "word": "***",
            "plain": "ü $PATH",
            "many": "3",
            "beside": "grüße 🦀\n",
            "stdin": "",
            "path": ["step", "1"],
        },
        log="naïve\n🦀 $HOME $(date) '\"\\\nthe word is ****************",
    ),
    "words": Case(
        "bash",
        {
            "file": "say.sh",
            "files": ["data"],
            "args": ["a b", "$HOME", "", 7, None, ["é"]],
            "env": {"PLAIN": "ü", "WORD": "${{ secrets.WORD }}"},
        },
        {"stdout": f"grüße 🦀\na b|$HOME||7||[\"é\"]|ü|{len(SECRET)}|no line\n", "exit_code": 0},
    ),
    "packages": python(
        "import tiny, subprocess\ndef main(): return [tiny.VERSION, subprocess.check_output(['tiny'], text=True)]",
        ["1.0", "tiny 1.0\n"],
        packages=["tiny"],
    ),
    "unknown": Case(
        "python",
        {"script": "def main(): pass", "packages": ["no-such-package-here"]},
        fails=("user", "NoSuchPackage"),
        same_words=False,
    ),
    "large": python("def main(): return {'x': 'é' * 400_000, 'n': list(range(1000))}", {"x": "é" * 400_000, "n": list(range(1000))}),
    "nothing": python("def main(): pass", None),
    "last": bash("echo first; printf '{\"n\": [1, 2]}'", {"n": [1, 2]}, log='first\n{"n": [1, 2]}'),
    "raises": Case("python", {"file": "raises.py", "files": ["data"]}, fails=("user", "KeyError")),
    "exits": python("import sys\ndef main(): sys.exit(7)", fails=("user", "exit 7")),
    "no_json": python("def main(): return {1, 2}", fails=("user", "")),
    "code": bash("echo out; echo 'was alles schief ging: ü' >&2; exit 3", fails=("user", "exit 3")),
    "signal": bash("kill -SEGV $$", fails=("user", "SIGSEGV")),
    "told": bash(
        'echo \'{"message": "come back", "error_class": "dependency", "name": "Busy"}\' > $FLEXCORE_FAILURE; exit 1',
        fails=("dependency", "Busy"),
    ),
    "slow": Case("bash", {"script": "echo begun; sleep 60"}, fails=("timeout", "Timeout"), more={"timeout": "1s"}, same_words=False),
    "unwritten": python("def main(): return 1", fails=("user", "OutputMissing"), outputs={"t": {"path": "t.csv", "format": "csv"}}),
}  # fmt: skip

PIPE = """
name: pipe_{runtime}
steps:
  - id: make
    type: python
    runtime: {runtime}
    with:
      outputs: {{table: {{path: deep/täble.csv, format: csv}}}}
      script: |
        import os
        def main(table):
            os.makedirs(os.path.dirname(table), exist_ok=True)
            with open(table, "w", encoding="utf-8") as file:
                file.write("wort\\nä\\nb\\n")
            return {{"lines": 2}}
  - id: turn
    type: bash
    runtime: {runtime}
    with:
      inputs: {{table: {{from: "${{{{ results.make.table }}}}", format: csv}}}}
      outputs: {{lines: {{path: lines.jsonl, format: jsonl}}}}
      script: |
        tail -n +2 "$INPUT_TABLE" | sed 's/.*/{{"w": "&"}}/' > "$OUTPUT_LINES"
        echo '{{"head": "'"$(head -1 "$INPUT_TABLE")"'"}}'
output: ${{{{ [results.make, results.turn] }}}}
"""


@dataclass(frozen=True)
class Seen:
    """How a step ended, apart from the names of runtimes and places."""

    output: Any
    failure: tuple[str, str, str] | None
    log: str


Everywhere = Mapping[str, Mapping[str, Seen]]


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everywhere]:
    """Give how everything ended by runtime. What was started for it is ended before the first test."""
    if reason := no_box() or why_not_boxed():
        pytest.skip(f"there is no room for Ray or pods: {reason}")
    shared, stored = tmp_path_factory.mktemp("shared"), tmp_path_factory.mktemp("stored")
    with ExitStack() as around:
        index = around.enter_context(package_index(shared / "cache"))
        index.add("tiny")
        wheels = tmp_path_factory.mktemp("wheels")
        for name, content in index.wheels.items():
            (wheels / name).write_bytes(content)
        changed = around.enter_context(pytest.MonkeyPatch.context())
        for name, value in {**index.env, "FLEXCORE_SECRET_WORD": SECRET}.items():
            changed.setenv(name, value)
        kubernetes = around.enter_context(site({}))
        server = around.enter_context(object_store())
        ray = {"type": "ray", "cluster": "local", "boxed": True, "cpus": 8, "idle_timeout": 120}
        write(shared, ray={**ray, "installer": {"FLEXCORE_WHEELS": str(wheels)}})
        index_only = {"UV_DEFAULT_INDEX": index.url}
        pods = {"type": "kubernetes", **kubernetes.config, "environment": index_only}
        write(stored, kubernetes=pods, artifacts=bucket(server))
        around.callback(end_cluster_of, shared / ".flexcore" / "runtimes" / "ray")
        found = asyncio.run(all_seen(shared, stored))
    yield found


def write(folder: Path, artifacts: Mapping[str, str] | None = None, **runtimes: Any) -> None:
    settings = {"runtimes": runtimes, **({} if artifacts is None else {"artifacts": artifacts})}
    (folder / "flexcore.yaml").write_text(yaml.safe_dump(settings))
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, "utf-8")


def bucket(server: ObjectStore) -> Mapping[str, str]:
    key, secret = KEYS
    place = {"url": f"s3://{server.bucket}/portable", "endpoint": server.endpoint, "region": REGION}
    return {**place, "access_key": key, "secret_key": secret}


async def all_seen(shared: Path, stored: Path) -> Everywhere:
    async with plane(shared) as one, plane(stored) as other:
        ways = ((one, "local"), (one, "ray"), (other, "kubernetes"))
        found = await asyncio.gather(*(seen_on(here, runtime) for here, runtime in ways))
    return {runtime: seen for (_, runtime), seen in zip(ways, found, strict=True)}


async def seen_on(here: Plane, runtime: str) -> Mapping[str, Seen]:
    texts = {name: written(case, name, runtime) for name, case in CASES.items()} | {
        "pipe": PIPE.format(runtime=runtime)
    }
    found = await asyncio.gather(*(seen(here, runtime, text) for text in texts.values()))
    return dict(zip(texts, found, strict=True))


def written(case: Case, name: str, runtime: str) -> str:
    step = {"id": "step", "type": case.kind, "runtime": runtime, "with": dict(case.given), **case.more}
    return yaml.safe_dump(
        {"name": f"{name}_{runtime}", "steps": [step], "output": "${{ results.step }}"}, allow_unicode=True
    )


async def seen(here: Plane, runtime: str, text: str) -> Seen:
    files = {name: content.encode() for name, content in FILES.items()}
    control = here.installation.control_plane
    bundle = Bundle(text=text, file_name="workflow.yaml", files=files, origin=str(here.folder))
    name = str((await control.deploy(bundle))["name"])
    document = await here.finish((await control.start(StartRequest(workflow=name))).id)
    error = document["error"]
    last = document["steps"][-1]["path"]
    assert step_of(document, last)["runtime"] in (runtime, None), document
    page = await control.logs(document["id"], last)
    log = "".join(each["text"] for each in page.pieces if each["stream"] == "stdout")
    failure = error and (error["class"], error.get("name") or "", error["message"].replace(runtime, "HERE"))
    return Seen(output=document["output"], failure=failure, log=log)


@pytest.mark.timeout(600)  # the first one waits for all, and so may the machine
@pytest.mark.parametrize("name", CASES)
def test_one_word_moves_a_step(name: str, everywhere: Everywhere) -> None:
    case, here = CASES[name], everywhere["local"][name]
    words = 3 if case.same_words else 2
    failures = {runtime: (seen[name].failure or ())[:words] for runtime, seen in everywhere.items()}

    assert failures == dict.fromkeys(everywhere, failures["local"])
    assert {runtime: everywhere[runtime][name].output for runtime in FAR} == dict.fromkeys(FAR, here.output)
    if case.fails:
        assert here.failure is not None
        assert (here.failure[0], case.fails[1] and here.failure[1]) == case.fails
    else:
        assert (here.failure, here.output) == (None, case.makes)
    if case.log is not None:
        assert {runtime: seen[name].log for runtime, seen in everywhere.items()} == dict.fromkeys(everywhere, case.log)


@pytest.mark.timeout(600)
def test_data_is_the_same_wherever_it_is_kept(everywhere: Everywhere) -> None:
    kept = {runtime: json.dumps(unnamed(seen["pipe"].output), sort_keys=True) for runtime, seen in everywhere.items()}

    assert everywhere["local"]["pipe"].failure is None
    assert everywhere["local"]["pipe"].output[1]["head"] == "wort"
    assert kept == dict.fromkeys(kept, kept["local"])


def unnamed(value: Any) -> Any:
    """Leave out what a thing is called in its store."""
    if isinstance(value, dict):
        return {key: unnamed(each) for key, each in value.items() if key != "uri"}
    return [unnamed(each) for each in value] if isinstance(value, list) else value


def test_no_secret_is_in_what_came_back(everywhere: Everywhere) -> None:
    assert SECRET not in repr(everywhere)
