"""From a request to the command that the shim shall run: one function per kind of step.

Whatever may hold a secret (args, parameters, connection) goes by standard input or a memory file, never by argv.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import msgspec
from pydantic import BaseModel, ValidationError

from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
from flexcore.runtime.flexcore_far import start
from flexcore.runtime.flexcore_far.results import BASH, bash_script
from flexcore.runtime.interface import ExecutionRequest
from flexcore.runtime.portable.code import Refused, bash_arguments, content_of, file_beside, text, without_secrets
from flexcore.runtime.portable.data import DataLinks
from flexcore.runtime.portable.delivery import to_file
from flexcore.runtime.portable.program import ORDER_VARIABLE, Limits, invalid_text, order_beside
from flexcore.runtime.shim import Command
from flexcore_local import outcomes
from flexcore_local.config import BashParameters, HttpParameters, LocalConfig, PythonParameters, SqlParameters
from flexcore_local.preparation import Surroundings, Wanted, packages_for_sql, prepared

_CHILD = start.__file__
_PRIVATE = "step"  # in the folder of an attempt with data: what its program makes
_OURS = str(Path(__file__).parents[1])  # the folder that this package is in
_INHERITED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH"),
    *(
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    ),
)
PARAMETERS: Mapping[StepKind, type[BaseModel]] = {
    StepKind.PYTHON: PythonParameters,
    StepKind.BASH: BashParameters,
    StepKind.HTTP: HttpParameters,
    StepKind.SQL: SqlParameters,
}


PREPARES = "prepares"  # in the notes of an attempt that gets its environment first


Parts: TypeAlias = tuple[tuple[str, ...], bytes, bytes]  # argv, standard input, script


def clean_environment() -> dict[str, str]:
    """What a child gets of our own environment: where programs and homes are, never settings or keys."""
    return {"PATH": os.defpath, **{name: os.environ[name] for name in _INHERITED if name in os.environ}}


def command_for(
    request: ExecutionRequest,
    folder: Path,
    config: LocalConfig,
    around: Surroundings,
    installation: str,
    data: DataLinks,
) -> Command | Failure:
    """Make the command of an attempt, or say what is wrong with the step. The step's time limit is the caller's."""
    if request.kind not in PARAMETERS:
        message = f"a local runtime does not run steps of type {request.kind.value}"
        return Failure(message=message, error_class=ErrorClass.INPUT, name="ForeignKind")
    try:
        parameters = PARAMETERS[request.kind].model_validate(request.parameters)
        argv, stdin, script = _parts(parameters, request, folder, config, data)
        packages = _packages(parameters, request.secrets)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = f"{request.kind.value}: {place}: {first['msg']}" if place else f"{request.kind.value}: {first['msg']}"
        return Failure(message=message, error_class=ErrorClass.INPUT, name="InvalidParameters")
    except Refused as error:
        return Failure(message=str(error), error_class=ErrorClass.INPUT, name="Refused")
    except UnicodeEncodeError:
        return invalid_text(request.kind)
    env = _environment(request, parameters, folder, around.clean)
    if packages:
        python = sys.executable if request.kind is StepKind.SQL else config.python or sys.executable
        is_python = argv != BASH
        wanted = Wanted(argv=argv, stdin=stdin, packages=packages, python=python, is_python=is_python)
        begun = prepared(wanted, folder, config, around, env)
        if isinstance(begun, Failure):
            return begun
        argv, stdin = begun
    return Command(
        argv=argv,
        env=env,
        cwd=request.folder,
        stdin=stdin,
        script=script,
        grace=request.grace,
        memory_limit_bytes=request.requirements.memory or config.memory,
        max_output_bytes=config.max_output_bytes,
        notes={**notes_of(request, installation), **({PREPARES: True} if packages else {})},
        prepares=bool(packages),
        prepare_limit=timedelta(seconds=config.packages_timeout),
    )


def notes_of(request: ExecutionRequest, installation: str) -> dict[str, JSON]:
    """What the attempt's folder says about itself, for surveys. No secrets."""
    return {
        "installation": installation,
        "execution": request.id.execution,
        "path": request.id.path,
        "number": request.id.number,
        "kind": request.kind.value,
        "token": request.token,
    }


