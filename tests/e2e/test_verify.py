"""`verify` finds what does not fit the history, and names it."""

import sqlite3
from pathlib import Path

import pytest
from e2e.embedded import plane

from flexcore.bootstrap import verify
from flexcore.settings import load

TEXT = "name: good\nsteps: [{id: a, type: transform, with: {value: 1}}, {id: b, type: transform, with: {value: 2}}]"

DAMAGE = {
    "a step's row": ("UPDATE steps SET body = json_set(body, '$.result.value', 3) WHERE path = 'b'", "step 'b'"),
    "a step that never was": ("DELETE FROM steps WHERE path = 'a'", "step 'a'"),
    "the execution's row": ("UPDATE executions SET body = replace(body, 'good', 'evil')", "execution's row"),
    "the end of the history": ("DELETE FROM history WHERE seq = (SELECT max(seq) FROM history)", "history"),
}


async def test_a_sound_store_has_no_faults(tmp_path: Path) -> None:
    async with plane(tmp_path) as here:
        await here.execute(TEXT)

    assert await verify(load(tmp_path, environ={}).settings) == []


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    async with plane(tmp_path) as here:
        document = await here.execute(TEXT)
    statement, named = DAMAGE[damage]
    with sqlite3.connect(tmp_path / ".flexcore" / "flexcore.db") as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(statement)
    connection.close()

    faults = await verify(load(tmp_path, environ={}).settings)

    assert any(each.execution == document["id"] and named in each.message for each in faults), faults
