"""What the entry point `remote` loads."""

from collections.abc import Mapping

from pydantic import BaseModel

from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import Runtime
from flexcore.runtime.plugin import RuntimeContext, RuntimePlugin
from flexcore.runtime.portable.parameters import BashParameters, PythonParameters
from flexcore_remote.config import AnyParameters, RemoteConfig


def _create(name: str, config: RemoteConfig, context: RuntimeContext) -> Runtime:
    from flexcore_remote.runtime import RemoteRuntime  # brings gRPC, which is slow to load

    return RemoteRuntime(name, config, context)


_PARAMETERS: Mapping[StepKind, type[BaseModel]] = {
    **dict.fromkeys(StepKind, AnyParameters),
    StepKind.PYTHON: PythonParameters,
    StepKind.BASH: BashParameters,
}

PLUGIN = RuntimePlugin(kind="remote", create=_create, config=RemoteConfig, parameters=_PARAMETERS)
