"""From a step's request to what is submitted as a job: parameters checked, files and order packed. Starts nothing."""

import asyncio
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.values import JSON
from flexcore.runtime.interface import ExecutionRequest
from flexcore.runtime.plugin import RuntimeContext
from flexcore.runtime.portable.data import DataLinks, step_data
from flexcore.runtime.portable.delivery import mark_of, to_log
from flexcore.runtime.portable.parameters import BashParameters, PythonParameters
from flexcore.runtime.portable.program import Limits, program
from flexcore_ray.capacity import demand
from flexcore_ray.config import PARAMETERS, RayConfig, RayParameters, data_stores
from flexcore_ray.handle import Label
from flexcore_ray.package import Bundle, bundle, entrypoint, runtime_env

_STEERING = ("UV_", "PIP_")
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"})
_FAR_RESOURCES = {"CPU": "entrypoint_num_cpus", "GPU": "entrypoint_num_gpus", "memory": "entrypoint_memory"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step as it was understood: what runs on the node, and what is said about it to Ray alone."""

    code: PythonParameters | BashParameters
    runtime_env: Mapping[str, JSON]
    resources: Mapping[str, float]
    data: DataLinks


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job ready to be submitted, and the packages that have to be there before."""

    label: Label
    packed: Bundle
    job: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Marks:
    """What our program writes into a job's log where the step's output begins, and where it ends."""

    begins: str
    ends: str


def marks_of(installation: str, request: ExecutionRequest) -> Marks:
    """Make the marks of an attempt: the same after a restart."""
    ends = mark_of(installation, request.id, request.token)
    return Marks(f"{ends}-begins", ends)


async def step_of(request: ExecutionRequest, config: RayConfig, context: RuntimeContext) -> Step | Failure:
    """Check a step's parameters, and make the links for its data. Raises RuntimeUnavailable."""
    if request.kind not in PARAMETERS:
        message = f"a Ray runtime does not run steps of type {request.kind.value}"
        return Failure(message=message, error_class=ErrorClass.INPUT, name="ForeignKind")
    try:
        parameters = PARAMETERS[request.kind].model_validate(request.parameters)
    except ValidationError as error:
        message = f"{request.kind.value}: {_first_problem(error)}"
        return Failure(message=message, error_class=ErrorClass.INPUT, name="InvalidParameters")
    if isinstance(parameters, RayParameters):
        code = _as_bash(parameters)
        if isinstance(code, Failure):
            return code
        return Step(code=code, runtime_env=parameters.runtime_env, resources=parameters.resources, data=DataLinks())
    assert isinstance(parameters, PythonParameters | BashParameters), "PARAMETERS has no others"
    unreachable = _unreachable(parameters, config, context)
    data = unreachable or await step_data(parameters, context.artifacts, request.id)
    return data if isinstance(data, Failure) else Step(code=parameters, runtime_env={}, resources={}, data=data)


async def submission_of(
    request: ExecutionRequest, step: Step, config: RayConfig, context: RuntimeContext, tags: frozenset[str]
) -> Submission | Failure:
    """Pack a step up as a job."""
    marks = marks_of(context.installation, request)
    made = await asyncio.to_thread(
        program,
        request,
        step.code,
        data=step.data,
        delivery=to_log(marks.ends),
        installer=_installer(config),
        limits=_limits(request, config, context.now()),
        python=config.python,
    )
    if isinstance(made, Failure):
        return made
    not_after = context.now() + timedelta(seconds=config.start_timeout)
    packed = await asyncio.to_thread(bundle, made, begins=marks.begins, not_after=not_after.timestamp())
    label = Label(
        installation=context.installation,
        execution=request.id.execution,
        path=request.id.path,
        number=request.id.number,
        token=request.token,
        kind=request.kind.value,
        definition=packed.program.name.removeprefix("_ray_pkg_").removesuffix(".zip"),
        nonce=secrets.token_hex(8),
    )
    job: dict[str, JSON] = {
        "entrypoint": entrypoint(config.python),
        "metadata": label.metadata(),
        "runtime_env": runtime_env(packed, step.runtime_env, request.grace),
        **_resources(demand(request.requirements, tags, step.resources)),
    }
    return Submission(label=label, packed=packed, job=job)


def _as_bash(parameters: RayParameters) -> BashParameters | Failure:
    """Take the entrypoint of a `ray` step as a script, so that its end is told as that of any other step."""
    given = {"script": parameters.entrypoint, "env": parameters.env, "files": parameters.files}
    try:
        return BashParameters.model_validate(given)
    except ValidationError as error:
        message = f"ray: {_first_problem(error)}"
        return Failure(message=message, error_class=ErrorClass.INPUT, name="InvalidParameters")


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _installer(config: RayConfig) -> dict[str, str]:
    """Steer pip and uv as the settings say; on this machine, also as they are steered here."""
    here = os.environ if config.cluster is not None else {}
    return {**{name: here[name] for name in here if name.startswith(_STEERING) or name in _PROXIES}, **config.installer}


def _limits(request: ExecutionRequest, config: RayConfig, now: datetime) -> Limits:
    return Limits(
        time=None if request.deadline is None else max(request.deadline - now, timedelta(milliseconds=1)),
        packages=timedelta(seconds=config.packages_timeout),
        memory=request.requirements.memory,
        result_bytes=config.max_result_bytes,
    )


def _resources(wanted: Mapping[str, float]) -> dict[str, JSON]:
    """Say in the words of the Jobs API what to reserve for the job's entrypoint."""
    known: dict[str, JSON] = {_FAR_RESOURCES[name]: each for name, each in wanted.items() if name in _FAR_RESOURCES}
    if "entrypoint_memory" in known:
        known["entrypoint_memory"] = int(wanted["memory"])
    custom = {name: each for name, each in wanted.items() if name not in _FAR_RESOURCES}
    return {**known, "entrypoint_resources": custom} if custom else known


def _unreachable(
    parameters: PythonParameters | BashParameters, config: RayConfig, context: RuntimeContext
) -> Failure | None:
    store = context.artifacts.store
    if not (parameters.inputs or parameters.outputs) or store in data_stores(config):
        return None
    return Failure(
        message=f"the step has data in a store of kind '{store}', which the nodes of this cluster cannot reach",
        error_class=ErrorClass.INPUT,
        name="DataUnreachable",
        hint="keep artifacts in an object store, or set `shares_files: true` where the nodes see the same files",
    )
