"""The guardian of a local cluster: starts Ray, watches it, and ends it, whole, once nobody has used it for a while.

A process of its own that outlives the one that started it. It writes the record by which the cluster is found, and is
the parent of whatever Ray starts, so that nothing is left when it ends. In a box, where the network is the cluster's
own, it carries connections from a socket to the dashboard. Standard library only; imports nothing of ours. The token
never leaves its file: Ray's processes are told where that is.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

MARKER = "FLEXCORE_RAY_CLUSTER"
RECORD, LOCK, TOKEN, USED, RAY_LOG = "record.json", "lock", "token", "used", "ray.log"
SOCKET = "dashboard.sock"
_HOST = "127.0.0.1"
_LOWEST_PORT, _WORKER_PORTS = 1024, range(10002, 20000)  # the second: where Ray refuses to have its own
_LOOK_S, _KILL_S, _ANSWER_S = 0.2, 15.0, 10.0
_MOST_SILENCE = 6  # unanswered questions in a row, of ten seconds each: then Ray is broken
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
    "ray-client-server-port",
    "node-manager-port",
    "object-manager-port",
)
_METRICS = ("AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT")  # ports that Ray takes from the environment alone


def started_at(pid: int) -> str | None:
    """Say when a process began: in which life of the machine, and how many ticks into it; None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else f"{_BOOT.read_text().strip()}/{fields[19]}"


def kill_marked(marker: str) -> bool:
    """Kill every process of a cluster, and what came of it; say whether there was any. Our own are spared."""
    parents = _parents()
    spared = {os.getpid(), *_above(os.getpid(), parents)}
    entry = f"{MARKER}={marker}".encode()
    marked = {pid for pid in parents if pid not in spared and entry in _environment(pid)}
    doomed = {pid for pid in parents if pid not in spared and (pid in marked or marked & set(_above(pid, parents)))}
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return bool(doomed)


