"""From a step with `packages` to the command that gets it an environment first. Builds nothing: the attempt does.

What is in `packages` may be seen by other users of the machine while it is installed; secrets are refused there.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from flexcore.model.failure import ErrorClass, Failure
from flexcore.runtime.flexcore_far import start
from flexcore.runtime.portable.requirements import normal_set
from flexcore_local.config import LocalConfig

_DRIVER = "psycopg[binary]>=3.2"
_PREFIX = "UV_"
_PASSED = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "NETRC", "SSH_AUTH_SOCK", "ALL_PROXY", "all_proxy")
_NOT_PASSED = frozenset({"UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_BREAK_SYSTEM_PACKAGES", "UV_PROJECT_ENVIRONMENT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What this process gives to its children: `clean` to every step, `installer` to what builds environments."""

    clean: Mapping[str, str]
    installer: Mapping[str, str]
    environments: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The program that shall run in an environment: on its interpreter if `is_python`."""

    argv: tuple[str, ...]
    stdin: bytes
    packages: Sequence[str]
    python: str
    is_python: bool


def surroundings(clean: Mapping[str, str], state_folder: Path) -> Surroundings:
    """Take from our own environment what the installer is steered by."""
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    return Surroundings(
        clean=clean,
        installer={**clean, **passed, **_steering(os.environ)},
        environments=environments_folder(state_folder),
    )


def environments_folder(state_folder: Path) -> Path:
    """Where an instance keeps its environments."""
    return state_folder.absolute() / "environments"


def packages_for_sql(connection: str, packages: Sequence[str]) -> Sequence[str]:
    """Add the driver where the step names none and none is installed beside FlexCore."""
    is_postgres = connection.partition(":")[0] in ("postgresql", "postgres")
    if packages or not is_postgres or importlib.util.find_spec("psycopg") is not None:
        return packages
    return [_DRIVER]


def prepared(
    wanted: Wanted, folder: Path, config: LocalConfig, around: Surroundings, env: Mapping[str, str]
) -> tuple[tuple[str, ...], bytes] | Failure:
    """Give the command line and standard input with which an attempt gets its environment and then becomes `wanted`.

    `env` is the step's own: what it says to the installer goes over what FlexCore was started with.
    """
    uv = find_uv()
    if uv is None:
        return Failure(
            message="steps with `packages` need uv, and there is none beside FlexCore's Python or on the PATH",
            error_class=ErrorClass.DEPENDENCY,
            name="NoInstaller",
            hint="install the package uv where FlexCore is installed",
        )
    order = {
        "folder": str(folder.absolute()),
        "root": str(around.environments),
        "uv": uv,
        "python": wanted.python,
        "requirements": normal_set(list(wanted.packages)),
        "variables": {**around.installer, **_steering(env)},
        "argv": wanted.argv,
        "is_python": wanted.is_python,
        "keep_s": config.packages_keep,
        "max_bytes": config.packages_max_bytes,
    }
    argv = (sys.executable, "-I", "-S", start.__file__, "flexcore_local.prepare_main", str(Path(__file__).parents[1]))
    return argv, msgspec.json.encode(order) + b"\n" + wanted.stdin


def find_uv() -> str | None:
    """Find the installer: beside the interpreter, where packages put their programs, then on the PATH."""
    import sysconfig  # here, because most steps need no environment, and every start would pay 3 ms

    beside = (Path(sys.executable).parent, Path(sysconfig.get_path("scripts")))
    found = next((folder / "uv" for folder in beside if os.access(folder / "uv", os.X_OK)), None)
    return str(found) if found else shutil.which("uv")


def _steering(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith(_PREFIX) and name not in _NOT_PASSED}
