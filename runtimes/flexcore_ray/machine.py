"""Whether this machine can have a local cluster, and whether it has one: told without loading what would start it.

Every command looks at every runtime, and few of them use this one: nothing that takes time is imported here.
"""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from flexcore.runtime.interface import Resources
from flexcore_ray.config import RayConfig

FOLDER, RECORD = "cluster", "record.json"
_NVIDIA_DRIVER = Path("/proc/driver/nvidia")


def problem_here(config: RayConfig) -> str:
    """Say why there can be no local cluster here, and what to do; "" when there can."""
    if config.interpreter is None and find_spec("ray") is None:
        return "a local Ray needs its package: pip install 'flexcore[ray]'"
    if config.interpreter is not None and not shutil.which(config.interpreter):
        return f"the `interpreter` {config.interpreter!r} of a local Ray is not there"
    if not Path("/proc/self/stat").exists():
        return f"a local Ray needs Linux with /proc, and this is {sys.platform}: set `address` to a cluster's dashboard"
    if config.boxed and not shutil.which("unshare"):
        return "a `boxed` local Ray needs the command `unshare`"
    return ""


def resources_here(config: RayConfig) -> Resources:
    """Say what a cluster would offer that is not started yet. How many GPUs only Ray can tell, if there are any."""
    return Resources(
        cpu=float(config.cpus or len(os.sched_getaffinity(0))), gpu=None if _NVIDIA_DRIVER.exists() else 0.0
    )


def has_record(state_folder: Path) -> bool:
    """Whether there is, or was, a cluster of an instance with this state folder, or one cannot be told."""
    try:
        return (state_folder / FOLDER / RECORD).exists()
    except OSError:
        return True  # somebody else's: whoever reads it says so