def _parts(
    parameters: BaseModel, request: ExecutionRequest, folder: Path, config: LocalConfig, data: DataLinks
) -> Parts:
    match parameters:
        case PythonParameters() | BashParameters() if data.inputs or data.outputs:
            return _with_data(parameters, request, folder, config, data)
        case PythonParameters():
            return _python(parameters, request.folder, config)
        case BashParameters():
            return _bash(parameters, request.folder)
        case HttpParameters():
            return _http(parameters)
        case SqlParameters():
            return _sql(parameters, request.folder)
        case _:
            raise Refused(f"the local runtime has no command for {type(parameters).__name__}")


def _with_data(
    parameters: PythonParameters | BashParameters,
    request: ExecutionRequest,
    folder: Path,
    config: LocalConfig,
    data: DataLinks,
) -> Parts:
    """As far away: the same program, which fetches and stores, under the shim."""
    order = order_beside(
        request,
        parameters,
        data,
        delivery=to_file(str(folder.absolute() / outcomes.ENDING)),
        private=folder / _PRIVATE,
        limits=Limits(result_bytes=config.max_result_bytes),
    )
    return (config.python or sys.executable, _CHILD, "flexcore_far.main"), order, b""


def _python(parameters: PythonParameters, folder: Path, config: LocalConfig) -> Parts:
    file = file_beside(parameters.file, folder)
    order = {
        "name": str(file) if file else "<script>",
        "is_file": file is not None,
        "code": content_of(file) if file else parameters.script,
        "args": parameters.args,
    }
    return (config.python or sys.executable, _CHILD, "flexcore_far.run_python"), msgspec.json.encode(order), b""


def _bash(parameters: BashParameters, folder: Path) -> Parts:
    file = file_beside(parameters.file, folder)
    script = None if file else parameters.script or ""
    return BASH, b"", bash_script(bash_arguments(parameters.args), script, str(file or ""))


def _http(parameters: HttpParameters) -> Parts:
    if not parameters.url.lower().startswith(("http://", "https://")):
        raise Refused("http: only http:// and https:// addresses can be asked")
    order = {
        "method": parameters.method.upper(),
        "url": parameters.url,
        "headers": {name: text(value) for name, value in parameters.headers.items()},
        "query": parameters.query,
        "has_json": parameters.has_json,
        "json": parameters.json_body,
        "body": parameters.body,
        "timeout": parameters.timeout,
        "expect": parameters.expect if isinstance(parameters.expect, list) else [parameters.expect],
    }
    return _child("flexcore_local.run_http"), msgspec.json.encode(order), b""


def _sql(parameters: SqlParameters, folder: Path) -> Parts:
    file = file_beside(parameters.file, folder)
    order = {
        "connection": parameters.connection,
        "script": content_of(file) if file else parameters.script,
        "params": parameters.params if parameters.params is not None else parameters.args,
        "read_only": parameters.read_only,
    }
    return _child("flexcore_local.run_sql"), msgspec.json.encode(order), b""


def _child(module: str) -> tuple[str, ...]:
    return (sys.executable, _CHILD, module, _OURS)


def _packages(parameters: BaseModel, secrets: tuple[str, ...]) -> Sequence[str]:
    packages = without_secrets(getattr(parameters, "packages", ()), secrets)  # http has none
    return packages_for_sql(parameters.connection, packages) if isinstance(parameters, SqlParameters) else packages


def _environment(
    request: ExecutionRequest, parameters: BaseModel, folder: Path, base: Mapping[str, str]
) -> dict[str, str]:
    declared: Mapping[str, JSON] = getattr(parameters, "env", {})  # http has none
    return {
        **base,
        **request.env,
        **{name: text(value) for name, value in declared.items()},
        ORDER_VARIABLE: "-",
        "FLEXCORE_RESULT": str(folder.absolute() / outcomes.RESULT),
        "FLEXCORE_FAILURE": str(folder.absolute() / outcomes.FAILURE),
        "FLEXCORE_EXECUTION": request.id.execution,
        "FLEXCORE_STEP": request.id.path,
        "FLEXCORE_ATTEMPT": str(request.id.number),
        "FLEXCORE_TOKEN": str(request.token),
    }
