"""From an attempt's request to the program that runs it far away: files without secrets, an order with, a command."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import msgspec

from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
from flexcore.runtime import flexcore_far
from flexcore.runtime.interface import ExecutionRequest
from flexcore.runtime.portable.code import Refused, bash_arguments, content_of, file_beside, text, without_secrets
from flexcore.runtime.portable.data import DataLinks
from flexcore.runtime.portable.delivery import Delivery
from flexcore.runtime.portable.files import needed
from flexcore.runtime.portable.parameters import BashParameters, PythonParameters
from flexcore.runtime.portable.requirements import normal_set

ORDER_VARIABLE = "FLEXCORE_ORDER"
"""Names the file with the order; unset or `-`: the order comes on standard input. The file is deleted once read."""

WHEELS_VARIABLE = "FLEXCORE_WHEELS"
"""Names a folder of wheels on the far side that `packages` come from, without any network."""

MOST_RESULT_BYTES = 64 << 20

_FAR = Path(flexcore_far.__file__).parent
_PACKAGE, _WORKFLOW = "flexcore_far", "workflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What has to be brought to the far side. `files` hold no secrets and are the same for the same step; `order` may.

    `command` runs in the folder of the files. Its exit code is the step's own, 0 after success.
    """

    files: Mapping[str, bytes]
    order: bytes
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the far program itself keeps to, where the runtime does not.

    `time` runs from the moment on when the step's own code begins, as a backstop; `packages` is for the environment
    before that. `memory` (bytes) is watched over all the step's processes. A larger result is a failure.
    """

    time: timedelta | None = None
    packages: timedelta = timedelta(minutes=30)
    memory: int | None = None
    result_bytes: int = MOST_RESULT_BYTES


def program(
    request: ExecutionRequest,
    parameters: PythonParameters | BashParameters,
    *,
    data: DataLinks,
    delivery: Delivery,
    installer: Mapping[str, str] | None = None,
    limits: Limits = Limits(),
    python: str = "python3",
) -> Program | Failure:
    """Make the program of an attempt, or say what is wrong with the step. Reads `request.folder`: call it in a thread.

    `installer` has variables (`UV_…`, `PIP_…`, proxies) for whoever builds the environment of `packages`; they may be
    secrets, and the step's own code does not see them. `python` starts the far program: 3.8 or newer, on its PATH.
    """
    try:
        files = _files(parameters, request.folder)
        order = {
            **_order(request, parameters, data, delivery, limits),
            "env": _environment(request, parameters),
            "packages": normal_set(list(without_secrets(parameters.packages, request.secrets))),
            "installer": dict(installer or {}),
            "files": [[name, os.access(request.folder / name, os.X_OK)] for name in files],
        }
        return Program(
            files=_shipped(request.folder, files),
            order=msgspec.json.encode(order),
            command=(python, f"{_PACKAGE}/start.py"),
        )
    except Refused as error:
        return Failure(message=str(error), error_class=ErrorClass.INPUT, name="Refused")
    except UnicodeEncodeError:
        return invalid_text(request.kind)


def order_beside(
    request: ExecutionRequest,
    parameters: PythonParameters | BashParameters,
    data: DataLinks,
    *,
    delivery: Delivery,
    private: Path,
    limits: Limits = Limits(),
) -> bytes:
    """Make the order for the same program on this machine, where its files, variables and packages are there already.

    `private` is the folder that the program may fill, and removes. Raises Refused.
    """
    files = _files(parameters, request.folder)
    order = {
        **_order(request, parameters, data, delivery, limits),
        "files": [[name, os.access(request.folder / name, os.X_OK)] for name in files],
        "folder": str(request.folder.absolute()),
        "private": str(private.absolute()),
    }
    return msgspec.json.encode(order)


def invalid_text(kind: StepKind) -> Failure:
    """Say that a text of a step is none that can be encoded."""
    message = f"{kind.value}: a text holds half a character (a lone surrogate), which cannot be passed on"
    return Failure(message=message, error_class=ErrorClass.INPUT, name="InvalidText")


def _order(
    request: ExecutionRequest,
    parameters: PythonParameters | BashParameters,
    data: DataLinks,
    delivery: Delivery,
    limits: Limits,
) -> dict[str, JSON]:
    return {
        "kind": (StepKind.PYTHON if isinstance(parameters, PythonParameters) else StepKind.BASH).value,  # not `ray`
        "script": parameters.script,
        "file": _normal(parameters.file),
        "args": parameters.args if isinstance(parameters, PythonParameters) else bash_arguments(parameters.args),
        "env": {},
        "packages": [],
        "installer": {},
        "packages_limit": limits.packages.total_seconds(),
        "inputs": {name: asdict(each) for name, each in data.inputs.items()},
        "outputs": {
            name: {"path": each.path, "format": each.format, "link": asdict(each.offer.link)}
            for name, each in data.outputs.items()
        },
        "folder": "",
        "private": "",
        "delivery": asdict(delivery),
        "grace": request.grace.total_seconds(),
        "time_limit": None if limits.time is None else max(limits.time.total_seconds(), 0.0),
        "memory_limit": limits.memory,
        "result_bytes": limits.result_bytes,
    }


def _environment(request: ExecutionRequest, parameters: PythonParameters | BashParameters) -> dict[str, str]:
    return {
        **request.env,
        **{name: text(value) for name, value in parameters.env.items()},
        "FLEXCORE_EXECUTION": request.id.execution,
        "FLEXCORE_STEP": request.id.path,
        "FLEXCORE_ATTEMPT": str(request.id.number),
        "FLEXCORE_TOKEN": str(request.token),
    }


def _files(parameters: PythonParameters | BashParameters, folder: Path) -> list[str]:
    """Name the workflow's files that the step needs. Raises Refused for one that is not there, or outside."""
    file = file_beside(parameters.file, folder)
    if file is not None and not file.resolve().is_relative_to(folder.resolve()):
        raise Refused(f"file {parameters.file!r} is outside of the workflow's folder")
    code = content_of(file) if file else parameters.script or ""
    return needed(
        _normal(parameters.file), parameters.files, code, folder, is_python=isinstance(parameters, PythonParameters)
    )


def _normal(file: str | None) -> str | None:
    return Path(file).as_posix() if file is not None else None


def _shipped(folder: Path, files: list[str]) -> dict[str, bytes]:
    ours = {f"{_PACKAGE}/{path.name}": path.read_bytes() for path in sorted(_FAR.glob("*.py"))}
    try:
        return {**ours, **{f"{_WORKFLOW}/{name}": (folder / name).read_bytes() for name in files}}
    except OSError as error:
        raise Refused(f"a file of the workflow cannot be read: {error}") from error
