"""The shape of the code: its budget, its borders, its words. A failure names the place."""

import ast
import re
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import grimp
import pytest
from importlinter import cli as import_linter

from flexcore.api.errors import STATUSES
from flexcore.model.errors import FlexCoreError
from flexcore.model.lifecycle import EXECUTION_TRANSITIONS, STEP_TRANSITIONS, render_mermaid

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "flexcore", ROOT / "runtimes")
GENERATED = ("_pb2.py", "_pb2_grpc.py")

# The clock is read where the parts are put together, and in programs of their own that outlive their parent.
CLOCKS = {"flexcore/bootstrap.py", "runtimes/flexcore_local/run_http.py"}

FORBIDDEN_WORDS = ("manager", "helper", "util", "processor")
FORBIDDEN_ENDINGS = ("Data", "Info", "Object")


@dataclass(frozen=True)
class Source:
    """A file of ours, as written."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    def functions(self) -> Iterator[tuple[int, str]]:
        """Give the length in lines and the place of every function."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield node.end_lineno - node.lineno + 1, f"{self.name}:{node.lineno} {node.name}"


@cache
def sources() -> tuple[Source, ...]:
    paths = sorted(path for folder in SOURCES for path in folder.rglob("*.py") if not path.name.endswith(GENERATED))
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    return tuple(Source(path, text, ast.parse(text)) for path, text in texts.items())


def production() -> list[Source]:
    return [source for source in sources() if "testing" not in source.path.parts]


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(
        "flexcore", "flexcore_local", "flexcore_meltano", exclude_type_checking_imports=False, cache_dir=None
    )


@cache
def ours() -> tuple[str, ...]:
    """List every file that is, or would be, in a commit."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return tuple(name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())


def lines_matching(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for name in ours():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name}:{n}" for n, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
    return found


def test_files_keep_to_the_budget() -> None:
    lengths = sorted((source.text.count("\n"), source.name) for source in production())
    numbers = [length for length, _ in lengths]

    assert [each for each in lengths if each[0] > 600] == []
    assert statistics.median(numbers) <= 150
    assert numbers[int(0.9 * (len(numbers) - 1))] <= 400


def test_functions_keep_to_the_budget() -> None:
    lengths = [each for source in production() for each in source.functions()]
    long = [each for each in lengths if each[0] > 40]

    assert [each for each in lengths if each[0] > 80] == []
    assert statistics.median(length for length, _ in lengths) <= 9
    assert len(long) <= 0.05 * len(lengths), long


def test_the_facade_stays_small() -> None:
    lengths = {source.name: source.text.count("\n") for source in sources()}

    assert lengths["flexcore/controlplane.py"] <= 300


def test_the_import_contracts_hold() -> None:
    assert import_linter.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_no_module_is_part_of_an_import_cycle() -> None:
    modules = graph().modules

    in_a_cycle = {
        module
        for module in modules
        for imported in graph().find_modules_directly_imported_by(module)
        if graph().chain_exists(importer=imported, imported=module)
    }

    assert in_a_cycle == set()


def test_names_are_words_of_the_domain() -> None:
    found = []
    for source in sources():
        names = [(1, source.path.stem)]
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                names.append((node.lineno, node.name))
        found += [f"{source.name}:{line} {name}" for line, name in names if _is_forbidden(name)]

    assert found == []


def _is_forbidden(name: str) -> bool:
    words = re.findall(r"[a-z]+", re.sub(r"([A-Z])", r" \1", name).lower())
    vague = any(word == bad or word == f"{bad}s" for word in words for bad in FORBIDDEN_WORDS)
    return vague or (name[:1].isupper() and name.endswith(FORBIDDEN_ENDINGS))


def test_services_are_background_duties_only() -> None:
    """A class called a service has `run_once`; everything else has a better name."""
    found = [
        f"{source.name}:{node.lineno} {node.name}"
        for source in production()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Service")
        if "run_once"
        not in {each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    ]

    assert found == []


def test_every_error_has_its_statuses() -> None:
    def below(error: type[FlexCoreError]) -> Iterator[type[FlexCoreError]]:
        yield error
        for each in error.__subclasses__():
            yield from below(each)

    ours_only = {each for each in below(FlexCoreError) if each.__module__.startswith("flexcore.model")}

    assert ours_only == set(STATUSES)


def test_error_codes_are_unique() -> None:
    codes = [each.code for each in STATUSES]

    assert sorted(codes) == sorted(set(codes))


def test_everything_public_says_what_it_is_for() -> None:
    found = []
    for source in production():
        if not ast.get_docstring(source.tree):
            found.append(source.name)
        for node in source.tree.body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                found.append(f"{source.name}:{node.lineno} {node.name}")

    assert found == []


def test_time_comes_in_as_an_argument() -> None:
    clock = re.compile(r"^datetime\.(now|today|utcnow)$")
    found = [
        f"{source.name}:{node.lineno}"
        for source in production()
        if source.name not in CLOCKS
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and clock.match(ast.unparse(node.func))
    ]

    assert found == []


@pytest.mark.parametrize("transitions", [EXECUTION_TRANSITIONS, STEP_TRANSITIONS], ids=["execution", "step"])
def test_the_diagrams_in_the_documentation_are_the_tables(transitions: dict) -> None:
    drawn = render_mermaid(transitions)

    assert drawn in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    assert lines_matching(re.compile(r"(?<![\w.$}*])/(work|root|Users|home/\w+)/")) == []


def test_no_file_names_a_registry() -> None:
    assert (
        lines_matching(re.compile(r"pypi[.]org|pythonhosted[.]|npmjs[.]|--(extra-)?index[-]url [^\"]", re.IGNORECASE))
        == []
    )


def test_the_lock_files_are_complete() -> None:
    for name in ("dev", "meltano"):
        text = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
        pins = re.findall(r"^[a-z0-9]\S*==\S+.*?(?=^[a-z0-9]|\Z)", text, re.MULTILINE | re.DOTALL)

        assert len(pins) > 50
        assert [pin.split()[0] for pin in pins if "--hash=sha256:" not in pin] == []
