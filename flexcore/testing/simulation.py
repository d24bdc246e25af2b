"""Runs `decide` against a made-up world with a seed: random workflows, random fates, virtual time.

The world plays the shell's part: it performs the actions, lets attempts end in every way they can, fires timers,
repeats and delays reports, cancels. What is checked after every decision is in `Simulation.check`.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from flexcore.analyzer.place import StepView
from flexcore.engine.decide import decide, resume
from flexcore.engine.draft import Draft
from flexcore.engine.fold import apply, empty, fold
from flexcore.engine.journal import change_set
from flexcore.engine.render import Answer
from flexcore.engine.work import (
    AttemptEnded,
    AttemptFinished,
    AttemptSubmitted,
    AttemptUnavailable,
    Cancel,
    CancelChild,
    ChildAccepted,
    ChildFinished,
    Decision,
    EndAttempt,
    Env,
    Event,
    ForgetAttempt,
    Limits,
    LookAgain,
    Needs,
    PlaceFree,
    Start,
    StartAttempt,
    StartChild,
    TimerFired,
)
from flexcore.model import changes as c
from flexcore.model.changes import HistoryEntry
from flexcore.model.execution import ExecutionState, Handle, StepState
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.graph import build
from flexcore.model.ids import ExecutionId, StepPath
from flexcore.model.lifecycle import (
    EXECUTION_TRANSITIONS,
    STEP_TRANSITIONS,
    ExecutionStatus,
    StepStatus,
)
from flexcore.model.placement import Infeasibility, Placement, ReasonCode, Verdict
from flexcore.model.pools import WHOLE, Claim, Party, PoolUse, PoolView
from flexcore.model.template import Expression, Literal
from flexcore.model.values import JSON, Payload
from flexcore.model.workflow import (
    Action,
    Branch,
    CachePolicy,
    Case,
    Concurrency,
    ForEach,
    NamedBranch,
    OnError,
    Parallel,
    RetryPolicy,
    Step,
    StepId,
    StepKind,
    SubWorkflow,
    Task,
    Transform,
    Try,
    Wait,
    While,
    Workflow,
)
from flexcore.monitor.rows import rows
from flexcore.monitor.waiting import execution_waiting_for

_FATES = tuple(ErrorClass)
_NAMED_STEPS = re.compile(r"(?:^steps? |, | and )'([^' ]+)'")


class Generator:
    """Makes random workflows: every kind of step, nested, with policies."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._count = 0

    def workflow(self) -> Workflow:
        """Make one, of one to six steps and what is inside them."""
        rng = self._rng
        steps = self._steps(rng.randint(1, 6), depth=2)
        handler = self._steps(1, depth=0) if rng.random() < 0.3 else ()
        output = self._odd_expression() if rng.random() < 0.1 else None
        return Workflow(
            name="simulated", steps=steps, on_failure=handler, output=output, concurrency=self._concurrency(0.1)
        )

    def _steps(self, count: int, depth: int) -> tuple[Step, ...]:
        steps: list[Step] = []
        for _ in range(count):
            steps.append(self._step(depth, [each.id for each in steps]))
        return tuple(steps)

    def _step(self, depth: int, before: Sequence[StepId]) -> Step:
        rng = self._rng
        self._count += 1
        id = StepId(f"s{self._count}")
        action = self._action(depth)
        some = tuple(rng.sample(list(before), rng.randint(0, len(before))))
        attempts = rng.choice((1, 1, 3)) if isinstance(action, Task) else 1
        return Step(
            id=id,
            action=action,
            needs=some if rng.random() < 0.3 else None,
            when=self._odd_expression() if rng.random() < 0.15 else None,
            retry=RetryPolicy(attempts=attempts, jitter=0.5),
            timeout=timedelta(seconds=rng.randint(5, 60)) if rng.random() < 0.3 else None,
            cache=CachePolicy(ttl=timedelta(hours=1)) if rng.random() < 0.05 and isinstance(action, Task) else None,
            concurrency=self._concurrency(0.25) if isinstance(action, Task) else None,
            on_error=rng.choice((OnError.FAIL, OnError.FAIL, OnError.CONTINUE)),
        )

    def _action(self, depth: int) -> Action:
        rng = self._rng
        kinds = ["task"] * 5 + ["transform", "wait", "child"]
        if depth:
            kinds += ["branch", "parallel", "foreach", "while", "try"]
        match rng.choice(kinds):
            case "task":
                return Task(kind=StepKind.FUNCTION, parameters=Literal({}))
            case "transform":
                return Transform(rng.choice((Literal(1), self._odd_expression())))
            case "wait":
                return Wait(duration=Literal(rng.randint(0, 90)))
            case "child":
                return SubWorkflow(name="other", wait=rng.random() < 0.7)
            case "branch":
                return Branch(cases=(Case(self._odd_expression(), self._some(depth)),), default=self._maybe(depth))
            case "parallel":
                return Parallel(
                    tuple(
                        NamedBranch(
                            id=StepId(f"b{index}"), steps=self._some(depth), on_error=rng.choice(tuple(OnError))
                        )
                        for index in range(2)
                    )
                )
            case "foreach":
                items = Literal(list(range(rng.randint(0, 4))))
                return ForEach(items=items, steps=self._some(depth), parallelism=rng.randint(1, 3))
            case "while":
                return While(condition=self._odd_expression(), steps=self._some(depth), max_iterations=3)
            case _:
                return Try(steps=self._some(depth), catch=self._maybe(depth), final=self._maybe(depth))

    def _concurrency(self, chance: float) -> Concurrency | None:
        rng = self._rng
        if rng.random() > chance:
            return None
        return Concurrency(limit=rng.randint(1, 2), key=rng.choice((None, Literal("eu"), self._odd_expression())))

    def _some(self, depth: int) -> tuple[Step, ...]:
        return self._steps(self._rng.randint(1, 2), depth - 1)

    def _maybe(self, depth: int) -> tuple[Step, ...]:
        return self._some(depth) if self._rng.random() < 0.6 else ()

    def _odd_expression(self) -> Expression:
        """Make an expression that only the world can answer: true, false, or an error."""
        return Expression(source=f"odd({self._rng.randint(0, 9)})")


