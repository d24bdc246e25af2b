"""Looks at an installation from outside and says what was lost, doubled or left behind.

It reads the database file (read-only), the target, Meltano's own records, a journal of effects, and /proc. It must
never import the engine, the store or anything else that it judges, and it changes nothing.
"""

import csv
import json
import os
import sqlite3
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_STEP_ENDS = frozenset({"StepReused", "StepSucceeded", "StepFailed", "StepSkipped", "StepCancelled"})
_EXECUTION_ENDS = frozenset({"ExecutionSucceeded", "ExecutionFailed", "ExecutionCancelled"})
_STATUS_OF = {
    "StepReused": "succeeded",
    "StepSucceeded": "succeeded",
    "StepFailed": "failed",
    "StepSkipped": "skipped",
    "StepCancelled": "cancelled",
    "ExecutionSucceeded": "succeeded",
    "ExecutionFailed": "failed",
    "ExecutionCancelled": "cancelled",
}
_FLIGHTS = (
    "select count(*)::bigint, count(distinct flight_id)::bigint, coalesce(sum(distance), 0)::bigint,"
    " coalesce(sum(dep_delay), 0)::bigint from flights"
)
_READ = """
import json, sys
import duckdb
with duckdb.connect(sys.argv[1], read_only=True) as database:
    print(json.dumps(database.execute(sys.argv[2]).fetchone()))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the history, as far as an auditor cares."""

    seq: int
    kind: str
    body: Mapping[str, Any]

    @property
    def path(self) -> str:
        """The step's path; empty for what concerns the execution as a whole."""
        return str(self.body.get("path", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the database file says about one execution."""

    id: str
    status: str
    seq: int
    history: Sequence[Entry]
    steps: Mapping[str, str] = field(default_factory=dict)  # path to status

    def attempts(self, kind: str) -> int:
        """Count the attempts of steps of a kind that were dispatched."""
        return sum(each.kind == "StepDispatched" and each.body.get("kind") == kind for each in self.history)

    @property
    def adoptions(self) -> int:
        """Count how often work that was running was found again."""
        return sum(bool(each.body.get("adopted")) for each in self.history)

    @property
    def failed_attempts(self) -> list[str]:
        """Name the class of each failure after which another attempt was made."""
        retries = (each.body for each in self.history if each.kind == "StepRetryScheduled")
        return [str(body["failure"]["error_class"]) for body in retries]

    def entries(self, kind: str) -> int:
        """Count history entries of a kind."""
        return sum(each.kind == kind for each in self.history)


def executions(database: Path) -> list[Told]:
    """Read every execution there is; none when the store has not been made yet."""
    if not database.exists():
        return []
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'executions'").fetchone():
            return []
        connection.execute("BEGIN")
        rows = connection.execute("SELECT id, status, seq FROM executions ORDER BY id").fetchall()
        return [_told(connection, id, status, seq) for id, status, seq in rows]


def store_problems(found: Sequence[Told]) -> Iterator[str]:
    """Say where a history is not what it must be once everything has ended."""
    for told in found:
        for problem in _history_problems(told):
            yield f"{told.id}: {problem}"


def target_problems(project: Path, target: Path) -> Iterator[str]:
    """Compare the flights in the target with those in the source: none lost, none doubled, the same sums."""
    python = next((project / ".meltano").glob("loaders/target-duckdb/venv/bin/python"), None)
    if python is None or not target.exists():
        yield f"there is no target {target.name}, or no loader to read it with"
        return
    done = subprocess.run(
        [str(python), "-c", _READ, str(target), _FLIGHTS], capture_output=True, text=True, check=False
    )
    if done.returncode:
        yield f"the target cannot be read: {done.stderr.strip()[-300:]}"
        return
    rows, ids, miles, delay = json.loads(done.stdout)
    source = _source(project / "data" / "flights.csv")
    if rows != ids:
        yield f"{rows - ids} flights are in the target more than once"
    if (ids, miles, delay) != source:
        yield f"the target has {(ids, miles, delay)} (flights, miles, minutes), the source {source}"


def meltano_problems(project: Path, attempts: int) -> Iterator[str]:
    """Say whether Meltano's own table shows more, fewer or other runs than the attempts that were dispatched."""
    database = project / ".meltano" / "meltano.db"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        runs = connection.execute("SELECT run_id, state FROM runs").fetchall()
    if len(runs) != attempts:
        yield f"Meltano ran {len(runs)} times for {attempts} attempts"
    yield from (f"Meltano's run {run} was started {n} times" for run, n in Counter(r for r, _ in runs).items() if n > 1)
    yield from (f"Meltano's run {run} is {state}" for run, state in runs if state != "SUCCESS")


def tap_problems(journal: Path, attempts: int) -> Iterator[str]:
    """Read what the tap itself wrote down: one extraction per stream and attempt, whole, and never two at a time."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    spans: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for line in lines:
        spans[line["stream"], line["pid"]][line["what"]] = line["at"]
    for stream, count in Counter(stream for stream, _ in spans).items():
        if count != attempts:
            yield f"stream {stream} was read {count} times for {attempts} attempts"
    yield from (f"process {pid} read {stream} not to the end" for (stream, pid), at in spans.items() if "end" not in at)
    if not lines:
        yield "the tap wrote down nothing"
    for (stream, pid), at in spans.items():
        for (other, another), begun in spans.items():
            if pid < another and stream == other and begun["begin"] < at.get("end", 0) and at["begin"] < begun["end"]:
                yield f"processes {pid} and {another} read {stream} at the same time"


def processes_of(folder: Path) -> dict[int, str]:
    """Find live processes whose working folder, environment or command line names a folder: number and command line.

    This process and those above it do not count.
    """
    name, found = str(folder.resolve()).encode(), {}
    ours = set(_ancestors())
    for each in Path("/proc").iterdir():
        if each.name.isdigit() and int(each.name) not in ours and _names(each, name):
            command = _read(each / "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
            found[int(each.name)] = command
    return found


def _told(connection: sqlite3.Connection, id: str, status: str, seq: int) -> Told:
    history = connection.execute("SELECT seq, kind, body FROM history WHERE execution = ? ORDER BY seq", (id,))
    entries = [Entry(seq=number, kind=kind, body=json.loads(body)) for number, kind, body in history]
    steps = dict(connection.execute("SELECT path, status FROM steps WHERE execution = ?", (id,)).fetchall())
    return Told(id=id, status=status, seq=seq, history=entries, steps=steps)


def _history_problems(told: Told) -> Iterator[str]:
    if [each.seq for each in told.history] != list(range(1, told.seq + 1)):
        yield f"the history has gaps or repeats; it should count from 1 to {told.seq}"
    ends = [each for each in told.history if each.kind in _EXECUTION_ENDS]
    if len(ends) != 1 or told.history[-1] is not ends[0] or _STATUS_OF[ends[0].kind] != told.status:
        yield f"it is {told.status}, and ended {len(ends)} times: {[each.kind for each in ends]}"
    ended: dict[str, str] = {}
    tokens: dict[str, int] = {}
    for each in told.history:
        if each.path and each.path in ended:
            yield f"step {each.path} ended, and then came {each.kind}"
        if each.kind in _STEP_ENDS:
            ended[each.path] = _STATUS_OF[each.kind]
        if each.kind == "StepDispatched":
            if each.body["token"] <= tokens.get(each.path, 0):
                yield f"the token of step {each.path} did not rise with its attempt"
            tokens[each.path] = each.body["token"]
    if ended != told.steps:
        yield f"the steps are {told.steps}; their history says {ended}"


def _source(file: Path) -> tuple[int, int, int]:
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    return len(rows), sum(int(row["distance"]) for row in rows), sum(int(row["dep_delay"] or 0) for row in rows)


def _names(process: Path, name: bytes) -> bool:
    try:
        if (process / "stat").read_bytes().rpartition(b") ")[2][:1] in (b"Z", b"X"):
            return False
        at = bytes((process / "cwd").readlink())
    except OSError:
        return False
    return at == name or at.startswith(name + b"/") or name in _read(process / "environ") + _read(process / "cmdline")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    while pid > 1:
        yield pid
        pid = int(_read(Path(f"/proc/{pid}/stat")).rpartition(b") ")[2].split()[1])
