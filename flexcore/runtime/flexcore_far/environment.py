"""Gets a step the packages it asks for, where it runs: an environment of its own on top of what is there.

uv where there is one, else pip. The step sees its own packages first, then those of the interpreter that runs this.
What the installer is steered by (variables, maybe with credentials) is never the step's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

WHEELS = "FLEXCORE_WHEELS"
_STEERING = ("UV_", "PIP_")
_OWN_CHOICE = frozenset(
    {"UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_PROJECT_ENVIRONMENT", "PIP_TARGET", "PIP_PREFIX", "PIP_USER"}
)


class NoInstaller(Exception):
    """There is neither uv nor pip."""


def commands(folder: Path, packages: Sequence[str], variables: Mapping[str, str]) -> list[list[str]]:
    """Say what has to be run to make the environment in the folder. Raises NoInstaller."""
    python = str(folder / "bin" / "python")
    wheels = variables.get(WHEELS)
    local = ["--no-index", "--find-links", wheels] if wheels else []
    uv = _uv(variables)
    if uv is not None:
        return [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--python", python, *local, "--", *packages],
        ]
    if not _has_pip():
        raise NoInstaller
    quiet = ["--disable-pip-version-check", "--no-input"]
    return [
        [sys.executable, "-m", "venv", "--without-pip", str(folder)],
        [sys.executable, "-m", "pip", "--python", python, "install", *quiet, *local, "--", *packages],
    ]


def steering(own: Mapping[str, str], given: Mapping[str, str], step: Mapping[str, str]) -> dict[str, str]:
    """Put together the installer's variables: this place's, over them what was given for it, over them the step's."""
    said = {name: value for name, value in step.items() if name.startswith(_STEERING)}
    return {name: value for name, value in {**own, **given, **said}.items() if name not in _OWN_CHOICE}


def adopt_surroundings(folder: Path) -> None:
    """Let the environment see the packages of this interpreter too, after its own."""
    seen = [path for path in dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))) if path]
    for place in folder.glob("lib/python*/site-packages"):
        (place / "_flexcore_surroundings.pth").write_text("\n".join(seen) + "\n")


def variables_in(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Give the variables that make a program use the environment."""
    search = f"{folder / 'bin'}{os.pathsep}{environ.get('PATH', os.defpath)}"
    kept = {name: value for name, value in environ.items() if name != "PYTHONHOME"}
    return {**kept, "PATH": search, "VIRTUAL_ENV": str(folder)}


def install(
    folder: Path,
    packages: Sequence[str],
    variables: Mapping[str, str],
    call: Callable[[Sequence[str], Mapping[str, str]], bool],
) -> bool:
    """Make the environment by `call`, which says whether a command went well. Raises NoInstaller."""
    for command in commands(folder, packages, variables):
        if not call(command, variables):
            return False
    adopt_surroundings(folder)
    return True


def _uv(variables: Mapping[str, str]) -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("uv", path=variables.get("PATH"))


def _has_pip() -> bool:
    asked = [sys.executable, "-m", "pip", "--version"]
    return subprocess.run(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0
