"""The programs beside a step's own, by the name that they have here: in a child `flexcore` itself is not importable."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING or "flexcore_far" not in sys.modules:
    from flexcore.runtime.flexcore_far import installer_outcomes, runner
else:
    from flexcore_far import installer_outcomes, runner

__all__ = ["installer_outcomes", "runner"]
