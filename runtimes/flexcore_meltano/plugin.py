"""What the entry point `meltano` loads. Imports nothing heavy: Meltano itself is only ever a subprocess."""

from flexcore.model.workflow import StepKind
from flexcore.runtime.plugin import RuntimeContext, RuntimePlugin
from flexcore_meltano.config import DbtParameters, MeltanoConfig, MeltanoParameters, SingerParameters
from flexcore_meltano.runtime import MeltanoRuntime


def _create(name: str, config: MeltanoConfig, context: RuntimeContext) -> MeltanoRuntime:
    return MeltanoRuntime(name, config, context)


PLUGIN = RuntimePlugin(
    kind="meltano",
    create=_create,
    config=MeltanoConfig,
    parameters={
        StepKind.SINGER: SingerParameters,
        StepKind.DBT: DbtParameters,
        StepKind.MELTANO: MeltanoParameters,
    },
    certify="flexcore.testing.runtime_processes:MeltanoHarness",
)
