"""Processes that the store's suite starts and kills: `python -m flexcore.testing.store_child FOLDER ROLE …`.

`hold N`: own N executions, say so on stdout, wait to be killed. `take SERVER`: wait for a line on stdin, take over,
print what was got, wait to be killed. `campaign N`: N lives one after the other, each forked, each killed while it
commits as fast as it can; prints what was acknowledged.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from flexcore.model.errors import Conflict
from flexcore.store.sqlite import Store, open_store
from flexcore.store.write import ServerId
from flexcore.testing.store_samples import Story, now


def main(folder: str, role: str, argument: str) -> None:
    """Play a role."""
    place = Path(folder)
    match role:
        case "hold":
            asyncio.run(_hold(open_store(place, now=now), int(argument)))
        case "take":
            asyncio.run(_take(open_store(place, now=now), ServerId(argument)))
        case "campaign":
            _say(_campaign(place, int(argument)))
        case _:
            raise SystemExit(f"no such role: {role}")


async def _hold(store: Store, count: int) -> None:
    owner = await store.ownership.acquire()
    stories = [Story() for _ in range(count)]
    await asyncio.gather(*(store.journal.commit(story.begin()) for story in stories))
    _say({"server": owner.server, "executions": [story.id for story in stories]})
    signal.pause()


async def _take(store: Store, server: ServerId) -> None:
    await store.ownership.acquire()
    _say("ready")
    sys.stdin.readline()
    try:
        _say(list(await store.ownership.take_over(server)))
    except Conflict:
        _say([])
    signal.pause()


def _campaign(folder: Path, lives: int) -> dict[str, int]:
    acknowledged: dict[str, int] = {}
    for _ in range(lives):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            asyncio.run(_life(open_store(folder, now=now), writing))
        os.close(writing)
        _kill_at_work(child, reading, acknowledged)
    return acknowledged


def _kill_at_work(child: int, reading: int, acknowledged: dict[str, int]) -> None:
    with os.fdopen(reading, encoding="ascii") as lines:
        first = lines.readline()
        time.sleep(random.uniform(0, 0.03))  # noqa: S311 the moment of death
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for line in [first, *lines]:
            id, _, seq = line.strip().partition(" ")
            if line.endswith("\n"):
                acknowledged[id] = max(acknowledged.get(id, 0), int(seq))


async def _life(store: Store, pipe: int) -> None:
    """Carry on what the dead left, begin something of one's own, and report each acknowledgement at once."""
    await store.ownership.acquire()
    stories = [Story() for _ in range(4)]
    for dead in await store.ownership.dead():
        await store.ownership.take_over(dead)
    async for found in store.journal.open_executions():
        stories.append(Story(found.id, after=found.history[-1].seq))
    await asyncio.gather(*(_commit_forever(store, story, pipe) for story in stories[-8:]))


async def _commit_forever(store: Store, story: Story, pipe: int) -> None:
    if story.seq == 0:
        await store.journal.commit(story.begin())
    while True:
        await store.journal.commit(story.open_scope(f"fan[{story.seq}]"))
        os.write(pipe, f"{story.id} {story.seq}\n".encode())


def _say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
