"""The addresses of pods. All pods share the machine's network, and so do those of every other stand-in on it."""

import errno
import secrets
import socket
from typing import Self

_NETWORKS = range(64, 128)  # 127.64.0.0/16 to 127.127.0.0/16


class Addresses:
    """Gives out addresses of a network that no other stand-in gives any of, until it is closed or the process ends."""

    def __init__(self) -> None:
        self._claim, self._network = _claimed()
        self._given = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._claim.close()

    def next(self) -> str:
        """Give one that was never given."""
        self._given += 1
        high, low = divmod(self._given, 250)
        return f"{self._network}.{high}.{low + 1}"


def _claimed() -> tuple[socket.socket, str]:
    networks = list(_NETWORKS)
    secrets.SystemRandom().shuffle(networks)
    for each in networks:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0flexcore-stand-in-{each}")  # a name of the machine's network, gone with the process
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return claim, f"127.{each}"
    raise RuntimeError(f"{len(networks)} stand-ins are running on this machine already")
