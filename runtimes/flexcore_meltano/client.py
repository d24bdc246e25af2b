"""The thinnest talk to the outside: which `meltano` there is, which environment it gets, and the attempt's order.

Values of settings travel in environment variables, never in argv: other users of a machine can read a process list.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flexcore_meltano import attempt_main

_KEPT = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"}
    | {"XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"}
    | {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NIX_SSL_CERT_FILE"}
)
_KEPT_BEGINNINGS = ("LC_", "UV_", "PIP_", "SSL_CERT_")
# Appended, not put first: what lies beside this package must not take the place of the standard library.
_START = "import sys; sys.path.append(sys.argv[1]); from flexcore_meltano.attempt_main import main; main()"


class NoMeltano(Exception):
    """There is no Meltano to run; the text says where one was looked for."""


@dataclass(frozen=True, slots=True)
class Executable:
    """A `meltano`, where it came from in words, and its version if the installation beside it tells."""

    path: Path
    origin: str
    version: str


def find_executable(configured: Path | None, project: Path | None = None) -> Executable:
    """Find the first of: the project's own, the one from the settings, the one of the extra. Raises NoMeltano."""
    if project is not None and _runnable(own := project / ".venv" / "bin" / "meltano"):
        return Executable(own, "the project's .venv", _version(own))
    if configured is not None:
        found = shutil.which(str(configured))
        if found is None:
            raise NoMeltano(f"the setting `executable` names {configured}, which cannot be run")
        return Executable(Path(found), "the setting `executable`", _version(Path(found)))
    beside = Path(sys.executable).parent / "meltano"
    if _runnable(beside):
        return Executable(beside, "the extra", _version(beside))
    raise NoMeltano("dependencies missing: there is no meltano beside FlexCore, and none is configured")


def base_environment() -> dict[str, str]:
    """Take from our own environment what programs and package installers need, and nothing else."""
    return {
        name: value for name, value in os.environ.items() if name.upper() in _KEPT or name.startswith(_KEPT_BEGINNINGS)
    } | {
        "MELTANO_SEND_ANONYMOUS_USAGE_STATS": "false",
        "MELTANO_AUTO_INSTALL": "false",
        "MELTANO_DISABLE_TRACKING": "true",
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",
    }


def attempt_argv() -> tuple[str, ...]:
    """The command that the shim runs: our own small program, on the standard library and this package alone."""
    return (sys.executable, "-I", "-S", "-c", _START, str(Path(attempt_main.__file__).parents[1]))


def encode_order(order: Mapping[str, object]) -> bytes:
    """Spell the order the way the program reads it."""
    return json.dumps(order).encode()


def _runnable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _version(executable: Path) -> str:
    """Read the version from the package beside the executable: asking Meltano itself takes a second."""
    found = sorted(executable.parent.parent.glob("lib/python*/site-packages/meltano-*.dist-info"))
    return found[-1].name.removeprefix("meltano-").removesuffix(".dist-info") if found else ""