class Guardian:
    """One cluster, from its start to its end."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.folder, self.temp = Path(order["folder"]), Path(order["temp"])
        self.order = order
        self.token = (self.folder / TOKEN).read_text().strip()
        *ports, autoscaler, dashboard = free_ports(len(_PORTS) + len(_METRICS))
        self.ports = dict(zip(_PORTS, ports, strict=True))
        self.metrics = dict(zip(_METRICS, (autoscaler, dashboard), strict=True))
        self.url = f"http://{_HOST}:{self.ports['dashboard-port']}"
        self.busy_at = time.monotonic()
        self.ray = 0
        self.silent = 0
        self.has_ended = False
        self.is_cleared = False
        self.state = ""

    async def run(self) -> None:
        """Start Ray, and stay until it is idle or gone, or we are told to end."""
        ourselves = asyncio.current_task()
        assert ourselves is not None
        # An exception out of a signal's handler would be lost where it meets a callback of the interpreter's own.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ourselves.cancel)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        try:
            self.ray = self.start()
            if await self.is_ready():
                await self.serve()
            else:
                self.record("failed")
        finally:
            self.end()  # before the loop waits for a thread that asks Ray something

    async def serve(self) -> None:
        """Be there for whoever uses the cluster."""
        async with contextlib.AsyncExitStack() as open_things:
            if self.order["boxed"]:
                server = await asyncio.start_unix_server(self.forward, self.temp / SOCKET)
                await open_things.enter_async_context(server)
            self.record("ready")
            await self.until_idle()

    def start(self) -> int:
        """Start Ray in the foreground of a session of its own, told to end when the guardian is killed."""
        arguments = [f"--{name}={port}" for name, port in self.ports.items()]
        if self.order["cpus"] is not None:
            arguments.append(f"--num-cpus={self.order['cpus']}")
        with (self.folder / RAY_LOG).open("wb") as log:
            ray = subprocess.Popen(
                [
                    *(self.order["interpreter"], "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                    *(f"--node-ip-address={_HOST}", f"--dashboard-host={_HOST}", f"--temp-dir={self.temp}"),
                    *("--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"),
                    *("--include-log-monitor=false", "--log-color=false", *arguments),
                ],
                env=self.environment(),
                cwd=self.temp,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(end_with, os.getpid()),  # noqa: PLW1509  there is no other thread yet
            )
        return ray.pid

    def environment(self) -> dict[str, str]:
        """Make Ray's environment: where programs are, the marker, and where the token is."""
        return {
            **self.order["environment"],
            **{name: str(port) for name, port in self.metrics.items()},
            MARKER: self.order["marker"],
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / TOKEN),
            "RAY_TMPDIR": str(self.temp),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    async def is_ready(self) -> bool:
        """Wait until the dashboard answers and knows its node; False when Ray ended before, or took too long."""
        until = time.monotonic() + self.order["start_timeout"]
        while time.monotonic() < until and not self.reap():
            if await asyncio.to_thread(self.has_node):
                return True
            await asyncio.sleep(_LOOK_S)
        return False

    async def until_idle(self) -> None:
        """Stay until Ray or its folder is gone, or nobody used it for so long; then end it, unless somebody comes."""
        pause = min(1.0, self.order["idle_s"] / 4)
        while not self.reap() and self.folder.exists() and not self.is_replaced():
            if self.idle_s() < self.order["idle_s"]:
                await asyncio.sleep(pause)
                continue
            if await asyncio.to_thread(self.has_work):
                if self.silent:
                    await asyncio.sleep(pause)
                else:
                    self.busy_at = time.monotonic()
                continue
            with locked(self.folder) as held:
                if held and self.idle_s() >= self.order["idle_s"]:
                    self.end()
                    return
        self.end()

    def idle_s(self) -> float:
        """Say for how long nobody has used the cluster, as far as is known without asking it."""
        with contextlib.suppress(FileNotFoundError):
            used = time.time() - (self.folder / USED).stat().st_mtime
            return min(max(used, 0.0), time.monotonic() - self.busy_at)
        return time.monotonic() - self.busy_at

    def has_work(self) -> bool:
        """Ask whether there are jobs under way. A busy machine may be slow to say: only long silence is a no."""
        jobs = self.ask("/api/jobs/")
        if jobs is None:
            self.silent += 1
            return self.silent < _MOST_SILENCE
        self.silent = 0
        return any(each.get("status") in ("PENDING", "RUNNING") for each in jobs)

    def has_node(self) -> bool:
        """Ask whether there is a node: the dashboard answers a moment earlier."""
        answer = self.ask("/api/v0/nodes") or {}
        nodes = ((answer.get("data") or {}).get("result") or {}).get("result") or []
        return any(each.get("state") == "ALIVE" for each in nodes)

    def ask(self, path: str) -> Any:
        """Ask the dashboard; None when it does not answer."""
        import urllib.request  # here, because the control plane loads this module for what it knows of records alone

        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.url + path, headers=headers)  # noqa: S310  our own dashboard
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=_ANSWER_S) as answer:
                return json.load(answer)
        except (OSError, ValueError):  # an URLError is an OSError
            return None

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection from the socket to the dashboard."""
        with contextlib.suppress(OSError):
            there_reader, there_writer = await asyncio.open_connection(_HOST, self.ports["dashboard-port"])
            await asyncio.gather(carried(reader, there_writer), carried(there_reader, writer))
        writer.close()

    def is_replaced(self) -> bool:
        """Whether the record is that of another cluster, so that nobody can find this one."""
        try:
            note = json.loads((self.folder / RECORD).read_text())
        except (FileNotFoundError, ValueError):
            return False
        return isinstance(note, dict) and note.get("marker") != self.order["marker"]

    def record(self, state: str) -> None:
        """Say where the cluster is, and how far, unless another one has taken its place."""
        self.state = state
        if self.is_replaced():
            return
        note = {
            "pid": os.getpid(),
            "start": started_at(os.getpid()),
            "state": state,
            "url": self.url,
            "socket": str(self.temp / SOCKET) if self.order["boxed"] else None,
            "marker": self.order["marker"],
            "temp": str(self.temp),
        }
        fresh = self.folder / f"{RECORD}.{os.getpid()}"
        fresh.write_text(json.dumps(note))
        fresh.replace(self.folder / RECORD)

    def reap(self) -> bool:
        """Take the ends of processes that came to us; say whether Ray's own is among them."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, _ = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                self.has_ended = self.has_ended or pid == self.ray
        return self.has_ended

    def end(self) -> None:
        """Kill every process of the cluster, and remove its files. A record of a failed start stays, to be read."""
        if self.is_cleared:
            return  # whoever comes next may have a new cluster by now
        self.is_cleared = True
        if self.state != "failed":
            with contextlib.suppress(OSError):  # the folder may be gone, and that may be why
                self.record("ending")
        until = time.monotonic() + _KILL_S
        while kill_marked(self.order["marker"]) and time.monotonic() < until:
            self.reap()
            time.sleep(_LOOK_S / 4)
        shutil.rmtree(self.temp, ignore_errors=True)
        if self.state != "failed" and not self.is_replaced():
            (self.folder / RECORD).unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Any:
    """Hold the cluster's lock for a moment, if nobody else does."""
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


async def carried(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes until there are no more."""
    try:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    except OSError:
        writer.close()
        return
    with contextlib.suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on, all different, where Ray takes them."""
    held: list[socket.socket] = []
    ports: list[int] = []
    while len(ports) < count:
        held.append(socket.socket())
        held[-1].bind(("", 0))
        port = held[-1].getsockname()[1]
        if port >= _LOWEST_PORT and port not in _WORKER_PORTS:
            ports.append(port)
    for each in held:
        each.close()
    return ports


def end_with(parent: int) -> None:
    """Have this process asked to end when the one that began it dies, however that comes."""
    import ctypes  # here, because the control plane loads this module for what it knows of records alone

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died before that was asked for


def bring_loopback_up() -> None:
    """Give a new network namespace the one interface it has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14s", b"lo", 0, b"")
        flags = struct.unpack("16sh14s", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14s", b"lo", flags | _IFF_UP, b""))


def _parents() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def _above(pid: int, parents: dict[int, int]) -> list[int]:
    found: list[int] = []
    while (pid := parents.get(pid, 0)) > 1 and pid not in found:
        found.append(pid)
    return found


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def main() -> None:
    """Read the order from standard input, leave whoever gave it, and guard."""
    import ctypes  # here, because the control plane loads this module for what it knows of records alone

    order = json.load(sys.stdin)
    if order["boxed"]:
        bring_loopback_up()
    guardian = Guardian(order)  # here, so that what is wrong with it is told to whoever gave the order
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        os._exit(0 if os.read(told, 1) else 1)
    os.close(told)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until there is somebody to hear it
    try:
        guardian.record("starting")
        with contextlib.suppress(OSError):  # nobody has to wait for it
            os.write(tell, b".")
        os.close(tell)
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(guardian.run())
    finally:
        guardian.end()


if __name__ == "__main__":
    main()
