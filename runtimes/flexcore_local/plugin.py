"""What the entry point `local` loads."""

from flexcore.model.workflow import StepKind
from flexcore.runtime.plugin import RuntimePlugin
from flexcore_local.commands import PARAMETERS
from flexcore_local.config import FunctionParameters, LocalConfig
from flexcore_local.runtime import LocalRuntime

PLUGIN = RuntimePlugin(
    kind="local",
    create=LocalRuntime,
    config=LocalConfig,
    parameters={**PARAMETERS, StepKind.FUNCTION: FunctionParameters},
)
