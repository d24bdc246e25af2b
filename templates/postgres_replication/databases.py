"""Which databases to use: those given, or the demonstration's as soon as they answer; and how it is told to stop."""

import json
import time
from pathlib import Path

import flexcore

FOLDER = Path(__file__).parent / "output"


@flexcore.task
def urls(name, source, target):
    """Give the URLs of both databases."""
    if bool(source) != bool(target):
        raise ValueError("give both source_url and target_url, or none for the demonstration")
    place = FOLDER / f"{name}.databases"
    deadline = time.monotonic() + 240
    while not source and not place.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the demonstration Postgres did not start; see the logs of the step `postgres`")
        time.sleep(0.05)
    found = {"source": source, "target": target} if source else json.loads(place.read_text())
    if "error" in found:
        raise RuntimeError(f"the demonstration Postgres did not start: {found['error']}")
    return found


@flexcore.task
def stop(name):
    """Tell the demonstration Postgres to stop, once it has started."""
    (FOLDER / f"{name}.databases").unlink(missing_ok=True)
