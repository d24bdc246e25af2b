"""`flexcore import`: files of other formats become workflows, with a report of what that did to them. Always local."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from flexcore.cli.meltano_project import PROJECT_FILE, is_project, local_project
from flexcore.cli.options import options_of
from flexcore.cli.render import clean, emit, painted
from flexcore.language.meltano_workflows import Fidelity, ImportedWorkflow, Note, workflows_of
from flexcore.model.errors import AlreadyExists, InvalidRequest, NotFound

app = typer.Typer(add_completion=False, rich_markup_mode=None)

MELTANO = "meltano"
_LATER = ("openflow", "flow")


@dataclass(frozen=True, slots=True)
class _Result:
    """A workflow and the file that it goes to."""

    path: Path
    workflow: ImportedWorkflow

    def document(self, *, written: bool) -> dict[str, Any]:
        made = self.workflow
        origin = {"job": made.job or None, "schedule": made.schedule or None, "cron": made.cron or None}
        steps = [{"id": each["id"], "type": each["type"]} for each in made.steps]
        text = {} if written else {"text": made.text}
        return {"name": made.name, "file": str(self.path), **origin, "steps": steps, "written": written, **text}


@app.callback()
def _formats() -> None:
    """Take over what other tools have."""


@app.command("import")
def import_(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Such as a project's meltano.yml.")],
    from_: Annotated[
        str | None, typer.Option("--from", metavar="FORMAT", help="meltano; found out by default.")
    ] = None,
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="Write there; beside the file by default.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written.")] = False,
) -> None:
    """Make workflows of the files of another tool, and report what was taken over, changed and lost."""
    results: list[_Result] = []
    notes: list[Note] = []
    for file in files:
        _insist_on_format(file, from_)
        found = _imported(_file(file), to)
        results += found[0]
        notes += found[1]
    if not dry_run:
        _write(results, force=force)
    document = {
        "workflows": [each.document(written=not dry_run) for each in results],
        "notes": [each.document() for each in notes],
    }
    emit(options_of(context), document, _report(results, notes, written=not dry_run))


def _insist_on_format(file: Path, wanted: str | None) -> None:
    path = _file(file)
    if wanted in _LATER or (wanted is None and path.name != PROJECT_FILE and not is_project(path)):
        what = f"format {wanted}" if wanted else f"{file}: its format"
        raise InvalidRequest(f"{what} cannot be imported yet", hint=f"what can be is a Meltano project: {PROJECT_FILE}")
    if wanted not in (None, MELTANO):
        raise InvalidRequest(f"there is no format '{wanted}'", hint=f"formats: {MELTANO}")


def _file(file: Path) -> Path:
    path = file / PROJECT_FILE if file.is_dir() else file
    if not path.is_file():
        raise NotFound(f"there is no file {path}")
    return path


def _imported(file: Path, to: Path | None) -> tuple[list[_Result], list[Note]]:
    folder = to or file.parent
    project = local_project(file)
    imported = workflows_of(project.pipelines, project_in(folder, project.root))
    if not imported.workflows:
        raise NotFound(f"{file} has no jobs and no schedules", hint="a job is what becomes a workflow")
    return [_Result(folder / f"{each.name}.yaml", each) for each in imported.workflows], list(imported.notes)


def project_in(folder: Path, root: Path) -> str:
    """Say what a workflow in a folder calls a project. Raises InvalidRequest when the project is not inside."""
    inside = root.resolve()
    if not inside.is_relative_to(folder.resolve()):
        raise InvalidRequest(
            f"a workflow in {folder} cannot use the project in {root}: a project lies in its workflow's folder",
            hint=f"write to {root} or to a folder above it",
        )
    parts = inside.relative_to(folder.resolve()).as_posix()
    return "." if parts == "." else f"./{parts}"


def _write(results: list[_Result], *, force: bool) -> None:
    counts = Counter(each.path for each in results)
    if twice := [str(path) for path, count in counts.items() if count > 1]:
        raise AlreadyExists(
            f"{', '.join(twice)}: meant for more than one workflow; nothing was written",
            hint="import the projects one by one, each --to a folder of its own",
        )
    there = [str(each.path) for each in results if each.path.exists()]
    if there and not force:
        raise AlreadyExists(
            f"{', '.join(there)}: there already; nothing was written", hint="give --force to write over, or --to DIR"
        )
    for each in results:
        try:
            each.path.parent.mkdir(parents=True, exist_ok=True)
            each.path.write_text(each.workflow.text, encoding="utf-8")
        except OSError as error:
            raise InvalidRequest(f"{each.path} cannot be written: {error.strerror}") from error


def _report(results: list[_Result], notes: list[Note], *, written: bool) -> Iterator[str]:
    for each in results:
        if not written:
            yield from (f"# {each.path}", each.workflow.text)
    for note in notes:
        place = f"{note.place.file}:{note.place.position.line}"
        yield f"{place}: {painted(note.fidelity.value)}: {clean(note.message)}"
    counts = [f"{sum(note.fidelity is each for note in notes)} {each.value}" for each in Fidelity]
    yield ", ".join(counts)
    if written:
        yield from (f"wrote {each.path}; run it with: flexcore workflow execute {each.path}" for each in results)
