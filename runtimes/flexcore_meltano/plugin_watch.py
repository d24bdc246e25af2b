"""Watches the plugins below a running Meltano: when each begins and ends, and which one ended before its turn.

Meltano 4.4 alone leaves three things open. A target that is killed while rows flow ends the run, but unnamed; one that
ends early with exit code 0 is reported as success, with rows missing; and a process that a dead plugin left behind
holds the pipes, so that the run goes on for as long as that process likes. A plugin is known by the configuration file
that Meltano gives it. Standard library alone: part of the attempt's program. It never ends a plugin that is in order.
"""

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_TICK_MS = 50
_TREE_EVERY_S = 0.5
_LEFT_S = 3.0  # how long what a dead plugin left behind may go on
_STUCK_S = 5.0  # how long Meltano may go on reading for a consumer that is dead
_KILL_S = 10.0
_GONE_MS = 5_000
_CONFIG = re.compile(r"/run/([^/]+)/[^/]*config\.json$")
_NO_RUN = ("--discover", "--about", "--version", "--test")

EXTRACTORS = "extractors"


@dataclass(slots=True)
class Plugin:
    """One plugin process. Times are seconds since the epoch."""

    name: str
    role: str
    process: int  # a descriptor of the process, never of another one with the same number
    pid: int
    started: float
    ended: float | None = None
    early: bool = False
    below: dict[int, int] = field(default_factory=dict)  # its descendants, as pid to start time

    @property
    def seconds(self) -> float:
        """How long it ran, or runs."""
        return (self.ended or time.time()) - self.started


class PluginWatch:
    """Follows one Meltano to its end. `roles` are the project's plugins by name; `say` reports (event, note, more)."""

    def __init__(
        self, child: "subprocess.Popen[bytes]", roles: Mapping[str, str], say: Callable[[str, str, str], None]
    ) -> None:
        self.plugins: list[Plugin] = []
        self._child = child
        self._roles = roles
        self._say = say
        self._poll = select.poll()
        self._looked = 0.0
        self._stuck: Plugin | None = None
        self._told_to_end = 0.0

    def wait(self) -> int:
        """Wait for Meltano's end, and see to it that its plugins are gone then. Gives Meltano's exit code."""
        meltano = os.pidfd_open(self._child.pid)
        self._poll.register(meltano, select.POLLIN)
        ready: set[int] = set()
        while meltano not in ready:
            ready = {descriptor for descriptor, _ in self._poll.poll(_TICK_MS)}
            self._notice_ends(ready, over=meltano in ready)
            self._find_new()
            self._look_below()
            self._end_what_was_left()
            self._end_stuck_run()
        os.close(meltano)
        code = self._child.wait()
        self._end_orphans()
        return code

    def _notice_ends(self, ready: set[int], *, over: bool) -> None:
        ended = [each for each in self.plugins if each.ended is None and each.process in ready]
        for each in ended:
            each.ended = time.time()
            self._poll.unregister(each.process)
            os.close(each.process)
        for each in ended:
            if not over and self._stuck is None and self._above(each):
                each.early, self._stuck = True, each
                self._say("early", f"{each.name} ended before it had read everything", each.name)

    def _above(self, plugin: Plugin) -> list[Plugin]:
        """The live plugins that a plugin reads from: those that were started before it."""
        before = self.plugins[: self.plugins.index(plugin)]
        return [each for each in before if each.ended is None] if plugin.role != EXTRACTORS else []

    def _find_new(self) -> None:
        known = {each.pid for each in self.plugins if each.ended is None}
        for pid in children(self._child.pid):
            name = plugin_name(pid) if pid not in known else None
            if name is None:
                continue
            try:
                process = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            self._poll.register(process, select.POLLIN)
            self.plugins.append(Plugin(name, self._roles.get(name, ""), process, pid, time.time()))

    def _look_below(self) -> None:
        if time.monotonic() - self._looked < _TREE_EVERY_S:
            return
        self._looked = time.monotonic()
        for each in self.plugins:
            if each.ended is None:
                each.below.update((pid, start) for pid in descendants(each.pid) if (start := start_time(pid)))

    def _end_what_was_left(self) -> None:
        for each in self.plugins:
            if each.below and each.ended is not None and time.time() - each.ended > _LEFT_S:
                left = [pid for pid, start in each.below.items() if start_time(pid) == start]
                each.below.clear()
                if left:
                    _kill(left)
                    each.early = True
                    self._say("early", f"{each.name} died and left {len(left)} processes, which were ended", each.name)

    def _end_stuck_run(self) -> None:
        """A consumer is dead, and Meltano goes on: tell it to end, then end it."""
        stuck = self._stuck
        if stuck is None or stuck.ended is None or time.time() - stuck.ended < _STUCK_S:
            return
        if not self._told_to_end:
            self._told_to_end = time.monotonic()
            self._say("early", f"{stuck.name} is dead, and Meltano does not end: it is told to", stuck.name)
            self._child.terminate()
        elif time.monotonic() - self._told_to_end > _KILL_S:
            self._child.kill()

    def _end_orphans(self) -> None:
        """Meltano is gone: what it did not end would go on writing after the lock is free."""
        for each in self.plugins:
            if each.ended is None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(each.process, signal.SIGKILL)
        until = time.monotonic() + _GONE_MS / 1000
        while (alive := [each for each in self.plugins if each.ended is None]) and time.monotonic() < until:
            ready = {descriptor for descriptor, _ in self._poll.poll(_TICK_MS)}
            self._notice_ends(ready & {each.process for each in alive}, over=True)
        for each in self.plugins:
            _kill(pid for pid, start in each.below.items() if start_time(pid) == start)


def children(pid: int) -> list[int]:
    """Read the children of a process, whichever of its threads started them."""
    found = []
    for task in _listed(f"/proc/{pid}/task"):
        with suppress(OSError):
            found += [int(each) for each in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
    return found


def descendants(pid: int) -> Iterator[int]:
    """Read everything below a process."""
    for child in children(pid):
        yield child
        yield from descendants(child)


def start_time(pid: int) -> int:
    """Read when a process began, in clock ticks; 0 when there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in ("Z", "X") else int(fields[19])


def plugin_name(pid: int) -> str | None:
    """Name the plugin that a process runs, by the configuration file that Meltano made for it; None if it is none."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    if any(each in _NO_RUN for each in arguments):
        return None
    return next((found[1] for each in arguments if (found := _CONFIG.search(each))), None)


def _kill(pids: "Iterator[int] | list[int]") -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (twenty times a second, where a Path for each entry shows)
    except OSError:
        return []
