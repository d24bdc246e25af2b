"""A workflow file and the files it names, read from a folder to be deployed. Reads, and changes nothing.

Environments, caches, outputs and `.env` files stay behind: they are large, or secret, or made again.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from flexcore.language.document import compose
from flexcore.language.findings import Findings
from flexcore.language.nodes import plain
from flexcore.language.parameters import FILES_KINDS
from flexcore.model.errors import Diagnostic, InvalidDefinition, LimitExceeded, NotFound
from flexcore.model.requests import Bundle
from flexcore.model.units import format_size
from flexcore.runtime.portable.files import needed

LEFT_OUT = frozenset(
    {".venv", "venv", ".meltano", "__pycache__", ".git", ".flexcore", "node_modules", "output", ".env", ".tox"}
    | {".mypy_cache", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints", ".DS_Store"}
)


def collect(path: Path, most_bytes: int) -> Bundle:
    """Read a workflow file with what belongs to it, up to so many bytes.

    Raises LimitExceeded, and InvalidDefinition for foreign bytes.
    """
    return gather(_text(path), path, most_bytes)


def gather(text: str, path: Path, most_bytes: int) -> Bundle:
    """Read what belongs to a workflow that is, or would be, written in a file. Raises as `collect` does."""
    root = path.parent.absolute()
    files: dict[str, bytes] = {}
    total = 0
    for each in sorted(set(_belonging(root, _plain(text, path))) - {root / path.name}):
        total += each.stat().st_size
        if total > most_bytes:
            raise LimitExceeded(
                f"{path} and its files are larger than {format_size(most_bytes)}",
                limit=most_bytes,
                actual=total,
                hint="move data out of the project folder; the largest files are "
                + ", ".join(_largest(root, _plain(text, path))),
            )
        files[each.relative_to(root).as_posix()] = each.read_bytes()
    return Bundle(text=text, file_name=path.name, files=files, origin=str(root))


def pointing_at(diagnostic: Diagnostic, path: Path, bundle: Bundle) -> Diagnostic:
    """Name the file the way the person did, so that editors and terminals can open the place."""
    if diagnostic.file != bundle.file_name:
        return diagnostic
    place = (str(path), diagnostic.line, diagnostic.column)
    return Diagnostic(*place, diagnostic.message, diagnostic.code, diagnostic.hint, diagnostic.path)


def files_of_folder(folder: Path) -> Iterator[Path]:
    """Give every file below a folder but what is left out; links are followed only as far as they stay inside."""
    inside = folder.resolve()
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _left_out(name))
        for name in sorted(names):
            path = Path(here) / name
            if not _left_out(name) and path.is_file() and path.resolve().is_relative_to(inside):
                yield path


def _left_out(name: str) -> bool:
    return name in LEFT_OUT or name.endswith((".pyc", ".egg-info"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except UnicodeDecodeError as error:
        found = Diagnostic(str(path), 1, 1, "the file is not UTF-8", "encoding", "save it as UTF-8")
        raise InvalidDefinition([found]) from error
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from error


def _plain(text: str, path: Path) -> Any:
    # What is wrong with the text is for the validation to say; here only file names are looked for.
    root, _ = compose(text, Findings(path.name))
    return None if root is None else plain(root)


def _belonging(root: Path, workflow: Any) -> Iterator[Path]:
    for name in _named(workflow):
        place = root / name
        if not _stays_inside(name):
            continue
        if place.is_dir():
            yield from files_of_folder(place)
        elif place.is_file() and place.resolve().is_relative_to(root.resolve()):
            yield place
            yield from _imported(root, place)


def _imported(root: Path, place: Path) -> Iterator[Path]:
    """Give the modules beside the workflow that a file of Python imports: it does not run without them."""
    try:
        code = place.read_text(encoding="utf-8-sig") if place.suffix == ".py" else ""
    except (OSError, UnicodeDecodeError):
        return  # whoever runs it says what is wrong
    name = place.relative_to(root).as_posix()
    yield from (root / each for each in needed(name, (), code, root, is_python=bool(code)))


def _stays_inside(name: str) -> bool:
    parts = PurePosixPath(name)
    return not parts.is_absolute() and ".." not in parts.parts and bool(name)


def _named(value: Any) -> Iterator[str]:
    """Find every `with` in a document and what it names: files, project folders and modules of functions."""
    if isinstance(value, list):
        for each in value:
            yield from _named(each)
    elif isinstance(value, Mapping):
        parameters = value.get("with")
        if isinstance(parameters, Mapping):
            yield from _of_step(value.get("type"), parameters)
        for each in value.values():
            yield from _named(each)


def _of_step(kind: Any, parameters: Mapping[str, Any]) -> Iterator[str]:
    file, project = parameters.get("file"), parameters.get("project")
    if isinstance(file, str):
        yield file
    if isinstance(kind, str) and kind in FILES_KINDS and isinstance(more := parameters.get("files"), list):
        yield from (each for each in more if isinstance(each, str))
    if isinstance(project, str) and (project.startswith(".") or "/" in project):
        yield project  # any other word is the name of a project in the settings
    if kind == "function" and isinstance(parameters.get("name"), str):
        package = parameters["name"].partition(":")[0].partition(".")[0]
        yield from (package, f"{package}.py")


def _largest(root: Path, workflow: Any) -> list[str]:
    files = sorted(_belonging(root, workflow), key=lambda each: -each.stat().st_size)
    return [f"{each.relative_to(root)} ({format_size(each.stat().st_size)})" for each in files[:3]]
