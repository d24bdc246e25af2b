"""`flexcore workflow deploy`: files, or every workflow below a folder. All are checked before the first is stored."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from flexcore.cli.bundle import LEFT_OUT, collect, pointing_at
from flexcore.cli.options import Options, options_of
from flexcore.cli.render import clean, emit
from flexcore.cli.resolve import bundle_limit, local_file
from flexcore.cli.session import with_api
from flexcore.language.document import compose
from flexcore.language.findings import Findings
from flexcore.language.nodes import plain
from flexcore.model.errors import Diagnostic, InvalidDefinition, InvalidRequest, NotFound
from flexcore.model.requests import Bundle, ControlPlaneApi, Document

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_STEPS = re.compile(r"""^(?:steps|\{?\s*["']steps["'])\s*:""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Source:
    """A workflow file with what belongs to it."""

    path: Path
    bundle: Bundle


def deploy(
    context: typer.Context,
    sources: Annotated[list[str], typer.Argument(metavar="FILE|DIR…")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
) -> None:
    """Store workflows with the files that belong to them, and say what changes; of a folder, all that are below it.

    Everything is checked first: when one workflow is not valid, none is stored.
    """
    options = options_of(context)
    paths = list({os.path.normpath(path.absolute()): path for each in sources for path in _files(each)}.values())

    async def work(api: ControlPlaneApi) -> list[Document]:
        found = [_Source(path, collect(path, bundle_limit(options))) for path in paths]
        differences = await _checked(api, found, options)
        if dry_run:
            return [_told(difference, {"created": False}) for difference in differences]
        stored = [await api.deploy(each.bundle, options.workspace) for each in found]
        return [_told(difference, each) for difference, each in zip(differences, stored, strict=True)]

    done = with_api(options, work)
    lines = [line for each in done for line in _lines(each)]
    lines += [_summary(done, dry_run)] if len(done) > 1 or dry_run else []
    emit(options, done[0] if len(done) == 1 else done, lines)


def workflow_files(folder: Path) -> Iterator[Path]:
    """Give every workflow file below a folder: YAML or JSON with `steps` at the top; environments are left out."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if each not in LEFT_OUT)
        for name in sorted(names):
            path = Path(here) / name
            # Only files are opened: reading from a pipe would wait for somebody who writes.
            if path.suffix in _SUFFIXES and path.is_file() and _is_workflow(path):
                yield path


def _files(source: str) -> Sequence[Path]:
    if Path(source).is_dir():
        if found := list(workflow_files(Path(source))):
            return found
        raise NotFound(f"there is no workflow in {source}", hint="a workflow is a YAML or JSON file with `steps`")
    path = local_file(source, Path())
    if path is None:
        raise NotFound(f"there is no workflow file {source}", hint=f"looked at {source} and {source}.yaml")
    return [path]


def _is_workflow(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    if _STEPS.search(text) is None and path.suffix != ".json":
        return False
    root, _ = compose(text, Findings(path.name))
    # What cannot be read, and looks like one, is one: it is refused with the place of its fault.
    document: Any = None if root is None else plain(root)
    return path.suffix != ".json" if document is None else isinstance(document, Mapping) and "steps" in document


async def _checked(api: ControlPlaneApi, sources: Sequence[_Source], options: Options) -> list[Document]:
    """Compare each with what is deployed. Raises InvalidDefinition with the problems of all."""
    problems: list[Diagnostic] = []
    differences: list[Document] = []
    for each in sources:
        try:
            differences.append(await api.diff(each.bundle, options.workspace))
        except InvalidDefinition as error:
            problems += [pointing_at(problem, each.path, each.bundle) for problem in error.diagnostics]
    if problems:
        raise InvalidDefinition(problems)
    _must_differ_in_name(sources, differences)
    return differences


def _must_differ_in_name(sources: Sequence[_Source], differences: Sequence[Document]) -> None:
    seen: dict[str, Path] = {}
    for source, difference in zip(sources, differences, strict=True):
        name = str(difference["name"])
        if name in seen:
            message = f"{seen[name]} and {source.path} are both named '{name}'"
            raise InvalidRequest(message, hint="nothing was deployed; rename one of them, or deploy only one")
        seen[name] = source.path


def _told(difference: Document, deployed: Document) -> Document:
    """Put together what was compared and what was stored."""
    keys = ("name", "version", "change", "current", "pinned", "files")
    return {key: difference[key] for key in keys} | {"diff": difference["text"], "created": deployed["created"]}


def _lines(document: Document) -> Iterator[str]:
    yield f"{document['name']}  {document['version']}  {document['change']}"
    if document["change"] == "changed":
        yield from (f"    {clean(line)}" for line in str(document["diff"]).splitlines())
    if document["change"] != "unchanged":
        for what in ("added", "changed", "removed"):
            yield from (f"    {what}: {clean(name)}" for name in document["files"][what])
    if document["pinned"]:
        yield (
            f"    pinned to {document['pinned']}: new executions take that version until "
            f"`flexcore workflow unpin {document['name']}`"
        )


def _summary(documents: Sequence[Document], dry_run: bool) -> str:
    counts = [(sum(each["change"] == change for each in documents), change) for change in _CHANGES]
    text = ", ".join(f"{count} {change}" for count, change in counts if count)
    workflows = "1 workflow" if len(documents) == 1 else f"{len(documents)} workflows"
    return f"{workflows}: {text}{'; nothing was deployed' if dry_run else ''}"


_CHANGES = ("new", "changed", "unchanged")
