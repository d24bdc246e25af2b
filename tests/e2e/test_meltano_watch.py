"""Plugins that die: the run ends within seconds, the plugin is named with its last words, and nothing is lost quietly.

The tap and the target are scripts of a few lines that do to themselves what is asked in the environment.
"""

import asyncio
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from e2e.meltano_site import MeltanoSite

from flexcore.model.failure import ErrorClass
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import Submitted
from flexcore.runtime.shim import owned_processes

ENOUGH_S = 20.0  # a run is 2 seconds; each of these would go on for 60 and more
PROJECT = """
default_environment: dev
environments: [{name: dev}]
send_anonymous_usage_stats: false
plugins:
  extractors:
  - {name: tap-numbers, namespace: tap_numbers, executable: "SCRIPTS/tap", capabilities: [state]}
  loaders:
  - {name: target-nothing, namespace: target_nothing, executable: "SCRIPTS/target"}
"""
SCRIPT = """#!{python}
import json, os, signal, subprocess, sys, time

def end(when):
    if os.environ.get("TEST_DIES", "") != when:
        return
    print("last words of " + when, file=sys.stderr, flush=True)
    how = os.environ["TEST_HOW"]
    if how == "leaves a child":
        subprocess.Popen(["sleep", "60"])
        time.sleep(1)
    if how == "fails":
        print("hunter2 " + "x" * 9000, file=sys.stderr, flush=True)
        raise RuntimeError("disk of hunter2 is full")
    if how == "exits":
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)

"""
TAP = """
print(json.dumps({"type": "SCHEMA", "stream": "numbers", "schema": {}, "key_properties": []}), flush=True)
for number in range(600 if os.environ.get("TEST_DIES") else 3):
    print(json.dumps({"type": "RECORD", "stream": "numbers", "record": {"number": number}}), flush=True)
    if number == 5:
        end("tap")
    time.sleep(0.1)
"""
TARGET = """
for number, line in enumerate(sys.stdin):
    if number == 5:
        end("target")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> MeltanoSite:
    found = MeltanoSite(tmp_path_factory.mktemp("watch"))
    found.project.mkdir(parents=True)
    (found.project / "meltano.yml").write_text(PROJECT.replace("SCRIPTS", str(found.project)))
    for name, body in (("tap", TAP), ("target", TARGET)):
        script = found.project / name
        script.write_text(SCRIPT.replace("{python}", sys.executable) + body)
        script.chmod(0o755)
    sound = found.request(StepKind.SINGER, tap="tap-numbers", target="target-nothing")
    asyncio.run(found.output(sound))  # makes Meltano's database
    return found


@pytest.mark.parametrize(
    ("dies", "how", "error_class"),
    [
        ("target", "is killed", ErrorClass.LOST),
        ("tap", "is killed", ErrorClass.LOST),
        ("target", "exits", ErrorClass.USER),
        ("target", "leaves a child", ErrorClass.LOST),
        ("tap", "leaves a child", ErrorClass.LOST),
        ("target", "fails", ErrorClass.USER),
    ],
)
async def test_a_plugin_that_dies_ends_the_run_and_is_named(
    site: MeltanoSite, dies: str, how: str, error_class: ErrorClass
) -> None:
    request = site.request(
        StepKind.SINGER, env={"TEST_DIES": dies, "TEST_HOW": how}, tap="tap-numbers", target="target-nothing"
    )
    begun = time.monotonic()

    events = await site.events(replace(request, secrets=("hunter2",)))
    failure = site.failure_in(events)

    assert time.monotonic() - begun < ENOUGH_S
    assert failure.error_class is error_class
    # Meltano itself tells the exit code of a target or not, as the race between the pipe and the process ends
    assert failure.name.startswith({"tap": "tap-numbers ", "target": "target-nothing "}[dies])
    assert f"last words of {dies}" in failure.message or how == "fails"
    assert "hunter2" not in failure.message
    assert len(failure.message) <= 2_100
    assert isinstance(events[0], Submitted)
    assert owned_processes(events[0].handle.name) == set()


async def test_rows_of_dead_runs_are_cleared_and_a_live_run_is_waited_for(site: MeltanoSite) -> None:
    database = site.project / ".meltano" / "meltano.db"
    insert(database, "dead" * 8)  # nobody has the database open, and its last beat was long ago
    alive = subprocess.Popen(
        [sys.executable, "-c", f"f = open({str(database)!r}); print('open', flush=True); import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert alive.stdout is not None
    assert alive.stdin is not None
    alive.stdout.readline()

    waiting = site.runtime.execute(site.request(StepKind.SINGER, tap="tap-numbers", target="target-nothing"))
    async for event in waiting:
        if "waiting for a run that was started by hand" in str(event):
            break
    still = running(database)
    alive.stdin.close()
    alive.wait()
    last = [event async for event in waiting][-1]

    assert still == 1
    assert "Succeeded" in str(last)
    assert running(database) == 0


def insert(database: Path, run: str) -> None:
    long_ago = datetime.fromtimestamp(time.time() - 100, UTC).replace(tzinfo=None).isoformat(" ")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "insert into runs (job_name, run_id, state, started_at, last_heartbeat_at, payload, payload_flags, trigger)"
            " values (?, ?, 'RUNNING', ?, ?, '{}', 0, 'cli')",
            ("dev:tap-numbers-to-target-nothing", run, long_ago, long_ago),
        )


def running(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("select count(*) from runs where state = 'RUNNING'").fetchone()
    return int(found[0])
