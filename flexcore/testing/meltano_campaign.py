"""Kills a Meltano run itself at random moments: Meltano, its whole group, the tap alone, the target alone.

    python -m flexcore.testing.meltano_campaign --kills 40 --seed 1 [--folder DIR]

Each round runs the real job of the `singer_extraction` template from nothing, into a target that replaces rows by
their key, and sends SIGKILL below the control plane. What is documented must follow: the attempt is lost, the engine
runs another one by itself, and the command ends with 0. The auditor then compares target, bookmarks and Meltano's own
table with the source, in every third round runs the job once more (nothing new, nothing doubled), and looks for what
still runs.
"""

import argparse
import json
import os
import random
import secrets
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from flexcore.testing import auditor
from flexcore.testing.campaign import WORKFLOW, Ground
from flexcore.testing.command import Running, until

_TAP, _TARGET = "/bin/tap-flights", "/bin/target-duckdb"
_MELTANO = "/bin/meltano"
_EARLIER = 0.8
_LAST_FLIGHT = 27_004
_AGAIN_EVERY = 3  # rounds: by no victim's number, so that it comes to all of them


class Victim(StrEnum):
    """Who is killed. GROUP is Meltano with tap, target and the program that started it, all but the shim."""

    MELTANO = "meltano"
    GROUP = "group"
    TAP = "tap"
    TARGET = "target"


@dataclass(slots=True)
class Round:
    """One run of the job, and what was done to it. The moment counts from the first look at the victim."""

    number: int
    victim: Victim
    after_s: float
    was_hit: bool = False
    bookmark: int | None = None  # the last flight that Meltano had noted when the kill came
    attempts: int = 0
    classes: list[str] = field(default_factory=list)  # how the attempts failed
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.number:3d}  {self.victim:7}  {self.after_s:5.2f} s  bookmark {self.bookmark or '-':>6}  "
            f"{self.attempts} attempts  {','.join(self.classes) or '-':10}  {self.seconds:5.1f} s  "
            f"{'; '.join(self.problems) or 'ok'}"
        )


