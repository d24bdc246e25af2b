"""What the entry point `ray` loads."""

from flexcore.runtime.plugin import RuntimePlugin
from flexcore_ray.config import PARAMETERS, RayConfig
from flexcore_ray.runtime import RayRuntime

PLUGIN = RuntimePlugin(
    kind="ray",
    create=RayRuntime,
    config=RayConfig,
    parameters=PARAMETERS,
    certify="flexcore.testing.runtime_ray:RayHarness",
)
