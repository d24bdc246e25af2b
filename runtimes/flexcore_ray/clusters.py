"""Where an instance's cluster is: at an address, or on this machine, where it is started when work comes.

A local cluster belongs to an instance's state folder, not to a process: it is found again by its record, and whoever
comes first starts it while all others wait. It is started by `dashboard(start=True)` alone: looking never starts it.
"""

import asyncio
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from flexcore.model.errors import RuntimeUnavailable
from flexcore_ray import cluster_main
from flexcore_ray.client import Address, Dashboard
from flexcore_ray.cluster_main import LOCK, RAY_LOG, TOKEN, USED
from flexcore_ray.config import RayConfig
from flexcore_ray.machine import FOLDER, RECORD, problem_here

_LOOK_S = 0.05
_LAST_LINES = 5
_KILL_S = 10.0
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


class Cluster(Protocol):
    """How the adapter gets to the dashboard."""

    async def dashboard(self, *, start: bool) -> Dashboard | None:
        """Give the dashboard; None where a cluster would have to be started first, and nobody said so.

        Raises RuntimeUnavailable.
        """
        ...

    async def close(self) -> None:
        """Close connections. A cluster goes on."""
        ...


class RemoteCluster:
    """A cluster at an address."""

    def __init__(self, config: RayConfig) -> None:
        assert config.address is not None, "the model asks for one"
        self._config, self._url = config, config.address
        self._dashboard: Dashboard | None = None

    async def dashboard(self, *, start: bool) -> Dashboard | None:
        """Give the one dashboard there is; once its token was refused, with what the file says now."""
        if self._dashboard is None:
            token = await asyncio.to_thread(self._token)
            if self._dashboard is None:  # others may have come here at the same time
                self._dashboard = Dashboard(Address(self._url, token), self._config.request_timeout)
        elif self._dashboard.is_refused:
            self._dashboard.renew(await asyncio.to_thread(self._token))
        return self._dashboard

    async def close(self) -> None:
        """Close connections."""
        if self._dashboard is not None:
            await self._dashboard.close()

    def _token(self) -> str | None:
        if self._config.token is not None:
            return self._config.token.get_secret_value()
        if self._config.token_file is None:
            return None
        try:
            return Path(self._config.token_file).expanduser().read_text().strip()
        except OSError as error:
            message = f"the token of the cluster cannot be read: {error}"
            raise RuntimeUnavailable(message, hint="see `token_file` of the runtime") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the guardian of a local cluster wrote down."""

    pid: int
    start: str
    state: str
    url: str
    socket: str | None
    marker: str
    temp: str

    @property
    def is_alive(self) -> bool:
        """Whether that guardian, and no later process of the same number, is there."""
        return cluster_main.started_at(self.pid) == self.start


class LocalCluster:
    """A single-node cluster on this machine, started when it is needed and ended by its guardian."""

    def __init__(self, config: RayConfig, state_folder: Path) -> None:
        self._config = config
        self._folder = state_folder.absolute() / FOLDER
        self._known: tuple[Record, Dashboard] | None = None

    async def dashboard(self, *, start: bool) -> Dashboard | None:
        """Give the dashboard of the cluster that runs; with `start`, of a new one if there is none."""
        try:
            if not start:
                record = self.record()
                return await self._of(record) if record is not None else None
            async with self._locked():
                (self._folder / USED).touch()
                record = self.record()
                if record is None:
                    record = await self._started()
            return await self._of(record)
        except OSError as error:
            message = f"the folder of the local Ray cannot be used: {error}"
            raise RuntimeUnavailable(message, hint=f"make room, and make {self._folder} yours and writable") from error

    async def close(self) -> None:
        """Close connections; the cluster goes on."""
        if self._known is not None:
            known, self._known = self._known, None
            await known[1].close()

    def record(self) -> Record | None:
        """Read the record of a cluster that is up."""
        record = self._written()
        return record if record is not None and record.state == "ready" and record.is_alive else None

    async def _of(self, record: Record) -> Dashboard:
        if self._known is None or self._known[0].marker != record.marker:
            await self.close()
            token = (self._folder / TOKEN).read_text().strip()
            address = Address(record.url, token, record.socket)
            self._known = (record, Dashboard(address, self._config.request_timeout))
        return self._known[1]

    async def _started(self) -> Record:
        """Start a cluster, or wait for one whose starter has left."""
        if not self._is_starting():
            await _to_its_end(self._clear)
            if problem := problem_here(self._config):
                raise RuntimeUnavailable(problem, hint="see `flexcore doctor`")
            await _to_its_end(self._spawn)
        until = asyncio.get_running_loop().time() + self._config.cluster_start_timeout + 1
        while asyncio.get_running_loop().time() < until:
            record = self._written()
            if record is not None and record.state == "ready":
                return record
            if record is not None and (record.state == "failed" or not record.is_alive):
                break
            await asyncio.sleep(_LOOK_S)
        raise RuntimeUnavailable(
            f"a local Ray did not start: {self._last_words()}", hint=f"see {self._folder / RAY_LOG}"
        )

    def _is_starting(self) -> bool:
        record = self._written()
        return record is not None and record.state == "starting" and record.is_alive

    def _spawn(self) -> None:
        """Start the guardian, which leaves us as soon as it can be found by its record."""
        self._have_token()
        temp = Path(tempfile.mkdtemp(prefix="fxray-", dir="/tmp"))
        try:
            returned = self._guarded(temp)
            if returned != 0:
                said = (self._folder / "guardian.log").read_text(errors="replace").strip().rpartition("\n")[2]
                raise RuntimeUnavailable(f"a local Ray cannot be started: {said[-300:]}", hint="see `flexcore doctor`")
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise

    def _have_token(self) -> None:
        token = self._folder / TOKEN
        if not (token.exists() and token.read_text().strip()):
            fresh = token.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_text(secrets.token_urlsafe(32))
            fresh.replace(token)

    def _guarded(self, temp: Path) -> int:
        """Begin the guardian, and give the exit code of what began it."""
        interpreter = self._config.interpreter or sys.executable
        box = ("unshare", "-n" if os.geteuid() == 0 else "-rn", "--") if self._config.boxed else ()
        with (self._folder / "guardian.log").open("wb") as log:
            try:
                return subprocess.run(
                    [*box, interpreter, "-I", cluster_main.__file__],
                    input=json.dumps(self._order(temp, interpreter)).encode(),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=temp,
                    start_new_session=True,
                    check=False,
                ).returncode
            except OSError as error:
                message = f"a local Ray cannot be started: {error}"
                raise RuntimeUnavailable(message, hint="see `interpreter` of the runtime") from error

    def _order(self, temp: Path, interpreter: str) -> dict[str, Any]:
        config = self._config
        return {
            "folder": str(self._folder),
            "temp": str(temp),
            "marker": temp.name,
            "interpreter": interpreter,
            "cpus": config.cpus,
            "idle_s": config.idle_timeout,
            "start_timeout": config.cluster_start_timeout,
            "boxed": config.boxed,
            "environment": _environment(interpreter),
        }

    def _clear(self) -> None:
        """Remove what a cluster left whose guardian was killed, or that never came up."""
        record = self._written()
        if record is None:
            (self._folder / RECORD).unlink(missing_ok=True)  # it may be there, and say nothing
            return
        until = time.monotonic() + _KILL_S
        while cluster_main.kill_marked(record.marker) and time.monotonic() < until:
            time.sleep(_LOOK_S)
        if record.is_alive:
            os.kill(record.pid, 9)
        shutil.rmtree(record.temp, ignore_errors=True)
        (self._folder / RECORD).unlink(missing_ok=True)

    def _written(self) -> Record | None:
        try:
            return Record(**json.loads((self._folder / RECORD).read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return None  # the machine went down while it was written: then no cluster is there

    def _last_words(self) -> str:
        try:
            lines = (self._folder / RAY_LOG).read_text(errors="replace").strip().splitlines()
        except FileNotFoundError:
            return "it said nothing"
        return " / ".join(lines[-_LAST_LINES:])

    @asynccontextmanager
    async def _locked(self) -> AsyncGenerator[None, None]:
        """Hold the cluster's lock: whoever starts or ends the cluster has it meanwhile."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        until = asyncio.get_running_loop().time() + self._config.cluster_start_timeout + _KILL_S
        with (self._folder / LOCK).open("a") as file:
            while not _try_lock(file.fileno()):
                if asyncio.get_running_loop().time() > until:
                    message = "another process has been starting the local Ray for too long"
                    raise RuntimeUnavailable(message, hint=f"see which process has {self._folder / LOCK} open")
                await asyncio.sleep(_LOOK_S)
            yield


async def _to_its_end(work: Callable[[], None]) -> None:
    """Do something in a thread. Who is cancelled leaves when it is done: a thread goes on, and needs the lock."""
    done = asyncio.get_running_loop().run_in_executor(None, work)  # no task, which a loop that ends would cancel
    cancelled: asyncio.CancelledError | None = None
    while not done.done():
        try:
            await asyncio.wait({done})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        done.exception()  # nobody waits for it any more
        raise cancelled
    done.result()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _environment(interpreter: str) -> dict[str, str]:
    """Give Ray, and so every job, where programs and homes are: nothing of our settings, keys or proxies."""
    given = {name: os.environ[name] for name in (*_INHERITED, *_CERTIFICATES) if name in os.environ}
    beside = str(Path(interpreter).parent) if os.sep in interpreter else ""
    return {**given, "PATH": os.pathsep.join(filter(None, (beside, given.get("PATH", os.defpath))))}
