"""Which files beside the workflow a step needs: those it names, and the modules there that it imports.

Found by reading, never by running. Same files in, same names out.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from flexcore.runtime.portable.code import Refused


def needed(file: str | None, more: Sequence[str], code: str, folder: Path, *, is_python: bool) -> list[str]:
    """Name what a step's code needs, relative to the folder, sorted. What cannot be read as Python imports nothing.

    `more` are files and folders that the step names. Raises Refused for one that is not there.
    """
    found = {file} if file else set()
    for name in more:
        found |= set(_below(name, folder))
    if is_python:
        beside = (folder / file).parent if file else folder
        _follow(code, (beside, folder), folder, found)
    return sorted(found)


def _below(name: str, folder: Path) -> Iterator[str]:
    place = folder / name
    paths = sorted(place.rglob("*")) if place.is_dir() else [place]
    if not place.exists() or not place.resolve().is_relative_to(folder.resolve()):
        raise Refused(f"file {name!r} is not in the workflow's folder")
    for path in paths:
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(folder).as_posix()


def _follow(code: str, places: tuple[Path, ...], folder: Path, found: set[str]) -> None:
    for module in _imported(code):
        for path in _files_of(module, places):
            name = path.relative_to(folder).as_posix()
            if name not in found and path.resolve().is_relative_to(folder.resolve()):
                found.add(name)
                _follow(_text(path), (path.parent, *places), folder, found)


def _imported(code: str) -> Iterator[str]:
    """Give the modules that code names. Of `from a import b`, both `a` and `a.b`: b may be a module."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{each.name}" if node.module else each.name for each in node.names)


def _files_of(module: str, places: tuple[Path, ...]) -> Iterator[Path]:
    """Give the files of a module, those of the packages around it included, from the first place that has it."""
    parts = module.split(".")
    for place in places:
        here = [place.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)]
        there = [path for each in here for path in (each.with_suffix(".py"), each / "__init__.py") if path.is_file()]
        if module and there:
            yield from there
            return


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return ""
