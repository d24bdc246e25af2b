"""A task's `with`: its template, its shape, and the files that it names."""

from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath

from flexcore.language.findings import shortened
from flexcore.language.holes import HOLE, as_mapping, check_keys, template_of
from flexcore.language.nodes import Entry, ListNode, MapNode, ScalarNode, is_null
from flexcore.language.reading import Fields, Reading
from flexcore.language.shapes import check_shape
from flexcore.model.template import Literal, MapTemplate, Position, Template
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind, Task

CODE_KINDS = frozenset({StepKind.PYTHON, StepKind.BASH, StepKind.SQL})
FILES_KINDS = frozenset({StepKind.PYTHON, StepKind.BASH, StepKind.RAY})
PROJECT_KINDS = frozenset({StepKind.SINGER, StepKind.DBT, StepKind.MELTANO})
_CODE_KEYS = frozenset({"script", "file"})


def task_of(kind: StepKind, step: Fields, reading: Reading) -> Task:
    """Read a task."""
    node = step.mapping("with")
    entries = node.entries if node is not None else ()
    shown = MapNode(entries, node.position if node is not None else step.position)
    schema = reading.task_parameters.get(kind)
    if schema is not None:
        check_shape(shown, schema, reading, "`with`")
    if kind in CODE_KINDS:
        _check_code(shown, reading)
    _check_files(kind, entries, reading)
    check_keys(shown, reading)
    items = tuple((entry.key, _value(kind, entry, reading)) for entry in entries)
    return Task(kind=kind, parameters=as_mapping(items))


def _value(kind: StepKind, entry: Entry, reading: Reading) -> Template:
    is_code = kind in CODE_KINDS and entry.key in _CODE_KEYS and isinstance(entry.value, ScalarNode)
    if is_code and isinstance(entry.value, ScalarNode):
        return Literal(entry.value.value)  # code is never templated
    return template_of(entry.value, reading, allow_secrets=True)


def _check_code(node: MapNode, reading: Reading) -> None:
    given = [entry for entry in node.entries if entry.key in _CODE_KEYS and not is_null(entry.value)]
    if not given:
        message, hint = "`script` or `file` is missing in `with`", "inline text, or a file beside the workflow file"
        reading.findings.report(node.position, message, "missing-key", hint)
    elif len(given) > 1:
        message = "`script` and `file` are both given"
        reading.findings.report(given[1].position, message, "exclusive-keys", "give exactly one of them")
    for entry in given:
        if not isinstance(entry.value, ScalarNode) or not isinstance(entry.value.value, str):
            reading.wrong_type(entry.value, f"`{entry.key}`", "text")
        elif not entry.value.value.strip():
            reading.findings.report(entry.value.position, f"`{entry.key}` is empty", "missing-key")


def _check_files(kind: StepKind, entries: tuple[Entry, ...], reading: Reading) -> None:
    for entry in entries:
        nodes = entry.value.items if isinstance(entry.value, ListNode) else (entry.value,)
        for node in nodes:
            value = node.value if isinstance(node, ScalarNode) else None
            if isinstance(value, str) and value.strip() and _names_a_file(kind, entry.key, value):
                _check_file(Entry(entry.key, entry.position, node), value, reading)


def _names_a_file(kind: StepKind, key: str, value: str) -> bool:
    if key == "file":
        return kind in CODE_KINDS
    if key == "files":
        return kind in FILES_KINDS
    return key == "project" and kind in PROJECT_KINDS and HOLE not in value and is_folder(value)


def is_folder(project: str) -> bool:
    """Tell a project's folder from the name of one in the settings: a folder has a slash in it or starts with a dot."""
    return "/" in project or "\\" in project or project.startswith(".")


def _check_file(entry: Entry, path: str, reading: Reading) -> None:
    fault = path_fault(path)
    if fault:
        hint = "files lie in the workflow's folder, so that the whole can be deployed"
        _report(reading, entry.value.position, f"`{entry.key}`: '{shortened(path)}' {fault}", "path", hint)
    elif entry.key in ("file", "files") and HOLE in path:
        _report(reading, entry.value.position, f"`{entry.key}` is never filled in", "path", "write the file's name")
    elif reading.files is not None and not reading.files(normal(path)):
        what = {"file": "file", "files": "file or folder"}.get(entry.key, "folder")
        hint = "paths start at the workflow file"
        _report(reading, entry.value.position, f"there is no {what} '{shortened(path)}'", "missing-file", hint)


def _report(reading: Reading, position: Position, message: str, code: str, hint: str) -> None:
    reading.findings.report(position, message, code, hint)


def path_fault(path: str) -> str:
    """Say what is wrong with a path that should lie inside the workflow's folder; empty when nothing is."""
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute() or PureWindowsPath(path).drive:
        return "is absolute"
    if "\\" in path:
        return "has a backslash; write /"
    if ".." in PurePosixPath(path).parts:
        return "has `..` in it"
    return ""


def normal(path: str) -> str:
    """Write a relative path without `./` and doubled slashes; the workflow's own folder is `.`."""
    return str(PurePosixPath(path))


def files_named(task: Task) -> tuple[str, ...]:
    """Give the relative files and folders that a task names, in normal form."""
    given = (
        (key, value)
        for key, constant in _constants(task.parameters).items()
        for value in (constant if isinstance(constant, list | tuple) else (constant,))
    )
    return tuple(
        normal(value)
        for key, value in given
        if isinstance(value, str) and value.strip() and _names_a_file(task.kind, key, value) and not path_fault(value)
    )


def _constants(parameters: Template) -> Mapping[str, JSON]:
    match parameters:
        case Literal(value=Mapping() as value):
            return value
        case MapTemplate(items=items):
            return {key: each.value for key, each in items if isinstance(each, Literal)}
        case _:
            return {}
