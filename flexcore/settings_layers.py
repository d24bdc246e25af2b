"""Where settings come from: a YAML file and the environment, each as values by dotted key.

Knows how they are written and nothing of what they mean; `settings.py` checks and types them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexcore.language.document import compose
from flexcore.language.findings import Findings
from flexcore.language.nodes import MapNode, Node, plain
from flexcore.model.errors import InvalidSettings
from flexcore.model.values import JSON

NAMED = ("runtimes", "workflow_templates")
"""Sections whose second level is a name that its author chose, with keys below it."""

_PREFIX = "FLEXCORE_"
_REFERENCE = re.compile(r"\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Given:
    """One key from one layer: its value, where it was given, and what may be shown of it (`${…}` as written)."""

    value: Any
    source: str
    written: Any


def settings_file(folder: Path, home: Path, config: Path | None, variables: Mapping[str, str]) -> Path | None:
    """Find the file: the one named, else the first of the usual places that is there."""
    named = config or (Path(variables["FLEXCORE_CONFIG"]) if variables.get("FLEXCORE_CONFIG") else None)
    if named is not None:
        path = folder / named
        if not path.is_file():
            raise InvalidSettings(f"there is no settings file {named}", hint="see --config and FLEXCORE_CONFIG")
        return path
    usual = (folder / "flexcore.yaml", folder / "config" / "flexcore.yaml", home / "flexcore.yaml")
    return next((each for each in usual if each.is_file()), None)


def from_file(path: Path, variables: Mapping[str, str]) -> dict[str, Given]:
    """Read a file, filling in `${VARIABLE}`. Raises InvalidSettings with the place of what is wrong."""
    findings = Findings(str(path))
    root, _ = compose(path.read_bytes(), findings)
    if found := findings.sorted():
        raise InvalidSettings("\n".join(str(each) for each in found))
    if root is None or plain(root) is None:
        return {}
    if not isinstance(root, MapNode):
        raise InvalidSettings(f"{path}: the settings are a mapping of sections", hint="see config/flexcore.yaml")
    given = {}
    for key, node in _leaves(root, ""):
        source = f"{path}:{node.position.line}"
        given[key] = Given(_interpolated(plain(node), variables, f"{source}: {key}"), source, plain(node))
    return given


def _leaves(node: Node, prefix: str) -> Iterator[tuple[str, Node]]:
    """Give the dotted keys: two levels deep, three in sections of names; what is deeper is the value of its key."""
    depth = prefix.count(".") + bool(prefix)
    if not isinstance(node, MapNode) or not node.entries or depth >= (3 if prefix.partition(".")[0] in NAMED else 2):
        yield prefix, node
        return
    for entry in node.entries:
        yield from _leaves(entry.value, f"{prefix}.{entry.key}" if prefix else entry.key)


def _interpolated(value: JSON, variables: Mapping[str, str], place: str) -> Any:
    def filled(match: re.Match[str]) -> str:
        if match[1]:
            return match[0][1:]  # `$${X}` is a literal `${X}`
        if match[2] not in variables:
            raise InvalidSettings(
                f"{place}: the environment variable {match[2]} is not set", hint=f"set it, or write $${{{match[2]}}}"
            )
        return variables[match[2]]

    match value:
        case str():
            return _REFERENCE.sub(filled, value)
        case list():
            return [_interpolated(each, variables, place) for each in value]
        case dict():
            return {name: _interpolated(each, variables, place) for name, each in value.items()}
        case _:
            return value


def from_environment(
    variables: Mapping[str, str], names: Mapping[str, Mapping[str, str]], known: Iterable[str]
) -> dict[str, Given]:
    """Read `FLEXCORE_SECTION__KEY` variables. `names` maps, by section, names as variables spell them to the real ones.

    A known key with one underscore too few is refused; other `FLEXCORE_…` variables are not settings.
    """
    given = {}
    dotted = {key.upper().replace(".", "_"): key for key in known}
    for name, text in variables.items():
        rest = name.removeprefix(_PREFIX)
        if rest == name or rest.startswith("SECRET_"):
            continue
        if "__" in rest:
            key = _key_of_variable(rest, names)
            given[key] = Given(text, f"environment {name}", text)
        elif rest in dotted:
            right = _PREFIX + dotted[rest].upper().replace(".", "__")
            raise InvalidSettings(f"unknown setting {name} in the environment", hint=f"two underscores: {right}")
    return given


def _key_of_variable(rest: str, names: Mapping[str, Mapping[str, str]]) -> str:
    parts = rest.lower().split("__")
    if parts[0] in NAMED and len(parts) > 1:
        # A variable's name has no dashes; what somebody named may.
        parts[1] = names.get(parts[0], {}).get(parts[1], parts[1])
    return ".".join(parts)
