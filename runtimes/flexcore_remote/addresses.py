"""Addresses of servers: `host:port`, perhaps with `grpc://` before it."""

import ipaddress
from urllib.parse import urlsplit


def target_of(address: str) -> str:
    """Find `host:port`. Raises ValueError."""
    try:
        parts = urlsplit(address if "://" in address else f"grpc://{address}")
        port = parts.port
    except ValueError:
        port = None
    if port is None or parts.scheme not in ("grpc", "grpcs") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"{address!r} is not a server's address: HOST:PORT, such as gpu.example:9191")
    return parts.netloc


def is_this_machine(target: str) -> bool:
    """Say whether nobody else can listen on the way."""
    host = urlsplit(f"grpc://{target}").hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
