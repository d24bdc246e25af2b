"""From what the installer said to what that means: the first row whose words were said decides.

The words are those of uv, and of pip where it stands in; what older ones draw around them is taken off.
"""

from __future__ import annotations

from typing import NamedTuple

_LONGEST = 1500
_ERRORS = ("error:", "ERROR:", "No solution", "Failed")
_DRAWN = " \t\u00d7\u2570\u2500\u25b6\u2502\u251c"


class Told(NamedTuple):
    """What a failed installation is told as."""

    message: str
    name: str
    error_class: str
    hint: str


_NETWORK = (
    *("error sending request", "failed to fetch", "could not connect", "connection refused", "connection reset"),
    *("dns error", "failed to lookup address", "timed out", "network was disabled", "network is unreachable"),
    *("server error (5", "client error (4", "401 unauthorized", "403 forbidden", "error trying to connect"),
    *("failed to establish a new connection", "name resolution"),
)
_TABLE: tuple[tuple[tuple[str, ...], str, str, str], ...] = (
    (
        ("no space left on device", "disk quota exceeded"),
        "DiskFull",
        "dependency",
        "free space where FlexCore keeps its state",
    ),
    (
        _NETWORK,
        "NoPackageIndex",
        "dependency",
        "see the network and the installer's UV_… variables (index, proxy, certificates)",
    ),
    (
        (
            "not found in the package registry",
            "not found in the provided package locations",
            "no matching distribution",
        ),
        "NoSuchPackage",
        "user",
        "check the spelling in `packages`",
    ),
    (
        ("no solution found", "resolutionimpossible", "conflicting dependencies"),
        "Conflict",
        "user",
        "change the versions in `packages` so that they fit each other and this Python",
    ),
    (
        ("failed to build", "failed to parse"),
        "NotInstallable",
        "user",
        "the installer's words are in the log of the step",
    ),
)


def judged(text: str, code: int) -> Told:
    """Say what a failed run of the installer came to, from all that it said."""
    words = text.lower()
    message = _message(text) or f"the installer ended with exit code {code}"
    for said, name, error_class, hint in _TABLE:
        if any(each in words for each in said):
            return Told(message, name, error_class, hint)
    if code < 0:
        return Told(f"the installer was killed by signal {-code}", "InstallerKilled", "dependency", "")
    return Told(message, "NotInstalled", "user", "the installer's words are in the log of the step")


def _message(text: str) -> str:
    """Take the installer's error and its causes, without the lines before it."""
    lines = [line.strip(_DRAWN) for line in text.splitlines()]
    first = next((at for at, line in enumerate(lines) if line.startswith(_ERRORS)), None)
    if first is None:
        return ""
    told = [_without(_without(line, *_ERRORS[:2]), "cause:").strip() for line in lines[first:]]
    hints = next((at for at, line in enumerate(told) if line.startswith("hint:")), len(told))
    said = [line for line in told[:hints] if line.strip("^~")]  # without what points at a place in the line above
    return f"cannot install the packages: {': '.join(said).replace('.: ', '. ')}"[:_LONGEST]


def _without(line: str, *openings: str) -> str:
    return next((line[len(each) :] for each in openings if line.startswith(each)), line)
