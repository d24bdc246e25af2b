"""Where the demonstration's databases are, as soon as they answer; and how it is told to stop."""

import json
import time
from pathlib import Path

import flexcore

FOLDER = Path(__file__).parent / "output"


@flexcore.task
def urls(name):
    """Give the URLs of both databases. They protect nothing: what a step returns stays in the history."""
    place = FOLDER / f"{name}.databases"
    deadline = time.monotonic() + 240
    while not place.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the demonstration Postgres did not start; see the logs of the step `postgres`")
        time.sleep(0.05)
    found = json.loads(place.read_text())
    if "error" in found:
        raise RuntimeError(f"the demonstration Postgres did not start: {found['error']}")
    return found


@flexcore.task
def stop(name):
    """Tell the demonstration Postgres to stop, once it has started."""
    (FOLDER / f"{name}.databases").unlink(missing_ok=True)
