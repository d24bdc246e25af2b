"""The harness of the conformance kit for Ray: bash steps as jobs of a cluster on this machine, which all checks share.

The cluster belongs to the folder that the checks of one run have in common; whoever runs the checks ends it afterwards
with `end_cluster`. It never ends a process that it did not find by that cluster's own record, or below a marked one.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flexcore.model.execution import Handle
from flexcore.model.values import JSON
from flexcore.runtime.interface import Runtime
from flexcore.runtime.plugin import RuntimeContext
from flexcore.testing.clock import RealClock
from flexcore.testing.factories import runtime_context
from flexcore.testing.runtime_harness import Behaviour, fresh_name
from flexcore.testing.runtime_processes import BashHarness, Subject

_SHOWN = ("/api/jobs/", "/api/v0/actors?detail=true", "/api/v0/runtime_envs?detail=true", "/api/v0/workers?detail=true")
_NOWHERE = "http://127.0.0.1:9"
_ENDING_S = 30.0
_LOOK_AGAIN_S = 0.05


class RayHarness(BashHarness):
    """A Ray whose nodes are this machine, so that its work is seen in folders and processes."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self._state = subject.shared / "ray"
        self.installation = fresh_name("conformance-")  # the cluster is the same for all checks, and surveys see it

    async def unreachable(self) -> Runtime:
        """Make an instance for an address at which nobody is."""
        return self.subject.create(self._context(self.installation), cluster=None, address=_NOWHERE)

    def parameters(self, behaviour: Behaviour) -> Mapping[str, JSON]:
        """Name the file that the script reads, so that it is brought to the node."""
        files: list[JSON] = [behaviour.tells_file] if behaviour.tells_file else []
        return {**super().parameters(behaviour), "files": files}

    async def lose(self, mark: str, handle: Handle) -> None:
        """Kill the work and all that watches over it, up to the node itself, which goes on."""
        for pid in map(int, self._lines(mark, "pids")):
            for each in (*reversed(list(_below_the_node(pid))), pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)

    async def shown(self, text: str) -> list[str]:
        """Look at all command lines of the machine, and at what the dashboard of a local cluster shows."""
        if not _has_record(self._state):
            return await super().shown(text)
        return [*await super().shown(text), *(path for path in _SHOWN if text in _dashboard(self._state, path))]

    async def kept(self, text: str) -> list[str]:
        """Look into all files of the runtime, of the workflow and of the cluster."""
        folders = [self._state, *([Path(_record(self._state)["temp"])] if _has_record(self._state) else [])]
        files = (each for folder in folders for each in _files(folder))
        return [*await super().kept(text), *(str(each) for each in files if text.encode() in _content(each))]

    def _context(self, installation: str) -> RuntimeContext:
        return runtime_context(self._state, installation=installation, clock=RealClock())


def end_cluster(shared: Path) -> None:
    """End the cluster that checks with this shared folder have started, and wait until nothing of it is there."""
    end_cluster_of(shared / "ray")


def end_cluster_of(state_folder: Path) -> None:
    """End the cluster of an instance with this state folder, as its idle time would."""
    try:
        record = _record(state_folder)
    except FileNotFoundError:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(record["pid"], signal.SIGTERM)
    until = time.monotonic() + _ENDING_S
    while cluster_processes(state_folder, record) and time.monotonic() < until:
        time.sleep(_LOOK_AGAIN_S)


def jobs_of(state_folder: Path) -> list[str]:
    """Name the jobs that the dashboard of an instance's cluster knows of, ended ones too; none without a cluster."""
    if not _has_record(state_folder):
        return []
    return [f"job {each['submission_id']}" for each in json.loads(_dashboard(state_folder, "/api/jobs/"))]


def no_box() -> str:
    """Say why there can be no network namespace here; "" when there can."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return "there is no `unshare`"
    tried = subprocess.run(
        [unshare, "-n" if os.geteuid() == 0 else "-rn", "true"], capture_output=True, text=True, check=False
    )
    return tried.stderr.strip()


def kill_head(state_folder: Path) -> None:
    """Kill what makes a node the head of a cluster, as a crash of it would."""
    for pid in cluster_processes(state_folder):
        if _name(pid) in ("gcs_server", "raylet"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def count_of(state_folder: Path, name: str) -> int:
    """Count the processes of an instance's cluster that have a name."""
    return sum(_name(pid) == name for pid in cluster_processes(state_folder))


def cluster_processes(state_folder: Path, record: Mapping[str, Any] | None = None) -> list[int]:
    """List the processes of an instance's cluster, by the mark that they all carry, and its guardian."""
    record = record or _record(state_folder)
    entry = f"FLEXCORE_RAY_CLUSTER={record['marker']}".encode()
    marked = [pid for pid in _processes() if entry in _content(Path(f"/proc/{pid}/environ")).split(b"\0")]
    return [*marked, *([record["pid"]] if _is_running(record["pid"]) else [])]


def _dashboard(state_folder: Path, path: str) -> str:
    import httpx  # here, because it takes a tenth of a second, and only this harness speaks HTTP

    record = _record(state_folder)
    token = (state_folder / "cluster" / "token").read_text()
    transport = httpx.HTTPTransport(uds=record["socket"])
    with httpx.Client(transport=transport, headers={"Authorization": f"Bearer {token}"}, timeout=20) as client:
        return client.get(record["url"] + path).raise_for_status().text


def _has_record(state_folder: Path) -> bool:
    return (state_folder / "cluster" / "record.json").exists()


def _record(state_folder: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((state_folder / "cluster" / "record.json").read_text())
    return found


def _below_the_node(pid: int) -> Iterator[int]:
    """Name everything above a process up to the node's own process, which is not among them."""
    while (pid := _parent(pid)) > 1 and _name(pid) != "raylet":
        yield pid


def _parent(pid: int) -> int:
    stat = _content(Path(f"/proc/{pid}/stat")).decode(errors="replace")
    return int(stat.rpartition(")")[2].split()[1]) if stat else 0


def _name(pid: int) -> str:
    return _content(Path(f"/proc/{pid}/comm")).decode(errors="replace").strip()


def _is_running(pid: int) -> bool:
    stat = _content(Path(f"/proc/{pid}/stat")).decode(errors="replace")
    return bool(stat) and stat.rpartition(")")[2].split()[0] != "Z"


def _processes() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()]


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root) / name for name in names)


def _content(path: Path) -> bytes:
    """Read a file; what is no file, or gone by now, is empty."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:
        return b""
