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
from flexcore.runtime.interface import ExecutionRequest
from flexcore.runtime.shim import Command
from flexcore_local import outcomes
from flexcore_local.config import BashParameters, HttpParameters, LocalConfig, PythonParameters, SqlParameters
from flexcore_local.preparation import Surroundings, Wanted, packages_for_sql, prepared

_CHILD = str(Path(__file__).with_name("child.py"))
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


class Refused(Exception):
    """The step cannot be started; nothing was."""


Parts: TypeAlias = tuple[tuple[str, ...], bytes, bytes]  # argv, standard input, script


def clean_environment() -> dict[str, str]:
    """What a child gets of our own environment: where programs and homes are, never settings or keys."""
    return {"PATH": os.defpath, **{name: os.environ[name] for name in _INHERITED if name in os.environ}}


def command_for(
    request: ExecutionRequest, folder: Path, config: LocalConfig, around: Surroundings, installation: str
) -> Command | Failure:
    """Make the command of an attempt, or say what is wrong with the step. The step's time limit is the caller's."""
    if request.kind not in PARAMETERS:
        message = f"a local runtime does not run steps of type {request.kind.value}"
        return Failure(message=message, error_class=ErrorClass.INPUT, name="ForeignKind")
    try:
        parameters = PARAMETERS[request.kind].model_validate(request.parameters)
        argv, stdin, script = _parts(parameters, request.folder, config)
        packages = _packages(parameters, request.secrets)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        message = f"{request.kind.value}: {place}: {first['msg']}" if place else f"{request.kind.value}: {first['msg']}"
        return Failure(message=message, error_class=ErrorClass.INPUT, name="InvalidParameters")
    except Refused as error:
        return Failure(message=str(error), error_class=ErrorClass.INPUT, name="Refused")
    except UnicodeEncodeError:
        message = f"{request.kind.value}: a text holds half a character (a lone surrogate), which cannot be passed on"
        return Failure(message=message, error_class=ErrorClass.INPUT, name="InvalidText")
    env = _environment(request, parameters, folder, around.clean)
    if packages:
        python = sys.executable if request.kind is StepKind.SQL else config.python or sys.executable
        is_python = request.kind is not StepKind.BASH
        wanted = Wanted(argv=argv, stdin=stdin, packages=packages, python=python, is_python=is_python)
        begun = prepared(wanted, folder, config, around, env, _CHILD)
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


def text(value: JSON) -> str:
    """Spell a value for a command line or an environment: text as it is, null empty, everything else as JSON."""
    match value:
        case str():
            return value
        case None:
            return ""
        case _:
            return msgspec.json.encode(value).decode()


def _parts(parameters: BaseModel, folder: Path, config: LocalConfig) -> Parts:
    match parameters:
        case PythonParameters():
            return _python(parameters, folder, config)
        case BashParameters():
            return _bash(parameters, folder)
        case HttpParameters():
            return _http(parameters)
        case SqlParameters():
            return _sql(parameters, folder)
        case _:
            raise Refused(f"the local runtime has no command for {type(parameters).__name__}")


def _python(parameters: PythonParameters, folder: Path, config: LocalConfig) -> Parts:
    file = _file(parameters.file, folder)
    order = {
        "name": str(file) if file else "<script>",
        "is_file": file is not None,
        "code": _content(file) if file else parameters.script,
        "args": parameters.args,
    }
    return _child("flexcore_local.run_python", config.python or sys.executable), msgspec.json.encode(order), b""


def _bash(parameters: BashParameters, folder: Path) -> Parts:
    file = _file(parameters.file, folder)
    for argument in parameters.args:
        if "\0" in text(argument):
            raise Refused("an argument holds a NUL character, which no command can be given")
    # All on the first line, so that line numbers in messages are the author's.
    opening = f"set -- {' '.join(_quoted(text(each)) for each in parameters.args)}; "
    if file is None:
        return ("bash", "-eo", "pipefail", "/dev/fd/3"), b"", (opening + (parameters.script or "")).encode()
    opening += f"BASH_ARGV0={_quoted(str(file))}; source {_quoted(str(file))}"
    return ("bash", "-eo", "pipefail", "/dev/fd/3"), b"", opening.encode()


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
    return _child("flexcore_local.run_http", sys.executable), msgspec.json.encode(order), b""


def _sql(parameters: SqlParameters, folder: Path) -> Parts:
    file = _file(parameters.file, folder)
    order = {
        "connection": parameters.connection,
        "script": _content(file) if file else parameters.script,
        "params": parameters.params if parameters.params is not None else parameters.args,
        "read_only": parameters.read_only,
    }
    return _child("flexcore_local.run_sql", sys.executable), msgspec.json.encode(order), b""


def _child(module: str, python: str) -> tuple[str, ...]:
    return (python, _CHILD, module)


def _file(name: str | None, folder: Path) -> Path | None:
    if name is None:
        return None
    path = (folder / name).absolute()
    if not path.is_file():
        raise Refused(f"file {name!r} is not in the workflow's folder")
    return path


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"file {file.name!r} cannot be read: {error}") from error


def _packages(parameters: BaseModel, secrets: tuple[str, ...]) -> Sequence[str]:
    packages: Sequence[str] = getattr(parameters, "packages", ())  # http has none
    if any(secret in each for secret in secrets if secret for each in packages):
        raise Refused("a secret stands in `packages`; give it to the installer, as a UV_… variable in the step's `env`")
    return packages_for_sql(parameters.connection, packages) if isinstance(parameters, SqlParameters) else packages


_ESCAPES: Mapping[str, str] = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r"}


def _quoted(argument: str) -> str:
    return "$'" + "".join(_ESCAPES.get(character, character) for character in argument) + "'"


def _environment(
    request: ExecutionRequest, parameters: BaseModel, folder: Path, base: Mapping[str, str]
) -> dict[str, str]:
    declared: Mapping[str, JSON] = getattr(parameters, "env", {})  # http has none
    return {
        **base,
        **request.env,
        **{name: text(value) for name, value in declared.items()},
        "FLEXCORE_RESULT": str(folder.absolute() / outcomes.RESULT),
        "FLEXCORE_FAILURE": str(folder.absolute() / outcomes.FAILURE),
        "FLEXCORE_EXECUTION": request.id.execution,
        "FLEXCORE_STEP": request.id.path,
        "FLEXCORE_ATTEMPT": str(request.id.number),
        "FLEXCORE_TOKEN": str(request.token),
    }
