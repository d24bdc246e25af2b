"""Addresses to listen on: `host:port`, on this machine only."""

import ipaddress
from collections.abc import Collection

from flexcore.model.errors import InvalidSettings, PermissionDenied

LOOPBACK_NAMES: Collection[str] = frozenset({"127.0.0.1", "localhost", "::1"})
"""The names by which callers may address a server."""

_PORTS = range(65536)


def split_address(address: str) -> tuple[str, str]:
    """Split `host:port`, `[::1]:port` or a bare host; the port may be empty."""
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        return host.lower(), rest.removeprefix(":")
    host, _, port = address.partition(":")
    return host.lower(), port


def loopback_address(address: str) -> tuple[str, int]:
    """Parse an address to listen on; port 0 picks a free one. Raises PermissionDenied beyond loopback."""
    host, port = split_address(address)
    if not host or not (port.isascii() and port.isdigit()) or int(port) not in _PORTS:
        raise InvalidSettings(f"not an address to listen on: {address!r}", hint="HOST:PORT, such as 127.0.0.1:8080")
    if not is_loopback(host):
        hint = "listen on 127.0.0.1 and let a proxy or tunnel with TLS reach it"
        raise PermissionDenied(f"refusing to listen on {address!r}: it is reachable from other machines", hint=hint)
    return ("127.0.0.1" if host == "localhost" else host), int(port)


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach the host. Names other than `localhost` are not looked up."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def joined(host: str, port: int) -> str:
    """Write an address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
