"""The command of one attempt, run under the shim: install what is missing, take the state's lock, run Meltano.

All of it happens here and not in the control plane, so that a control plane that dies at any moment leaves nothing
half done: whoever adopts the attempt just goes on reading. It reports on stderr, between Meltano's own JSON lines, in
lines that carry a `flexcore` key. The order comes over standard input; secrets are only in the environment.
It must run on the standard library alone (`python -I -S`), and never start Meltano without holding the locks.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from flexcore_meltano.plugin_watch import PluginWatch
from flexcore_meltano.stale_runs import clear_run, is_proven_dead, rows, running_rows

BUSY_LOOK_S = 1.0
HOLDERS_KEPT = 50  # how many former runs a lock file names
MARK = "flexcore"  # the key of our own lines in the log
MARKER = ".flexcore-installed"  # holds the fingerprint of a complete installation
FAILED = 70
STATE_BEFORE, STATE_AFTER = "state_before.json", "state_after.json"


class Ended(Exception):
    """Somebody asked for the end, or the time was over."""


class Attempt:
    """One run, from the order to the exit code."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.work = Path(order["work"])
        self.running = False
        self.locks: list[int] = []
        self.child: subprocess.Popen[bytes] | None = None
        self.timed_out = False

    def run(self) -> int:
        """Do everything in order. The exit code is Meltano's; FAILED when it was never started."""
        signal.signal(signal.SIGTERM, self._terminated)
        signal.signal(signal.SIGALRM, self._time_over)
        self.work.mkdir(mode=0o700, exist_ok=True)
        if not self._install():
            return FAILED
        self._link()
        for state in self.order["states"]:  # sorted, so that no two runs wait for each other
            if not self._within_limit(state, self._lock) or not self._within_limit(state, self._clear_stale):
                return FAILED
        self._remember(STATE_BEFORE)
        code = self._meltano()
        self._remember(STATE_AFTER)
        return code

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        if not self.running:  # else Meltano got the signal too, ends by itself, and the states are still to be read
            raise Ended

    def _time_over(self, number: int, frame: FrameType | None) -> None:
        if self.child is None:
            raise Ended
        self.child.send_signal(signal.SIGKILL if self.timed_out else signal.SIGTERM)
        self.timed_out = True
        signal.setitimer(signal.ITIMER_REAL, self.order["grace_s"] or 0.01)

    def _install(self) -> bool:
        todo = [each for each in self.order["installs"] if missing_plugins(each)]
        if not todo and database_ready(self.order["database"]):
            return True
        names = [plugin["name"] for each in todo for plugin in missing_plugins(each)]
        say("start", f"installing {', '.join(names) or 'the system database'}")
        lock = open_lock(self.order["install_lock"])
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return all(self._install_group(each) for each in todo) and self._migrate()
        finally:
            os.close(lock)

    def _install_group(self, group: dict[str, Any]) -> bool:
        missing = missing_plugins(group)  # again, now with the lock: another run may have done it meanwhile
        if not missing:
            return True
        Path(group["root"]).mkdir(parents=True, exist_ok=True)
        names = [plugin["name"] for plugin in missing]
        half_done = any((Path(plugin["folder"]) / "venv").exists() for plugin in missing)
        for plugin in missing:
            (Path(plugin["folder"]) / MARKER).unlink(missing_ok=True)  # from here on it is not complete
        code = self._call(
            [*self.order["meltano"], "install", *(["--clean"] if half_done else []), *names], group["root"]
        )
        if code == 0:
            for plugin in missing:
                write(Path(plugin["folder"]) / MARKER, marker_text(plugin))
            return True
        say("failed", f"cannot install {', '.join(names)}: exit {code}", failed="install")
        return False

    def _migrate(self) -> bool:
        """Let one process alone make the system database; Meltano's migrations are not safe side by side."""
        if database_ready(self.order["database"]):
            return True
        Path(self.order["database"]).parent.mkdir(parents=True, exist_ok=True)
        code = self._call([*self.order["meltano"], "state", "list"], self.order["system_root"])
        if code:
            say("failed", f"cannot make Meltano's system database: exit {code}", failed="database")
        return code == 0

    def _call(self, command: list[str], system_root: str) -> int:
        environment = {**os.environ, "MELTANO_SYS_DIR_ROOT": system_root}
        return subprocess.call(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=2,
            preexec_fn=die_with_us,
        )

    def _link(self) -> None:
        for link, target in self.order["links"]:
            path = Path(link)
            path.parent.mkdir(parents=True, exist_ok=True)
            Path(target).mkdir(parents=True, exist_ok=True)
            if not path.is_symlink():
                path.symlink_to(target)
        Path(self.order["output"]).mkdir(parents=True, exist_ok=True)

    def _within_limit(self, state: dict[str, Any], wait: Callable[[dict[str, Any]], None]) -> bool:
        """Wait for a state id no longer than the run itself may take: what holds it may be stopped, and never end."""
        signal.setitimer(signal.ITIMER_REAL, self.order["time_limit_s"] or 0)
        try:
            wait(state)
        except Ended:
            say("failed", f"state id {state['id']} was still busy when the time was over", failed="busy")
            return False
        signal.setitimer(signal.ITIMER_REAL, 0)
        return True

    def _lock(self, state: dict[str, Any]) -> None:
        lock = open_lock(state["lock"])
        self.locks.append(lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("queue", f"state id {state['id']} is busy: waiting for the run that holds it")
            fcntl.flock(lock, fcntl.LOCK_EX)

    def _clear_stale(self, state: dict[str, Any]) -> None:
        """With the lock held: clear the rows of runs that were killed, wait for one that lives.

        A row written by a former holder of the lock is dead: whoever holds the lock outlives Meltano. Any other is
        somebody's run by hand, and counts as alive until the contrary is proven.
        """
        lock = self.locks[-1]
        holders = os.pread(lock, 4096, 0).decode().split()
        told = False
        while found := running_rows(self.order["database"], state["id"]):
            dead = [row for row in found if is_proven_dead(row, holders, self.order["database"])]
            for row in dead:
                clear_run(self.order["database"], row)
                say("cleared", f"state id {state['id']}: cleared the row of a run that was killed")
            if len(dead) == len(found):
                break
            if not told:
                say("queue", f"state id {state['id']} is busy: waiting for a run that was started by hand")
                told = True
            time.sleep(BUSY_LOOK_S)
        holders = [*holders[-HOLDERS_KEPT:], self.order["run_id"].replace("-", "")]
        os.ftruncate(lock, 0)
        os.pwrite(lock, " ".join(holders).encode(), 0)

    def _remember(self, name: str) -> None:
        """Keep the bookmarks as they are now, while the lock keeps others from changing them."""
        if self.order["states"]:
            write(
                self.work / name,
                json.dumps({each["id"]: self._read_state(each["id"]) for each in self.order["states"]}),
            )

    def _read_state(self, state_id: str) -> Any:
        if self.order["database"] and not self.order["state_by_cli"]:
            return state_in(self.order["database"], state_id)
        environment = {**os.environ, "MELTANO_SYS_DIR_ROOT": self.order["system_root"]}
        command = [*self.order["meltano"], "state", "get", state_id]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        try:
            return json.loads(done.stdout).get("singer_state")
        except (ValueError, AttributeError):
            return None

    def _meltano(self) -> int:
        environment = {**os.environ, "MELTANO_SYS_DIR_ROOT": self.order["system_root"]}
        say("run", "running")
        signal.setitimer(signal.ITIMER_REAL, self.order["time_limit_s"] or 0)
        self.running = True
        self.child = subprocess.Popen(
            self.order["argv"],
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=self.locks,
            preexec_fn=die_with_us,  # noqa: PLW1509 (there is one thread only)
        )
        watch = PluginWatch(self.child, self.order["roles"], lambda event, note, name: say(event, note, plugin=name))
        code = watch.wait()
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self.timed_out:
            say("failed", "the time was over", failed="timeout")
        elif watch.plugins:
            spans = [
                {"name": each.name, "seconds": round(each.seconds, 3), "ended": each.ended} for each in watch.plugins
            ]
            say("plugins", "plugins ran: " + ", ".join(each.name for each in watch.plugins), spans=spans)
        return code


def missing_plugins(group: dict[str, Any]) -> list[dict[str, str]]:
    """Say which plugins of a group are not there, not complete, or not made from what is wanted now."""
    return [plugin for plugin in group["plugins"] if group["always"] or not installed(plugin)]


def installed(plugin: dict[str, str]) -> bool:
    """Say whether a plugin is there: the marker is written after everything else."""
    folder = Path(plugin["folder"])
    try:
        marker = (folder / MARKER).read_text()
    except OSError:
        return False
    return marker == marker_text(plugin) and (folder / "venv" / "bin" / "python").exists()


def marker_text(plugin: dict[str, str]) -> str:
    """What was installed, and where: virtual environments do not survive being copied or moved."""
    return f"{plugin['fingerprint']} {plugin['folder']}"


def database_ready(database: str | None) -> bool:
    """Say whether the system database has been made. One that is not SQLite is somebody else's to make."""
    if database is None:
        return True
    return bool(rows(database, "select 1 from sqlite_master where name = 'state'"))


def state_in(database: str, state_id: str) -> Any:
    """Read a state id's bookmarks: those of complete runs, and over them those that an incomplete run got to."""
    found = rows(database, "select completed_state, partial_state from state where state_id = ?", state_id)
    if not found:
        return None
    complete, partial = (json.loads(column).get("singer_state") if column else None for column in found[0])
    return merged(complete, partial) if complete and partial else (partial or complete)


def merged(base: Any, over: Any) -> Any:
    """Lay one nested mapping over another."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return {**base, **{key: merged(base[key], value) if key in base else value for key, value in over.items()}}


def open_lock(path: str) -> int:
    """Open a lock file that is never deleted."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def write(path: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def say(phase: str, note: str, **more: Any) -> None:
    """Report to whoever follows the log."""
    level = {"failed": "error", "early": "error", "plugins": "debug"}.get(phase, "info")
    line = {"event": note, "level": level, MARK: {"phase": phase, "at": time.time(), **more}}
    os.write(2, (json.dumps(line) + "\n").encode())


def die_with_us() -> None:
    """In a child before it becomes Meltano: end when this process does, so that none is left without its lock."""
    import ctypes  # here, because only a child needs its 3 ms

    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def leave(code: int) -> NoReturn:
    """End the way Meltano ended, also if that was a signal."""
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    sys.exit(code if code >= 0 else 128 - code)


def main() -> NoReturn:
    """Run the attempt that standard input describes."""
    order = json.loads(sys.stdin.buffer.read())
    try:
        code = Attempt(order).run()
    except Ended:
        code = 128 + signal.SIGTERM
    except OSError as error:
        say("failed", f"what the run needs on the disk cannot be read or written: {error}", failed="disk")
        code = FAILED
    leave(code)


if __name__ == "__main__":
    main()
