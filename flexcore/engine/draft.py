"""A state in the making, with what is counted along the way: how much is active, waits for time, holds a place.

Mutable, and never shared: `fold` and `decide` each work on their own.
"""

from flexcore.model.execution import ExecutionState, ScopeState, StepState
from flexcore.model.graph import scope_of
from flexcore.model.ids import Scope, StepPath
from flexcore.model.lifecycle import StepStatus
from flexcore.model.pools import Claim
from flexcore.model.rebuilding import rebuilt

CONTROL_KINDS = frozenset({"branch", "parallel", "foreach", "while", "try"})
"""Kinds that are active only through the steps inside them."""

_ACTIVE = frozenset({StepStatus.PENDING, StepStatus.RUNNING})


class Draft:
    """A state being worked on: private to one decision or one fold, never shared."""

    __slots__ = (
        "active",
        "header",
        "held",
        "queued",
        "scopes",
        "seq",
        "steps",
        "suspended",
        "touched_scopes",
        "touched_steps",
    )

    def __init__(self, state: ExecutionState) -> None:
        self.header = state.header
        self.steps = dict(state.steps)
        self.scopes = dict(state.scopes)
        self.seq = state.seq
        self.active = state.active
        self.suspended = state.suspended
        self.held = dict(state.held)
        self.queued = dict(state.queued)
        self.touched_steps: dict[StepPath, None] = {}
        self.touched_scopes: dict[Scope, None] = {}

    def freeze(self) -> ExecutionState:
        """Give the state as it now is."""
        return ExecutionState(
            header=self.header,
            steps=self.steps,
            scopes=self.scopes,
            seq=self.seq,
            active=self.active,
            suspended=self.suspended,
            held=self.held,
            queued=self.queued,
        )

    def put(self, step: StepState) -> None:
        """Set a step, and keep count of what is active and of how many steps of its list have ended."""
        old = self.steps.get(step.path)
        self.steps[step.path] = step
        self.touched_steps[step.path] = None
        self._count(step, None if old is None else old.status)
        if step.claims or (old is not None and old.claims):
            self._hold(old.claims if old is not None else (), step.claims)
        if step.full:
            self.queued[step.path] = step.full
        elif self.queued:
            self.queued.pop(step.path, None)

    def _hold(self, before: tuple[Claim, ...], after: tuple[Claim, ...]) -> None:
        for claim in before:
            self.held[claim.pool] -= 1
            if not self.held[claim.pool]:
                del self.held[claim.pool]  # with a `key` there may be as many pools as items
        for claim in after:
            self.held[claim.pool] = self.held.get(claim.pool, 0) + 1

    def _count(self, step: StepState, before: StepStatus | None) -> None:
        after = step.status
        if before is after:
            return
        self.suspended += (after is StepStatus.SUSPENDED) - (before is StepStatus.SUSPENDED)
        if step.kind not in CONTROL_KINDS:
            self.active += (after in _ACTIVE) - (before in _ACTIVE)
        if after.is_terminal:
            scope = scope_of(step.path)
            if (around := self.scopes.get(scope)) is not None:
                self.put_scope(rebuilt(around, ended=around.ended + 1))

    def put_scope(self, scope: ScopeState) -> None:
        """Set a scope."""
        self.scopes[scope.scope] = scope
        self.touched_scopes[scope.scope] = None
