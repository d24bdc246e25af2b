"""Label and field selectors of lists and watches."""

import re
from collections.abc import Callable

from flexcore.testing.kubernetes.refusal import bad_request
from flexcore.testing.kubernetes.resources import Item, Resource

Predicate = Callable[[Item], bool]

_FIELDS = {
    "pods": ("status.phase", "spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName"),
    "jobs": ("status.successful",),
    "events": (
        *("involvedObject.kind", "involvedObject.name", "involvedObject.namespace", "involvedObject.uid"),
        *("reason", "type", "reportingComponent", "source"),
    ),
    "namespaces": ("status.phase",),
    "secrets": ("type",),
    "nodes": ("spec.unschedulable",),
}
_KEY = r"[A-Za-z0-9./_-]+"
_SET = re.compile(rf"^\s*({_KEY})\s+(in|notin)\s+\(([^()]*)\)\s*$")
_COMPARED = re.compile(rf"^\s*({_KEY})\s*(==|=|!=|>|<)\s*([A-Za-z0-9._-]*)\s*$")
_EXISTS = re.compile(rf"^\s*(!?)\s*({_KEY})\s*$")


def selector(resource: Resource, labels: str, fields: str) -> Predicate:
    """Join both selectors; refuses bad syntax and unknown fields with 400."""
    wanted = [_label(each) for each in _split(labels)]
    wanted.extend(_field(resource, each) for each in _split(fields))
    return lambda item: all(each(item) for each in wanted)


def _split(text: str) -> list[str]:
    """Cut at the commas outside of parentheses."""
    parts, depth, part = [], 0, ""
    for letter in text:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    return [each for each in [*parts, part] if each.strip()]


def _label(term: str) -> Predicate:
    def value(item: Item) -> str | None:
        labels = item["metadata"].get("labels") or {}
        return labels.get(key)

    if found := _SET.match(term):
        key, operator = found[1], found[2]
        values = {each.strip() for each in found[3].split(",")}
        if operator == "in":
            return lambda item: value(item) in values
        return lambda item: value(item) not in values
    if found := _COMPARED.match(term):
        key, operator, text = found[1], found[2], found[3]
        return lambda item: _compares(value(item), operator, text)
    if found := _EXISTS.match(term):
        key = found[2]
        return lambda item: (value(item) is None) == bool(found[1])
    raise bad_request(f"unable to parse requirement: found '{term}', expected: in, notin, =, ==, !=, gt, lt")


def _compares(value: str | None, operator: str, text: str) -> bool:
    match operator:
        case "!=":
            return value != text
        case ">" | "<":
            if value is None or not value.isdecimal() or not text.isdecimal():
                return False
            return int(value) > int(text) if operator == ">" else int(value) < int(text)
        case _:
            return value == text


def _field(resource: Resource, term: str) -> Predicate:
    found = re.match(r"^\s*([A-Za-z.]+)\s*(==|=|!=)\s*(.*?)\s*$", term)
    if found is None:
        raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
    path, operator, text = found[1], found[2], found[3]
    if path not in ("metadata.name", "metadata.namespace", *_FIELDS.get(resource.plural, ())):
        raise bad_request(f"field label not supported: {path}")
    return lambda item: (_at(item, path) == text) == (operator != "!=")


def _at(item: Item, path: str) -> str:
    if path == "status.successful":
        return str(item.get("status", {}).get("succeeded", 0))
    value: object = item
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)
