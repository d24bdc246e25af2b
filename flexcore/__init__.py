"""FlexCore: one durable control plane for work on many runtimes.

Importing this package is cheap on purpose: it brings the `task` decorator and the version, nothing else.
"""

from flexcore.sdk.task import task

__all__ = ["__version__", "task"]
__version__ = "0.1.0"