def plan(kills: int, usual_s: float, chance: random.Random) -> list[Round]:
    """Spread the moments over the whole run, each victim over all of it."""
    victims = list(Victim)
    shares = max(1, -(-kills // len(victims)))
    rounds = []
    for number in range(kills):
        moment = (number // len(victims) + chance.random()) / shares * usual_s
        rounds.append(Round(number + 1, victims[number % len(victims)], moment))
    chance.shuffle(rounds)
    return rounds


def killed(ground: Ground, planned: Round) -> Round:
    """Do a round as planned, and anew with an earlier moment when the victim was faster than the kill."""
    each = planned
    _run_round(ground, each)
    while not (each.was_hit or each.problems):
        each = Round(planned.number, planned.victim, each.after_s * _EARLIER)
        _run_round(ground, each)
    return each


def usual_seconds(ground: Ground) -> float:
    """Measure how long the tap and the target live undisturbed."""
    ground.reset()
    running = ground.site.start("workflow", "execute", WORKFLOW)
    until(lambda: _victims(ground, Victim.TAP), "the tap runs")
    begun = time.monotonic()
    until(lambda: not _victims(ground, Victim.TARGET), "the target is done")
    running.ended()
    return time.monotonic() - begun


def _run_round(ground: Ground, each: Round) -> None:
    ground.reset()
    begun = time.monotonic()
    running = ground.site.start("workflow", "execute", WORKFLOW, name="execute")
    _hit(ground, each, running)
    done = running.ended()
    each.seconds = time.monotonic() - begun
    found = auditor.executions(ground.site.database)
    each.attempts = sum(told.attempts("singer") for told in found)
    each.classes = [name for told in found for name in told.failed_attempts]
    if done.code:
        each.problems.append(f"exit {done.code}: {done.err.strip()[-500:]}")
    each.problems += _problems(ground, each)


def _hit(ground: Ground, each: Round, running: Running) -> None:
    until(lambda: running.process.poll() is not None or _victims(ground, each.victim), "the victim runs")
    deadline = time.monotonic() + each.after_s
    while running.process.poll() is None and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, 0.01))
    victims = _victims(ground, each.victim)
    each.bookmark = _bookmark(ground)
    for pid in victims:
        try:
            os.killpg(os.getpgid(pid), signal.SIGKILL) if each.victim is Victim.GROUP else os.kill(pid, signal.SIGKILL)
            each.was_hit = True
        except ProcessLookupError:
            continue


def _victims(ground: Ground, victim: Victim) -> list[int]:
    """Find the processes to kill: the tap only while it reads, not while it is asked what it could read."""
    commands = auditor.processes_of(ground.site.folder)
    wanted = {Victim.TAP: _TAP, Victim.TARGET: _TARGET}.get(victim, _MELTANO)
    return [
        pid
        for pid, command in commands.items()
        if f"{wanted} " in command and "--discover" not in command and (wanted != _MELTANO or " run " in command)
    ]


def _bookmark(ground: Ground) -> int | None:
    """Read the last flight that Meltano has noted, in whichever of its two columns."""
    with closing(sqlite3.connect(ground.project / ".meltano" / "meltano.db", timeout=10)) as connection:
        found = connection.execute("SELECT completed_state, partial_state FROM state").fetchall()
    values = [
        bookmark["replication_key_value"]
        for row in found
        for column in row
        if column
        for name, bookmark in json.loads(column).get("singer_state", {}).get("bookmarks", {}).items()
        if name == "flights" and "replication_key_value" in bookmark
    ]
    return max(values, default=None)


def _problems(ground: Ground, each: Round) -> Iterator[str]:
    found = auditor.executions(ground.site.database)
    yield from auditor.store_problems(found)
    if [told.status for told in found] != ["succeeded"]:
        yield f"expected one execution that succeeded, found {[(told.id, told.status) for told in found]}"
    if each.was_hit and each.attempts != 1 + len(each.classes):
        yield f"{each.attempts} attempts, of which {len(each.classes)} failed"
    if set(each.classes) - {"lost"}:
        yield f"a killed run is lost work, not {each.classes}"
    yield from _everything_is_there(ground)
    if each.number % _AGAIN_EVERY == 0:
        again = ground.site.run("workflow", "execute", WORKFLOW)
        if again.code:
            yield f"the run after it: exit {again.code}: {again.err.strip()[-300:]}"
        yield from _everything_is_there(ground)
    yield from (f"left behind: {pid} {what}" for pid, what in auditor.processes_of(ground.site.folder).items())


def _everything_is_there(ground: Ground) -> Iterator[str]:
    target = ground.site.folder / WORKFLOW / "output" / "flights.duckdb"
    yield from auditor.target_problems(ground.project, target)
    if (bookmark := _bookmark(ground)) != _LAST_FLIGHT:
        yield f"the bookmark is at flight {bookmark}, the last one is {_LAST_FLIGHT}"
    with closing(sqlite3.connect(ground.project / ".meltano" / "meltano.db", timeout=10)) as connection:
        states = Counter(state for (state,) in connection.execute("SELECT state FROM runs"))
    if states["RUNNING"]:
        yield f"{states['RUNNING']} of Meltano's runs are said to be running still"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run a campaign; the exit code says whether it was clean."""
    parser = argparse.ArgumentParser(prog="flexcore.testing.meltano_campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=None, help="a campaign prints its own")
    parser.add_argument("--folder", type=Path, default=None, help="kept, and used again without installing")
    given = parser.parse_args()
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    with tempfile.TemporaryDirectory(prefix="flexcore-meltano-") as temporary:
        ground = Ground((given.folder or Path(temporary) / "site").absolute())
        ground.prepare()
        usual_s = usual_seconds(ground)
        _say(f"seed {seed}; tap and target live {usual_s:.1f} s undisturbed")
        rounds = []
        for planned in plan(given.kills, usual_s, random.Random(seed)):  # noqa: S311 (moments, not secrets)
            rounds.append(killed(ground, planned))
            _say(str(rounds[-1]))
    faulty = [each.number for each in rounds if each.problems]
    _say(f"\n{len(rounds)} rounds, {len(faulty)} faulty {faulty or ''}")
    for victim, count in sorted(Counter(each.victim for each in rounds).items()):
        _say(f"  {count:3d}  {victim}")
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
