"""What is uploaded for a job: the step's program, named by its content, and the order, sealed for one job alone.

Everybody with access to the dashboard sees a job's entrypoint, metadata and runtime_env, so nothing of the order is
there but the key it is sealed with; and nobody gets a package back from the dashboard. Whoever has both, by reading
the cluster's own store or a node's disk in the moment before the job begins, could run any job there as well.
"""

import hashlib
import io
import json
import math
import secrets
import shlex
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files

from flexcore.model.values import JSON
from flexcore.runtime.portable.program import Program
from flexcore_ray import start_main

_START = "flexcore_ray_start.py"
_STOP_MARGIN = timedelta(seconds=2)  # for our program to tell the end, once the work has used up its grace
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file knows: equal files are equal packages


@dataclass(frozen=True, slots=True)
class Package:
    """A zip file, and the name under which Ray keeps it."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a job consists of: `program` is the same for the same step, `order` and `key` are for one job."""

    program: Package
    order: Package
    key: bytes


def bundle(program: Program, *, begins: str, not_after: float) -> Bundle:
    """Pack a program. `begins` is written to the log before it starts; after `not_after` (Unix time) it never does."""
    key, nonce = secrets.token_bytes(32), secrets.token_bytes(16)
    start = {
        "order": program.order.decode(),
        "command": list(program.command),
        "begins": begins,
        "not_after": not_after,
    }
    first = files(__package__).joinpath("start_main.py").read_bytes()
    return Bundle(
        program=_package({**program.files, _START: first}),
        order=_package({start_main.SEALED: start_main.seal(json.dumps(start).encode(), key, nonce)}),
        key=key,
    )


def entrypoint(python: str) -> str:
    """Give the command of a job: the same for all."""
    return f"exec {shlex.quote(python)} {_START}"


def runtime_env(packed: Bundle, user: Mapping[str, JSON], grace: timedelta) -> dict[str, JSON]:
    """Make a job's runtime environment out of the user's, if there is one, and what brings the program there."""
    variables = user.get("env_vars")
    ours = {
        start_main.KEY: packed.key.hex(),
        # Ray reads it in the process that stops the job: how long after asking it kills.
        "RAY_JOB_STOP_WAIT_TIME_S": str(math.ceil((grace + _STOP_MARGIN).total_seconds())),
    }
    return {
        **user,
        "working_dir": f"gcs://{packed.program.name}",
        "py_modules": [f"gcs://{packed.order.name}"],
        "env_vars": {**(variables if isinstance(variables, dict) else {}), **ours},
    }


def _package(contents: Mapping[str, bytes]) -> Package:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(contents):
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, contents[path], zipfile.ZIP_DEFLATED)
    packed = content.getvalue()
    return Package(f"_ray_pkg_{hashlib.sha256(packed).hexdigest()[:32]}.zip", packed)
