"""The moments in the loop at which a crash would hurt most, by name, so that tests can crash there.

Each is a call of `EngineParts.reached`, which does nothing unless whoever puts the engine together says otherwise.
Nothing in here reads settings or the environment: no installation can be told to crash.
"""

from enum import StrEnum


class FaultPoint(StrEnum):
    """Where the loop is. Everything up to here has happened, nothing of what follows has."""

    HEARD = "heard"
    """Something arrived from outside: nothing is decided."""

    STORED = "stored"
    """It is decided, and large values are in the artifact store: the change set is not written."""

    COMMITTED = "committed"
    """The change set is durable: nobody has been told, nothing was done about it."""

    ACTED = "acted"
    """What the change set asks for was begun: nothing has been heard of it."""

    TAKEN_UP = "taken_up"
    """After a takeover, what was under way is being found again: nothing has been heard of it."""


def pass_by(point: FaultPoint) -> None:
    """Go on: what every product does at every point."""
