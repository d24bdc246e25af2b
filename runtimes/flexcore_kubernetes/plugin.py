"""What the entry point `kubernetes` loads. The client of the cluster is imported on first use, not here."""

from flexcore.runtime.plugin import RuntimePlugin
from flexcore_kubernetes.config import KubernetesConfig
from flexcore_kubernetes.runtime import KubernetesRuntime
from flexcore_kubernetes.steps import PARAMETERS

PLUGIN = RuntimePlugin(
    kind="kubernetes",
    create=KubernetesRuntime,
    config=KubernetesConfig,
    parameters=PARAMETERS,
    certify="flexcore.testing.runtime_kubernetes:KubernetesHarness",
)
