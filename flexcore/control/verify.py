"""Proves a store's promise offline: the state of every execution is the fold of its history, and nothing is missing."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from flexcore.engine.fold import fold
from flexcore.model.changes import HistoryEntry
from flexcore.model.errors import FlexCoreError
from flexcore.model.execution import ExecutionState
from flexcore.model.ids import ExecutionId
from flexcore.model.pools import WHOLE
from flexcore.model.values import Payload, Ref
from flexcore.runtime.plugin import ArtifactStore
from flexcore.store.read import Fault, Reader


async def verify_executions(reader: Reader, artifacts: ArtifactStore | None = None) -> tuple[int, list[Fault]]:
    """Fold the history of every execution of every workspace and compare; with `artifacts`, read what they refer to.

    Gives how many executions were looked at, and what is wrong.
    """
    looked, found = 0, list[Fault]()
    references = None if artifacts is None else _References(artifacts)
    async for id in _all(reader):
        looked += 1
        try:
            kept = (await reader.execution(id)).state
            found += await _compare(reader, id, kept)
            found += await _claims(reader, id, kept)
            if references is not None:
                found += await references.check(kept)
        except (FlexCoreError, KeyError, AssertionError) as error:
            found.append(Fault(id, f"its history cannot be folded: {type(error).__name__}: {error}"))
    return looked, found


@dataclass(frozen=True, slots=True)
class _References:
    """Reads what is out of line, each once: the same value is often an input here and a result there."""

    artifacts: ArtifactStore
    _wrong: dict[str, str] = field(default_factory=dict)  # by uri; empty for what is in order

    async def check(self, state: ExecutionState) -> list[Fault]:
        found = []
        for where, ref in _references(state):
            if wrong := await self._problem(ref):
                found.append(Fault(state.header.id, f"{where} refers to {ref.uri}, which cannot be read: {wrong}"))
        return found

    async def _problem(self, ref: Ref) -> str:
        if ref.uri not in self._wrong:
            try:
                await self.artifacts.get(ref)
                self._wrong[ref.uri] = ""
            except FlexCoreError as error:
                self._wrong[ref.uri] = error.message
        return self._wrong[ref.uri]


def _references(state: ExecutionState) -> Iterator[tuple[str, Ref]]:
    """Give what is kept in the artifact store. Data sets of steps' own, anywhere else, are not ours to check."""
    for where, ref in _all_references(state):
        if ref is not None and ref.uri.startswith("artifact:"):
            yield where, ref


def _all_references(state: ExecutionState) -> Iterator[tuple[str, Ref | None]]:
    yield "the input", state.header.input.ref
    yield "the output", state.header.output.ref
    for path, step in state.steps.items():
        items = Payload() if step.loop is None else step.loop.items
        for what, payload in (("parameters", step.parameters), ("result", step.result), ("items", items)):
            yield f"step '{path}' ({what})", payload.ref
        for ref in step.artifacts:
            yield f"step '{path}' (artifact)", ref
    for scope, block in state.scopes.items():
        yield f"the list '{scope}'", block.result.ref


async def _all(reader: Reader) -> AsyncIterator[ExecutionId]:
    after = ""
    while True:
        page = await reader.ids(after)
        for id in page.items:
            yield id
        if page.next is None:
            return
        after = page.next


async def _compare(reader: Reader, id: ExecutionId, kept: ExecutionState) -> list[Fault]:
    # The state was read first: an execution that is running may only be ahead of it in the history read now.
    history = [entry for entry in await _history(reader, id) if entry.seq <= kept.seq]
    gaps = [entry.seq for index, entry in enumerate(history, start=1) if entry.seq != index]
    if gaps or len(history) != kept.seq:
        return [Fault(id, f"its history has {len(history)} entries where the state counts {kept.seq}")]
    return _differences(id, fold(id, history), kept)


async def _claims(reader: Reader, id: ExecutionId, kept: ExecutionState) -> list[Fault]:
    """Compare what is in limited pools with the rows that it is derived from."""
    expected = {(claim.pool, WHOLE, True) for claim in kept.header.claims}
    expected |= {(claim.pool, WHOLE, False) for claim in kept.header.full}
    for step in kept.steps.values():
        expected |= {(claim.pool, step.path, True) for claim in step.claims}
        expected |= {(claim.pool, step.path, False) for claim in step.full}
    found = set(await reader.claims(id))
    if found == expected or (await reader.execution(id)).state.seq != kept.seq:
        return []
    pools = ", ".join(sorted({pool for pool, _, _ in found ^ expected}))
    return [Fault(id, f"its places in limited pools are not what its steps say: {pools}")]


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
