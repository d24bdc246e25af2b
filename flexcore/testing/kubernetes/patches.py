"""The kinds of patches that the API server takes."""

import copy
from typing import Any

from flexcore.testing.kubernetes.refusal import bad_request
from flexcore.testing.kubernetes.resources import Item, merged


def patched(item: Item, patch: Any, kind: str) -> Item:
    """Apply a patch to a copy. A strategic patch is taken as a merge patch: lists are replaced whole."""
    if kind == "application/json-patch+json":
        return _by_operations(copy.deepcopy(item), patch)
    result: Item = merged(item, patch)
    return result


def _by_operations(item: Item, operations: list[Item]) -> Item:
    for operation in operations:
        *above, last = [each.replace("~1", "/").replace("~0", "~") for each in operation["path"].split("/")[1:]]
        at: Any = item
        for part in above:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
        _apply(at, last, operation)
    return item


def _apply(at: Any, last: str, operation: Item) -> None:
    place: Any = int(last) if isinstance(at, list) and last != "-" else last
    match operation["op"]:
        case "add" if isinstance(at, list):
            at.insert(len(at) if last == "-" else place, operation["value"])
        case "add" | "replace":
            at[place] = operation["value"]
        case "remove":
            del at[place]
        case "test" if at[place] == operation["value"]:
            return
        case other:
            raise bad_request(f"the patch operation {other} cannot be applied at {operation['path']}")
