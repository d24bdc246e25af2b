"""Which places a step or an execution needs, and whether there are any. Asks, and emits nothing.

First come, first served: whoever asks is behind everybody who waits for the same place already.
"""

from flexcore.engine.names import Known, Pending, Place, evaluate
from flexcore.engine.work import Work, user_failure
from flexcore.model.failure import Failure
from flexcore.model.ids import ROOT, ExecutionId, StepPath
from flexcore.model.pools import (
    WHOLE,
    Claim,
    Party,
    PoolUse,
    described,
    runtime_pool,
    step_pool,
    tag_pool,
    workflow_pool,
)
from flexcore.model.values import JSON
from flexcore.model.workflow import Concurrency, Step

NONE: tuple[Claim, ...] = ()


def of_attempt(
    work: Work, path: StepPath, step: Step, place: Place, runtime: str
) -> tuple[Claim, ...] | Failure | Pending:
    """Name the places that an attempt of a task needs: of its step, its tags and its runtime."""
    limits, claims = work.env.limits, list[Claim]()
    if step.concurrency is not None:
        key = _key(work, step.concurrency, place, path)
        if not isinstance(key, Known):
            return key
        header = work.draft.header
        pool = step_pool(header.workspace, header.workflow, step.id, key.value)
        claims.append(Claim(pool, step.concurrency.limit))
    for tag in dict.fromkeys(step.requirements.tags) if limits.tags else ():
        if tag in limits.tags:
            claims.append(Claim(tag_pool(tag), limits.tags[tag]))
    if limits.runtimes and runtime in limits.runtimes:
        claims.append(Claim(runtime_pool(runtime), limits.runtimes[runtime]))
    return tuple(claims)


def of_execution(work: Work) -> tuple[Claim, ...] | Failure | Pending:
    """Name the places that an execution needs as a whole."""
    limited = work.graph.workflow.concurrency
    if limited is None:
        return NONE
    key = _key(work, limited, Place(scope=ROOT, address="@concurrency"), WHOLE)
    if not isinstance(key, Known):
        return key
    header = work.draft.header
    return (Claim(workflow_pool(header.workspace, header.workflow, key.value), limited.limit),)


def _key(work: Work, limited: Concurrency, place: Place, path: StepPath) -> Known | Failure | Pending:
    if limited.key is None:
        return Known(value=None)
    outcome = evaluate(work, limited.key, place)
    if not isinstance(outcome, Known):
        return outcome
    key: JSON = outcome.value
    if isinstance(key, list | tuple | dict):
        return user_failure(
            f"the `key` of `concurrency` gave {'a mapping' if isinstance(key, dict) else 'a list'}",
            path,
            hint="text, a number, true, false or null: null has no key, and shares the places of all without one",
        )
    return outcome


def full_of(work: Work, path: StepPath, claims: tuple[Claim, ...]) -> tuple[Claim, ...] | Pending:
    """Name those of the pools wanted in which there is no place now; ask for what is not known of them."""
    unknown = [claim for claim in claims if claim.pool not in work.env.pools]
    if unknown:
        work.pools.extend(unknown)
        return Pending()
    return tuple(claim for claim in claims if not _has_room(work, path, claim))


def _has_room(work: Work, path: StepPath, claim: Claim) -> bool:
    id, use = work.draft.header.id, work.env.pools[claim.pool]
    held = use.held + work.draft.held.get(claim.pool, 0)
    return claim.limit - held > _ahead(work, use, Party(id, path), id)


def _ahead(work: Work, use: PoolUse, asking: Party, id: ExecutionId) -> int:
    """Count who waits longer. Those of this very execution that were let in, in this decision, wait no more."""
    ahead = 0
    for party in use.waiting:
        if party == asking:
            break
        ahead += party.execution != id or party.path in work.draft.queued or party.path == WHOLE
    return ahead


def sentence(full: tuple[Claim, ...]) -> str:
    """Say what is waited for."""
    return " and ".join(f"a place in {described(claim.pool)} (limit {claim.limit})" for claim in full)
