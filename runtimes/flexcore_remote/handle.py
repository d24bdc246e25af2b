"""Handles that say at which server they are good: its id goes before the identity that the server told."""

from collections.abc import Mapping

from flexcore.model.execution import Handle
from flexcore.model.values import JSON

VERSION = 1


def outer(server_id: str, inner: Handle) -> Handle:
    """Wrap a server's handle. It is never transient: the server keeps the attempt's files until the cleanup."""
    data: dict[str, JSON] = {"version": inner.version, "data": dict(inner.data), "transient": inner.transient}
    return Handle(VERSION, inner.name, f"{server_id}/{inner.identity}", data)


def inner(handle: Handle) -> Handle:
    """Give the server's own handle again."""
    version, data = handle.data.get("version"), handle.data.get("data")
    return Handle(
        version if isinstance(version, int) else 0,
        handle.name,
        handle.identity.partition("/")[2],
        data if isinstance(data, Mapping) else {},
        transient=handle.data.get("transient") is True,
    )


def server_of(handle: Handle) -> str:
    """Say which server it is good at."""
    return handle.identity.partition("/")[0]
