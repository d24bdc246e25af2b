"""Kills the control plane at random moments of the main job, resumes, and lets the auditor judge.

    python -m flexcore.testing.campaign --kills 50 --seed 1 [--folder DIR]

Each round starts from an empty store and an empty target with the plug-ins installed, runs the real job of the
`singer_extraction` template in a real process, and kills that process: its own alone, every second time its whole
group. Then `flexcore workflow resume` is given until it ends with 0; some of these are killed too. The seed decides
the moments; what the machine is doing at a moment it cannot decide.
"""

import argparse
import random
import secrets
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from flexcore.testing import auditor
from flexcore.testing.command import Done, Running, Site, until

WORKFLOW = "singer_extraction"
AGAIN = 0.35  # of the resumes are killed as well
_EARLIER = 0.8
_GONE_WITHIN_S = 10.0
_MOST_RESUMES = 12

# The tap writes down what it does, in a file that nothing but the auditor reads.
_JOURNAL = """

def _journalled(read_records):
    import os, time

    def write(stream, what):
        line = json.dumps({"what": what, "stream": stream.name, "pid": os.getpid(), "at": time.time()}) + "\\n"
        journal = os.open("effects.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(journal, line.encode())
        os.close(journal)

    def get_records(self, context):
        write(self, "begin")
        yield from read_records(self, context)
        write(self, "end")

    return get_records


FileStream.get_records = _journalled(FileStream.get_records)
"""


@dataclass(slots=True)
class Round:
    """One run of the job, with everything that was done to it."""

    number: int
    planned_s: float
    group: bool
    hit: str = "not hit"
    kills: int = 0
    adoptions: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        whom = "group" if self.group else "process"
        verdict = "; ".join(self.problems) or "ok"
        return (
            f"{self.number:3d}  {self.planned_s:5.2f} s  {whom:7}  {self.kills} kills  {self.adoptions} adoptions  "
            f"{self.seconds:5.1f} s  {self.hit:24}  {verdict}"
        )


class Ground:
    """The folder in which the job is run again and again: installed once, reset for each round."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder)
        self.project = folder / WORKFLOW / "meltano"
        self.usual_s = 0.0

    def prepare(self) -> None:
        """Take the template, teach its tap to keep a journal, install, and measure how long the job usually takes."""
        self.site.folder.mkdir(parents=True, exist_ok=True)
        if not self.project.exists():
            _must(self.site.run("template", "use", WORKFLOW))
        tap = self.project / "plugins" / "tap-flights" / "tap_flights" / "tap.py"
        if _JOURNAL not in (text := tap.read_text()):
            tap.write_text(text + _JOURNAL)
        _must(self.site.run("workflow", "execute", WORKFLOW, timeout_s=300))
        self.reset()
        begun = time.monotonic()
        _must(self.site.run("workflow", "execute", WORKFLOW))
        self.usual_s = time.monotonic() - begun
        if found := list(self.problems()):
            raise SystemExit(f"already the run without any kill is wrong: {found}")

    def reset(self) -> None:
        """Forget every run: the store, the target, the journal, Meltano's runs and bookmarks."""
        shutil.rmtree(self.site.folder / ".flexcore", ignore_errors=True)
        shutil.rmtree(self.site.folder / WORKFLOW / "output", ignore_errors=True)
        (self.project / "effects.jsonl").unlink(missing_ok=True)
        with closing(sqlite3.connect(self.project / ".meltano" / "meltano.db", timeout=10)) as connection, connection:
            connection.execute("DELETE FROM runs")
            connection.execute("DELETE FROM state")

    def problems(self) -> Iterator[str]:
        """Let the auditor look at everything, once all has ended."""
        found = auditor.executions(self.site.database)
        yield from auditor.store_problems(found)
        if [told.status for told in found] != ["succeeded"]:
            yield f"expected one execution that succeeded, found {[(told.id, told.status) for told in found]}"
        if retried := [told.id for told in found if told.entries("StepDispatched") != len(set(_dispatched(told)))]:
            yield f"a step had more than one attempt in {retried}"
        attempts = sum(told.attempts("singer") for told in found)
        yield from auditor.meltano_problems(self.project, attempts)
        yield from auditor.tap_problems(self.project / "effects.jsonl", attempts)
        target = self.site.folder / WORKFLOW / "output" / "flights.duckdb"
        yield from auditor.target_problems(self.project, target)
        verified = self.site.run("verify")
        if verified.code:
            yield f"verify: {verified.out.strip()}"
        with suppress(AssertionError):
            until(lambda: not auditor.processes_of(self.site.folder), "nothing is left", _GONE_WITHIN_S)
        yield from (f"left behind: {pid} {what}" for pid, what in auditor.processes_of(self.site.folder).items())


