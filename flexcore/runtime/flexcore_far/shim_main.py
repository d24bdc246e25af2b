"""The shim: the one parent that a locally run command keeps when the control plane dies.

One per attempt, started as `python -I -S shim_main.py` in a session of its own, fed with its order over standard
input (it may hold secrets: never on disk, never in argv). It takes the attempt's lock, records itself, becomes the
reaper of everything below it, runs the command once, keeps the output within a cap, ends the whole tree, and writes
the status atomically. It must never import anything heavy (every attempt pays for it), never run a second command in
a folder, and never exit while a process of its tree is alive.

Private modules are on purpose: `signal` and `ctypes` cost 5 and 3 ms, `_signal` and `_ctypes` nothing.
"""

import fcntl
import marshal
import os
import select
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from typing import Any, NoReturn
else:
    import _signal as signal

LOCK, RECORD, STATUS, CANCEL, CRASH = "lock", "record", "status", "cancel", "crash"
STREAMS = ("stdout", "stderr")
VERSION = 1
ALREADY_RUN = 75  # another shim has, or had, this folder

_CHUNK = 1 << 16
_TAIL = 1 << 16  # of what came above the cap, the last bytes are kept
_LOOK_S = 0.1  # how often the tree's memory is looked at, when there is a limit
_LEFTOVER_GRACE_S = 1.0  # what outlives the command is told, then ended
_RETRY_S = (0.05, 1.0)  # between tries to write the status: at first, and at most
_SCRIPT_FD = 3
# What Python, this shim, and a shell that starts things in the background (QUIT too) have changed.
_DEFAULT_AGAIN = (
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def process_stat(pid: int) -> "tuple[str, int, int, int] | None":
    """Read a process's state letter, parent, session and start time (clock ticks since boot); None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 (pathlib is too slow to import here)
            raw = file.read()
    except OSError:
        return None
    fields = raw[raw.rindex(b")") + 2 :].split()
    return fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19])


def processes() -> "dict[int, tuple[str, int, int, int]]":
    """Read every process there is."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 (as above)
        stat = process_stat(int(name)) if name.isdigit() else None
        if stat is not None:
            found[int(name)] = stat
    return found


def descendants(roots: "set[int]", table: "dict[int, tuple[str, int, int, int]]") -> "set[int]":
    """Find all processes below the roots, without the roots."""
    children: dict[int, list[int]] = {}
    for pid, stat in table.items():
        children.setdefault(stat[1], []).append(pid)
    below: set[int] = set()
    todo = list(roots)
    while todo:
        new = [pid for pid in children.get(todo.pop(), ()) if pid not in below]
        below.update(new)
        todo.extend(new)
    return below - roots


def write_atomically(name: str, text: str, *, durable: bool) -> None:
    """Replace a file of the working folder as a whole."""
    fd = os.open(f"{name}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        rest = text.encode()
        while rest:
            rest = rest[os.write(fd, rest) :]  # a disk that is nearly full takes a part
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(f"{name}.new", name)  # noqa: PTH104 (as above)


class Stream:
    """One output of the command: a pipe in, a file out, with the head and the tail kept above the cap."""

    def __init__(self, name: str, cap: int) -> None:
        self.source, self.write_end = high_pipe()
        os.set_blocking(self.source, False)
        self.file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self.room = cap
        self.dropped = 0
        self.tail = b""

    def pump(self) -> bool:
        """Move what is there; False at the end of the stream. Slow disks slow the command down, memory stays flat."""
        try:
            data = os.read(self.source, _CHUNK)
        except BlockingIOError:
            return True
        kept = self._store(data[: self.room])
        self.room -= kept
        if kept < len(data):
            self.dropped += len(data) - kept
            self.tail = (self.tail + data[kept:])[-_TAIL:]
        return bool(data)

    def close(self) -> None:
        """Take what is still in the pipe, then add the mark and the tail if bytes were dropped."""
        while select.select([self.source], [], [], 0)[0] and self.pump():
            pass
        if self.dropped:
            self.dropped -= len(self.tail)
            mark = f"\n[flexcore: {self.dropped} bytes of output left out here]\n" if self.dropped else ""
            self._store(mark.encode() + self.tail)

    def _store(self, data: bytes) -> int:
        done = 0
        try:
            while done < len(data):
                done += os.write(self.file, data[done:])
        except OSError:
            self.room = done  # a full disk is a cap that came early
        return done


class Shim:
    """The running command and what shall become of it."""

    def __init__(self, order: "dict[str, Any]", streams: "Sequence[Stream]") -> None:
        self.order = order
        self.streams = streams
        self.started = time.time()
        now = time.monotonic()
        self.preparing: bool = order.get("prepares", False)
        limit = order["prepare_limit"] if self.preparing else order["time_limit"]
        self.deadline: float | None = None if limit is None else now + limit
        self.kill_at: float | None = None
        self.next_look: float | None = now if order["memory_limit"] and not self.preparing else None
        self.reason = ""
        self.wait_status: int | None = None
        self.childless = False
        self.cpu = 0.0
        self.peak = 0
        self.pid = 0

    def launch(self) -> "tuple[str, int] | None":
        """Start the command; None, or what failed and the errno."""
        stdin, script = _memory_file(self.order["stdin"]), _memory_file(self.order["script"])
        outputs = [stream.write_end for stream in self.streams]
        report, report_end = high_pipe()
        own = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _become_command(self.order, own, [stdin, *outputs], script, report_end)
        for fd in (stdin, script, *outputs, report_end):
            os.close(fd)
        told = os.read(report, 100).decode()
        os.close(report)
        what, _, number = told.partition(" ")
        return (what, int(number)) if told else None

    def supervise(self, wake: int) -> None:
        """Until the command and everything it started are gone."""
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        for stream in self.streams:
            poller.register(stream.source, select.POLLIN)
        while self.wait_status is None or not self.childless:
            for fd, _ in poller.poll(self._patience_ms()):
                if fd == wake:
                    self._signalled(os.read(wake, 512))
                elif not next(stream for stream in self.streams if stream.source == fd).pump():
                    poller.unregister(fd)
            self.reap()
            self._advance(time.monotonic())
        for stream in self.streams:
            stream.close()

    def _patience_ms(self) -> int:
        due = [at for at in (self.deadline, self.kill_at, self.next_look) if at is not None]
        return max(0, int((min(due) - time.monotonic()) * 1000) + 1) if due else 600_000

    def _signalled(self, signals: bytes) -> None:
        if signal.SIGUSR1 in signals and self.preparing:
            self._begin(time.monotonic())
        if signal.SIGTERM in signals:
            self._end("cancelled", self._cancel_grace())

    def _begin(self, now: float) -> None:
        """The command has prepared itself: what it does from now on is the step's own, and so are the limits."""
        self.preparing = False
        if self.kill_at is None:
            limit = self.order["time_limit"]
            self.deadline = None if limit is None else now + limit
            self.next_look = now if self.order["memory_limit"] else None

    def _cancel_grace(self) -> float:
        try:
            with open(CANCEL) as file:  # noqa: PTH123 (as above)
                return float(file.read())
        except (OSError, ValueError):
            return float(self.order["grace"])  # somebody else sent the signal, such as a machine that shuts down

    def reap(self) -> None:
        """Collect what has ended: the command, and what others left to us."""
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self.childless = True
                return
            if pid == 0:
                return
            self.cpu += used.ru_utime + used.ru_stime
            self.peak = max(self.peak, used.ru_maxrss * 1024)
            if pid == self.pid:
                self.wait_status = status

    def _advance(self, now: float) -> None:
        if self.childless:
            return
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            self._end("timeout", self.order["grace"])
        if self.next_look is not None and now >= self.next_look:
            self.next_look = now + _LOOK_S
            self._watch_memory()
        if self.wait_status is not None and self.kill_at is None:
            self._end(self.reason, min(self.order["grace"], _LEFTOVER_GRACE_S))
        if self.kill_at is not None and now >= self.kill_at:
            self.kill_at = now + 0.02
            self._signal_tree(signal.SIGKILL)

    def _end(self, reason: str, grace: float) -> None:
        """Tell the tree, and kill it `grace` seconds from now; a second call can only make it sooner."""
        at = time.monotonic() + grace
        if self.kill_at is None:
            self.reason = reason
            self._signal_tree(signal.SIGTERM)
            self._signal_tree(signal.SIGCONT)
        self.kill_at = at if self.kill_at is None else min(at, self.kill_at)

    def _signal_tree(self, number: int) -> None:
        """Parents first: whoever puts its things in order should not learn of the end by the death of a child."""
        table = processes()
        for pid in sorted(descendants({os.getpid()}, table), key=lambda pid: (table[pid][3], pid)):
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue

    def _watch_memory(self) -> None:
        total = 0
        for pid in descendants({os.getpid()}, processes()):
            try:
                with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123 (as above)
                    total += int(file.read().split()[1]) * 4096
            except (OSError, IndexError):
                continue
        self.peak = max(self.peak, total)
        if total > self.order["memory_limit"] and self.reason != "oom":
            self._end("oom", 0.0)
            self.reason = "oom"


def high_pipe() -> "tuple[int, int]":
    """Make a pipe whose ends are out of the way of the numbers that the command gets."""
    low = os.pipe()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in low]
    for fd in low:
        os.close(fd)
    return high[0], high[1]


def _memory_file(content: bytes) -> int:
    low = os.memfd_create("flexcore") if hasattr(os, "memfd_create") else _nameless_file()
    done = 0
    while done < len(content):
        done += os.write(low, content[done:])
    os.lseek(low, 0, os.SEEK_SET)
    high = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(low)
    return high


def _nameless_file() -> int:
    """Stand in where Python was built against an old C library: a file of this folder that never keeps its name."""
    low = os.open(".nameless", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(".nameless")  # noqa: PTH108 (pathlib is too slow to import here)
    return low


def _prctl(option: int, argument: int) -> bool:
    try:
        import _ctypes

        address = _ctypes.dlsym(_ctypes.dlopen(None, os.RTLD_NOW), "prctl")  # type: ignore[arg-type]  # None: this process
        return bool(_ctypes.call_function(address, (option, argument, 0, 0, 0)) == 0)
    except (ImportError, AttributeError, OSError):
        return False


def become_reaper() -> bool:
    """Take in every process below this one whose parent ends; False where that cannot be had."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _become_command(
    order: "dict[str, Any]", shim: int, standard: "Sequence[int]", script: int, report: int
) -> "NoReturn":
    """In the child: own session, dies with the shim, clean signals, the three streams; then the command itself."""
    doing = "start"
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != shim:
            os._exit(127)  # it died before the signal was asked for
        signal.set_wakeup_fd(-1)
        for number in _DEFAULT_AGAIN:
            signal.signal(number, signal.SIG_DFL)
        for target, fd in enumerate(standard):
            os.dup2(fd, target)
        if order["script"]:
            os.dup2(script, _SCRIPT_FD)
        doing = "folder"
        os.chdir(order["cwd"])
        doing = "command"
        os.execvpe(order["argv"][0], order["argv"], order["env"])  # noqa: S606 (running a command is the purpose)
    except (OSError, ValueError) as error:
        reason = getattr(error, "errno", None) or 22  # a NUL in the environment or the like: invalid argument
        os.write(report, f"{doing} {reason}".encode())
    finally:
        os._exit(127)


def _take_lock() -> bool:
    """Take the folder for ever, or see that somebody has it. Whoever only looks holds the lock for an instant."""
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(400):
        if os.path.exists(RECORD):  # noqa: PTH110 (as above)
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.005)
            continue
        there = os.stat(LOCK).st_ino if os.path.exists(LOCK) else None  # noqa: PTH110, PTH116 (as above)
        return there == os.fstat(lock).st_ino and not os.path.exists(RECORD)  # noqa: PTH110 (as above)
    return False


def _record(order: "dict[str, Any]", command: int) -> None:
    own, its = process_stat(os.getpid()), process_stat(command) if command else None
    text = (
        f'{{"version": {VERSION}, "pid": {os.getpid()}, "start": {own[3] if own else 0}, "command": {command}, '
        f'"command_start": {its[3] if its else 0}, "notes": {order["notes"]}}}'
    )
    write_atomically(RECORD, text, durable=False)


def status_text(shim: Shim, problem: "tuple[str, int] | None", dropped: str = "") -> str:
    """Write down how a command ended, as JSON. `problem` is what could not be started and the errno."""
    status = shim.wait_status if shim.wait_status is not None else 127 << 8
    killed = os.WIFSIGNALED(status)
    what, number = problem or ("", 0)
    return (
        f'{{"version": {VERSION}, "exit_code": {"null" if killed else os.WEXITSTATUS(status)}, '
        f'"signal": {os.WTERMSIG(status) if killed else "null"}, "reason": "{shim.reason}", '
        f'"problem": "{what}", "errno": {number}, "started": {shim.started:.6f}, "finished": {time.time():.6f}, '
        f'"cpu_s": {shim.cpu:.6f}, "peak_bytes": {shim.peak}, "dropped": {{{dropped}}}}}'
    )


def _write_status(shim: Shim, problem: "tuple[str, int] | None") -> None:
    dropped = ", ".join(f'"{name}": {stream.dropped}' for name, stream in zip(STREAMS, shim.streams, strict=True))
    write_atomically(STATUS, status_text(shim, problem, dropped), durable=True)


def _insist_on_status(shim: Shim, problem: "tuple[str, int] | None", wake: int) -> None:
    """Write the status, however long the disk stays full: nobody else knows how the command ended.

    Meanwhile the lock is held and the attempt looks as if it ran. Only a folder that is gone ends the trying.
    """
    patience = _RETRY_S[0]
    while os.stat(".").st_nlink:  # noqa: PTH116 (pathlib is too slow to import here)
        try:
            _write_status(shim, problem)
            return
        except FileNotFoundError:
            return  # the folder was removed between the two calls
        except OSError:
            if select.select([wake], [], [], patience)[0]:
                os.read(wake, 512)
            shim.reap()
            patience = min(patience * 2, _RETRY_S[1])


def _tell_parent() -> None:
    try:
        os.write(1, b"1")
    except OSError:
        return  # it is dead already; whoever comes later reads the record


def own_signals() -> int:
    """Turn signals into bytes on a pipe, and outlive what ends a terminal's processes."""
    wake, wake_end = high_pipe()
    os.set_blocking(wake_end, False)
    signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: None)
    return wake


def _read_order() -> "dict[str, Any]":
    parts = []
    while part := os.read(0, 1 << 20):
        parts.append(part)
    order: dict[str, Any] = marshal.loads(b"".join(parts))  # noqa: S302 (from our parent's pipe; json costs 6 ms)
    return order


def main() -> int:
    """Run one attempt. One byte on standard output tells the parent that the record is there."""
    os.closerange(3, 1 << 20)
    wake = own_signals()
    order = _read_order()
    os.chdir(order["folder"])
    if not _take_lock():
        return ALREADY_RUN
    crash = os.open(CRASH, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(crash, 2)
    become_reaper()
    _record(order, 0)
    shim = Shim(order, [Stream(name, order["max_output"]) for name in STREAMS])
    problem = shim.launch()
    _record(order, shim.pid)
    _tell_parent()
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    shim.supervise(wake)
    _insist_on_status(shim, problem, wake)
    return 0


if __name__ == "__main__":
    sys.exit(main())
