"""`flexcore workflow test`: plays workflows with mocked tasks. Always in this process, without store or runtimes."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flexcore.cli.library import WORKFLOW_FILE, copy, templates
from flexcore.cli.options import Options, Output, options_of
from flexcore.cli.parameters import json_argument
from flexcore.cli.render import clean, emit, painted, say, seconds
from flexcore.cli.resolve import local_file
from flexcore.cli.session import run, settings_of, tell_on_stderr
from flexcore.model.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from flexcore.settings import Settings
    from flexcore.testing.workflow.session import Outcome
    from flexcore.testing.workflow.stand_ins import Kinds
    from flexcore.testing.workflow.suite import Suite


def test(
    context: typer.Context,
    sources: Annotated[list[str], typer.Argument(metavar="NAME|FILE…", help="Workflows, templates, or test files.")],
    only: Annotated[str | None, typer.Option("--test", metavar="GLOB", help="Only tests with such names.")] = None,
    parameters: Annotated[str | None, typer.Option(metavar="JSON|@FILE", help="In place of each test's input.")] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the results as JUnit XML, too.")] = None,
) -> None:
    """Run the tests beside workflows: the real engine, mocked tasks, virtual time."""
    from flexcore.testing.workflow.junit import junit as junit_of  # what is for tests is loaded for tests only
    from flexcore.testing.workflow.session import chosen
    from flexcore.testing.workflow.stand_ins import Kinds
    from flexcore.testing.workflow.suite import read_suite

    options = options_of(context)
    tell_on_stderr("error")
    settings = settings_of(options)
    kinds = Kinds({name: each.type for name, each in settings.runtimes.items()})
    given = None if parameters is None else json_argument(parameters, "--parameters")
    suites = [read_suite(path, kinds, given) for path in _test_files(sources, settings)]
    if not any(chosen(each, only) for each in suites):
        names = ", ".join(scenario.name for each in suites for scenario in each.scenarios)
        raise NotFound(f"there is no test named '{only}'", hint=f"tests: {names}")
    begun = time.monotonic()
    results = run(lambda: _all(suites, kinds, only, options))
    if junit is not None:
        _write(junit, junit_of(results))
    failed = sum(not each.passed for each in results)
    documents = [each.document() for each in results]
    whole = {"passed": len(results) - failed, "failed": failed, "tests": documents}
    emit(options, whole, [*_failures(results), _summary(len(results), failed, time.monotonic() - begun)])
    raise typer.Exit(1 if failed else 0)


async def _all(suites: "Sequence[Suite]", kinds: "Kinds", only: str | None, options: Options) -> "list[Outcome]":
    from flexcore.testing.workflow.session import run as run_tests

    results: list[Outcome] = []
    async for each in run_tests(suites, kinds, only):
        if options.output is Output.TEXT:
            _progress(each, is_first=not results or results[-1].file != each.file)
        results.append(each)
    return results


def _progress(outcome: "Outcome", *, is_first: bool) -> None:
    """Say how a test went as soon as it is known."""
    from flexcore.model.units import format_duration

    word = painted("ok" if outcome.passed else "failed")
    lines = [f"{outcome.file}"] if is_first else []
    took = f"  ({format_duration(outcome.virtual)} in {seconds(outcome.seconds)})"
    lines.append(f"  {word:6}  {clean(outcome.name)}{took}")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _failures(results: "Sequence[Outcome]") -> list[str]:
    lines: list[str] = []
    for each in results:
        if not each.passed:
            lines += ["", f"--- {each.file}: {clean(each.name)}"]
            lines += [f"  {clean(problem)}" for problem in each.problems]
            lines += ["  what ran:", *(f"    {clean(step)}" for step in each.steps or ("nothing",))]
    return lines


def _summary(total: int, failed: int, took: float) -> str:
    parts = [f"{failed} failed"] if failed else []
    return "\n" + ", ".join([*parts, f"{total - failed} passed"]) + f" in {seconds(took)}"


def _test_files(sources: Sequence[str], settings: "Settings") -> list[Path]:
    """Find the test files that the arguments mean, each once."""
    from flexcore.testing.workflow.suite import files_about, is_test_file

    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        files = [path] if is_test_file(path) and path.is_file() else files_about(_workflow(source, settings))
        found |= dict.fromkeys(files)
    return list(found)


def _workflow(source: str, settings: "Settings") -> Path:
    """Find the workflow file that a name means; a template is copied first, as it is when it is run."""
    path = local_file(source, Path())
    if path is not None:
        return path
    known = {each.name: each for each in templates(settings.workflow_templates)}
    if source not in known:
        places = f"{source}.yaml, {source}/{WORKFLOW_FILE}, and the templates ({', '.join(known)})"
        hint = f"looked at {places}; what is only deployed has no test files"
        raise NotFound(f"there is no workflow or test file {source}", hint=hint)
    copy(known[source], Path(source))
    say(f"copied template {source} to ./{source}")
    return Path(source) / WORKFLOW_FILE


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"--junit {path} cannot be written: {error.strerror}") from error