def run_round(ground: Ground, each: Round, chance: random.Random, again: float = AGAIN) -> None:
    """Run the job once, kill it as planned, resume until it is done, and judge."""
    ground.reset()
    begun = time.monotonic()
    done = _hit(ground, each, ground.site.start("workflow", "execute", WORKFLOW, name="execute"), each.planned_s)
    for _ in range(_MOST_RESUMES):
        if done is not None:
            break
        command = "resume" if auditor.executions(ground.site.database) else "execute"
        arguments = ["workflow", command, *([WORKFLOW] if command == "execute" else [])]
        running = ground.site.start(*arguments, name=command)
        if chance.random() < again:
            done = _hit(ground, each, running, chance.uniform(0.0, ground.usual_s))
        else:
            done = running.ended()
    if done is None:
        each.problems.append(f"not finished after {_MOST_RESUMES} resumes")
    elif done.code:
        each.problems.append(f"exit {done.code}: {done.err.strip()[-500:]}")
    each.seconds = time.monotonic() - begun
    each.problems += ground.problems()
    each.adoptions = sum(told.adoptions for told in auditor.executions(ground.site.database))


def plan(kills: int, usual_s: float, chance: random.Random) -> list[Round]:
    """Spread the moments over the whole job, each at random within its share, in a random order."""
    shares = list(range(kills))
    chance.shuffle(shares)
    moments = [(share + chance.random()) / kills * usual_s for share in shares]
    return [Round(number, moment, group=number % 2 == 0) for number, moment in enumerate(moments, start=1)]


def campaign(ground: Ground, kills: int, seed: int) -> Iterator[Round]:
    """Do it so many times."""
    chance = random.Random(seed)  # noqa: S311 (moments, not secrets)
    for each in plan(kills, ground.usual_s, chance):
        yield killed(ground, each, chance)


def killed(ground: Ground, planned: Round, chance: random.Random, again: float = AGAIN) -> Round:
    """Run a round as planned, and anew with an earlier moment when the job was faster than the kill."""
    each = planned
    run_round(ground, each, chance, again)
    while not (each.kills or each.problems):
        each = Round(planned.number, each.planned_s * _EARLIER, planned.group)
        run_round(ground, each, chance, again)
    return each


def _hit(ground: Ground, each: Round, running: Running, after_s: float) -> Done | None:
    """Kill a command after some time; if it was faster, give how it ended."""
    deadline = time.monotonic() + after_s
    while running.process.poll() is None and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, 0.01))
    if not running.kill(group=each.group):
        return running.ended()
    each.kills += 1
    if each.kills == 1:
        each.hit = _where(auditor.executions(ground.site.database))
    return None


def _where(found: Sequence[auditor.Told]) -> str:
    if not found:
        return "before acknowledgement"
    last = found[-1].history[-1]
    return f"{last.kind} {last.path}".strip()


def _dispatched(told: auditor.Told) -> list[str]:
    return [each.path for each in told.history if each.kind == "StepDispatched"]


def _must(done: Done) -> None:
    if done.code:
        raise SystemExit(f"the preparation failed with exit {done.code}: {done.err[-2000:]}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run a campaign; the exit code says whether it was clean."""
    parser = argparse.ArgumentParser(prog="flexcore.testing.campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="a campaign prints its own")
    parser.add_argument("--folder", type=Path, default=None, help="kept, and used again without installing")
    given = parser.parse_args()
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    with tempfile.TemporaryDirectory(prefix="flexcore-campaign-") as temporary:
        ground = Ground((given.folder or Path(temporary) / "site").absolute())
        ground.prepare()
        _say(f"seed {seed}; the job takes {ground.usual_s:.1f} s undisturbed")
        rounds = []
        for each in campaign(ground, given.kills, seed):
            rounds.append(each)
            _say(str(each))
        faulty = [each.number for each in rounds if each.problems]
        _say(f"\n{len(rounds)} rounds, {sum(each.kills for each in rounds)} kills, {len(faulty)} faulty {faulty or ''}")
        for where, count in sorted(Counter(each.hit for each in rounds).items()):
            _say(f"  {count:3d}  first killed after {where}")
        return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
