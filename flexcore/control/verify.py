"""Proves a store's promise offline: the state of every execution is the fold of its history, and nothing is missing."""

from collections.abc import AsyncIterator

from flexcore.engine.fold import fold
from flexcore.model.changes import HistoryEntry
from flexcore.model.errors import FlexCoreError
from flexcore.model.execution import ExecutionState
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import ExecutionQuery
from flexcore.store.read import Fault, Reader


async def verify_executions(reader: Reader, workspace: str = "default") -> tuple[int, list[Fault]]:
    """Fold every history and compare. Gives how many executions were looked at, and what is wrong."""
    looked, found = 0, []
    async for id in _all(reader, workspace):
        looked += 1
        try:
            found += await _compare(reader, id)
        except (FlexCoreError, KeyError, AssertionError) as error:
            found.append(Fault(id, f"its history cannot be folded: {type(error).__name__}: {error}"))
    return looked, found


async def _all(reader: Reader, workspace: str) -> AsyncIterator[ExecutionId]:
    cursor: str | None = None
    while True:
        page = await reader.executions(ExecutionQuery(workspace=workspace, limit=500, cursor=cursor))
        for header in page.items:
            yield header.id
        cursor = page.next
        if cursor is None:
            return


async def _compare(reader: Reader, id: ExecutionId) -> list[Fault]:
    # Read first what may grow: an execution that is running may only be ahead of the history read after it.
    kept = (await reader.execution(id)).state
    history = [entry for entry in await _history(reader, id) if entry.seq <= kept.seq]
    gaps = [entry.seq for index, entry in enumerate(history, start=1) if entry.seq != index]
    if gaps or len(history) != kept.seq:
        return [Fault(id, f"its history has {len(history)} entries where the state counts {kept.seq}")]
    return _differences(id, fold(id, history), kept)


async def _history(reader: Reader, id: ExecutionId) -> list[HistoryEntry]:
    entries: list[HistoryEntry] = []
    while True:
        page = await reader.history(id, entries[-1].seq if entries else 0)
        entries += page.items
        if page.next is None:
            return entries


def _differences(id: ExecutionId, folded: ExecutionState, kept: ExecutionState) -> list[Fault]:
    found = []
    if folded.header != kept.header:
        found.append(Fault(id, "the execution's row is not what its history says"))
    for path in sorted({*folded.steps, *kept.steps}):
        if folded.steps.get(path) != kept.steps.get(path):
            found.append(Fault(id, f"step '{path}' is not what the history says"))
    for scope in sorted({*folded.scopes, *kept.scopes}):
        if folded.scopes.get(scope) != kept.scopes.get(scope):
            found.append(Fault(id, f"the list '{scope}' is not what the history says"))
    return found