class Simulation:
    """One execution from start to end. `transitions` is what was seen of the two tables."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.history: list[HistoryEntry] = []
        self.transitions: set[tuple[object, object]] = set()
        self.state = empty(ExecutionId("exe_simulated"))
        self._rng = random.Random(seed)  # noqa: S311  # a simulation, not a secret
        self._graph = build(Generator(self._rng).workflow())
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self._starting: set[StepPath] = set()
        self._ending: set[StepPath] = set()
        self._children: dict[ExecutionId, tuple[StepPath, str]] = {}
        self._told: list[Event] = []
        self._luck = 1.0  # of the present decision's placements
        self._limits = Limits(runtimes={"local": 3} if self._rng.random() < 0.3 else {})
        self._pools: dict[str, PoolUse] = {}  # as the present decision saw them

    def run(self, most: int = 5000) -> None:
        """Play until the end. Raises AssertionError when an invariant breaks, naming the seed."""
        timeout = timedelta(seconds=self._rng.randint(30, 600)) if self._rng.random() < 0.2 else None
        accepted = c.ExecutionAccepted(
            workflow="simulated", version="v", expires_at=self._now + timeout if timeout else None
        )
        self._feed(Start(accepted=accepted))
        for _ in range(most):
            if self.state.header.status.is_terminal:
                self._feed_late()
                return
            self._feed(self._next())
        raise AssertionError(f"seed {self.seed}: no end after {most} events")

    # --- the world

    def _next(self) -> Event:
        rng = self._rng
        self._now += timedelta(seconds=rng.random())
        if self._told and rng.random() < 0.1:
            return rng.choice(self._told)  # once more
        if rng.random() < 0.01:
            return Cancel("the simulation wants it")
        choices = [*self._attempt_events(), *self._child_events(), *map(PlaceFree, self.state.queued)]
        if self.state.header.full:
            choices.append(PlaceFree(None))
        if choices and rng.random() < 0.9:
            return rng.choice(choices)
        return self._timer(must=not choices)

    def _attempt_events(self) -> list[Event]:
        found: list[Event] = []
        for step in self.state.steps.values():
            if not step.in_flight:
                continue
            if step.path in self._ending:
                ended = AttemptEnded(
                    path=step.path, attempt=step.attempt, token=step.token, confirmed=self._rng.random() < 0.9
                )
                found.append(ended)
            if step.path in self._starting:
                found.append(self._report(step))
        return found

    def _report(self, step: StepState) -> Event:
        rng, who = self._rng, {"path": step.path, "attempt": step.attempt, "token": step.token}
        match rng.choice(("submitted", "good", "good", "good", "bad", "unavailable", "silent")):
            case "submitted":
                handle = Handle(1, f"fx-{step.path}", str(step.attempt))
                return AttemptSubmitted(**who, handle=handle, adopted=rng.random() < 0.2)  # type: ignore[arg-type]  # built by name
            case "good":
                return AttemptFinished(**who, result=Payload({"n": rng.randint(0, 9)}))  # type: ignore[arg-type]  # as above
            case "bad":
                failure = Failure(message="it was to be", error_class=rng.choice(_FATES))
                return AttemptFinished(**who, failure=failure)  # type: ignore[arg-type]  # as above
            case "unavailable":
                return AttemptUnavailable(**who, reason="the simulation cut the line")  # type: ignore[arg-type]  # as above
            case _:
                return TimerFired(step.path)

    def _child_events(self) -> list[Event]:
        found: list[Event] = []
        for child, (path, phase) in self._children.items():
            if phase == "starting":
                found.append(ChildAccepted(path=path, child=child))
            status = self._rng.choice((ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED))
            found.append(ChildFinished(path=path, child=child, status=status))
        return found

    def _timer(self, *, must: bool) -> Event:
        """Fire a timer; when nothing else can happen, let time pass until one is due."""
        alarms: list[tuple[datetime, StepPath | None]] = []
        for step in self.state.steps.values():
            if not step.status.is_terminal:
                alarms += [(due, step.path) for due in (step.due_at, step.expires_at) if due is not None]
        if self.state.header.expires_at is not None and self.state.header.cancel_requested is None:
            alarms.append((self.state.header.expires_at, None))
        if not alarms:
            assert not must, f"seed {self.seed}: nothing can happen, and the execution has not ended: {self._open()}"
            return TimerFired(None)
        due, path = min(alarms, key=lambda each: each[0])
        if must:
            self._now = max(self._now, due)
        return TimerFired(path)

    def _open(self) -> str:
        return ", ".join(f"{s.path} {s.status}" for s in self.state.steps.values() if not s.status.is_terminal)

    # --- the shell's part

    def _feed(self, event: Event) -> None:
        before = self.state
        decision = self._decide(event)
        entries = change_set(self._graph, before, [decision]).entries if decision.changes else ()
        self.history.extend(entries)
        self.state = decision.state
        self.check(before, decision)
        if not isinstance(event, TimerFired | PlaceFree | Start | Cancel):
            self._told.append(event)
            self._happened(event)
        for action in decision.actions:
            self._perform(action)

    def _happened(self, event: Event) -> None:
        match event:
            case AttemptFinished(path=path) | AttemptEnded(path=path):
                state = self.state.steps.get(path)
                if state is not None and not state.in_flight:
                    self._starting.discard(path)
                    self._ending.discard(path)
            case AttemptUnavailable(path=path, token=token) if self.state.steps[path].token == token:
                self._starting.discard(path)  # its driver is gone; a repeat of an older report has none
            case ChildAccepted(child=child, path=path) if child in self._children:
                self._children[child] = (path, "running")
            case ChildFinished(child=child):
                self._children.pop(child, None)

    def _decide(self, event: Event) -> Decision:
        answers: dict[str, dict[str, Answer]] = {}
        values: dict[str, JSON] = {}
        cached: dict[str, Payload | None] = {}
        self._luck = self._rng.random()
        self._pools = {}
        env = Env(
            now=self._now,
            entropy=self._rng.randbytes(8),
            place=self._place,
            limits=self._limits,
            pools=self._pools,
            answers=answers,
            values=values,
            cached=cached,
        )
        outcome = decide(self._graph, self.state, event, env)
        for _ in range(1000):
            if isinstance(outcome, Decision):
                if not self._pools:  # who gets the last place may depend on whose answers came first
                    self._check_same(outcome, decide(self._graph, self.state, event, env))
                return outcome
            self._fulfil(outcome, answers, cached)
            outcome = resume(outcome)
        raise AssertionError(f"seed {self.seed}: decide never has enough")

    def _check_same(self, resumed: Decision, at_once: Decision | Needs) -> None:
        """With all answers known beforehand the same becomes true, if in another order."""
        seed = f"seed {self.seed}: the same question had two answers"
        assert isinstance(at_once, Decision), seed
        assert sorted(map(repr, at_once.changes)) == sorted(map(repr, resumed.changes)), seed

    def _fulfil(self, needs: Needs, answers: dict[str, dict[str, Answer]], cached: dict[str, Payload | None]) -> None:
        for address, query in needs.queries:
            luck = self._rng.random()
            failure = Failure(message="no answer", error_class=ErrorClass.USER) if luck < 0.05 else None
            answers.setdefault(address, {})[query.source] = Answer(value=luck < 0.6, failure=failure)
        for key in needs.cache_keys:
            cached[key] = Payload("earlier") if self._rng.random() < 0.5 else None
        for claim in needs.pools:
            self._pools[claim.pool] = self._use(claim)

    def _use(self, claim: Claim) -> PoolUse:
        """Let other executions hold any number of the places that are left, and sometimes one be first in the queue."""
        rng, id = self._rng, self.state.header.id
        left = max(claim.limit - self.state.held.get(claim.pool, 0), 0)
        waits = [path for path, full in self.state.queued.items() if claim.pool in {each.pool for each in full}]
        waits.sort(key=lambda path: (self.state.steps[path].queued_at, path))
        waiting = [Party(id, path) for path in waits]
        if rng.random() < 0.2:
            waiting.insert(0, Party(ExecutionId("exe_other"), WHOLE))
        return PoolUse(held=rng.randint(0, left), waiting=tuple(waiting))

    def _place(self, step: StepView) -> Placement:
        luck = self._luck
        if luck > 0.1:
            return Placement(chosen="local", source="rule")
        code = ReasonCode.UNHEALTHY if luck > 0.02 else ReasonCode.GPU
        refused = Verdict(runtime="local", infeasible=(Infeasibility(code, "the simulation says no"),))
        return Placement(chosen=None, source="none", verdicts=(refused,))

    def _perform(self, action: object) -> None:
        match action:
            case StartAttempt(path=path):
                self._starting.add(path)
            case EndAttempt(path=path):
                self._ending.add(path)
            case ForgetAttempt(path=path):
                self._starting.discard(path)
                self._ending.discard(path)
            case StartChild(path=path, child=child):
                self._children[child] = (path, "starting")
            case CancelChild() | LookAgain():
                pass  # it ends by itself, in one way or another; alarms are found by looking at the state

    # --- what must always hold

    def check(self, before: ExecutionState, decision: Decision) -> None:
        """Check every invariant of a transition."""
        seed = f"seed {self.seed}"
        assert fold(before.header.id, self.history) == self.state, f"{seed}: the state is not the fold of the history"
        if before.header.status.is_terminal:
            assert not decision.changes, f"{seed}: something changed after the end"
        self._check_statuses(before, seed)
        self._check_places(before, decision, seed)
        self._check_waiting(seed)

    def _check_places(self, before: ExecutionState, decision: Decision, seed: str) -> None:
        """Never more in flight than there are places, never a queue for a place that is free, and no place kept."""
        state = decision.state
        held = Counter(claim.pool for step in state.steps.values() for claim in step.claims)
        assert held == Counter(dict(state.held)), f"{seed}: places were counted wrongly"
        for step in state.steps.values():
            assert step.in_flight or not step.claims, f"{seed}: {step.path} keeps its places"
            assert not (step.full and step.in_flight), f"{seed}: {step.path} waits for what it has"
        header = state.header
        assert not header.status.is_terminal or not (header.claims or header.full), f"{seed}: it keeps its places"
        for change in decision.changes:
            match change:
                case c.StepDispatched(claims=claims) | c.ExecutionStarted(claims=claims):
                    for claim in claims:
                        taken = self._pools[claim.pool].held + held[claim.pool]
                        assert taken <= claim.limit, f"{seed}: {taken} of {claim.limit} places in {claim.pool}"
                case c.StepQueued(full=full) | c.ExecutionQueued(full=full):
                    for claim in full:
                        use = self._pools[claim.pool]
                        before_it = use.held + before.held.get(claim.pool, 0) + held[claim.pool] + len(use.waiting)
                        assert before_it >= claim.limit, f"{seed}: {claim.pool} had room"

    def _check_waiting(self, seed: str) -> None:
        """Whatever has not ended says what it waits for, and that is true: what it names has not ended either."""
        if self.state.header.status.is_terminal:
            return
        pools = {pool: PoolView(held=use.held) for pool, use in self._pools.items()}
        if self.state.header.status is ExecutionStatus.PENDING:
            assert execution_waiting_for(self.state, pools), f"{seed}: a pending execution waits for nothing"
        for row in rows(self._graph, self.state, pools):
            known = self.state.steps.get(row.path)
            if known is not None and known.status.is_terminal:
                assert row.waiting_for is None, f"{seed}: {row.path} has ended and waits for {row.waiting_for}"
                continue
            sentence = row.waiting_for
            assert sentence, f"{seed}: {row.path} waits for nothing"
            for named in _NAMED_STEPS.findall(sentence.partition(" to end")[0]) if " to end" in sentence else ():
                other = self.state.steps.get(StepPath(named))
                assert other is None or not other.status.is_terminal, f"{seed}: {row.path}: {named} has ended"
            assert sentence.startswith("a place in") == bool(known and known.full), f"{seed}: {row.path}: {sentence}"
            if "begin" in sentence:
                assert self.state.header.status is ExecutionStatus.PENDING, f"{seed}: {row.path}: {sentence}"

    def _check_statuses(self, before: ExecutionState, seed: str) -> None:
        status: ExecutionStatus | None = before.header.status if before.seq else None
        draft = Draft(before)
        for entry in self.history[before.seq :]:
            steps = dict(draft.steps)
            header = draft.header
            apply(draft, entry.change, entry.at)
            if status is not None and draft.header.status is not header.status:
                allowed = EXECUTION_TRANSITIONS[header.status]
                assert draft.header.status in allowed, f"{seed}: {header.status} became {draft.header.status}"
                self.transitions.add((header.status, draft.header.status))
            status = draft.header.status
            self._check_step(steps, draft.steps, getattr(entry.change, "path", None), entry, seed)

    def _check_step(
        self,
        before: dict[StepPath, StepState],
        after: dict[StepPath, StepState],
        path: StepPath | None,
        entry: HistoryEntry,
        seed: str,
    ) -> None:
        if path is None:
            return
        old = before[path].status if path in before else StepStatus.WAITING
        new = after[path].status
        again = isinstance(entry.change, c.StepDispatched | c.StepQueued | c.StepRetryScheduled)
        if old is not new or (again and path in before):
            assert new in STEP_TRANSITIONS[old], f"{seed}: step {path} was {old} and became {new}"
            self.transitions.add((old, new))
        if path in before:
            assert after[path].token >= before[path].token, f"{seed}: the token of {path} went back"

    def _feed_late(self) -> None:
        """Repeat everything that was ever reported: nothing may change any more."""
        for event in list(self._told):
            self._feed(event)
