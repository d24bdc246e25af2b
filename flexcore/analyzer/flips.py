"""The smallest single change that would send a step elsewhere: size, queue, price, health. Worked out on demand.

Nothing is derived: a change is made, the step is placed again, and where the answer turns is found by halving. So
every statement is true of `place` by construction: at the threshold the other runtime is chosen, one unit before it
the present one is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from flexcore.analyzer.constraints import size as size_text
from flexcore.analyzer.place import DEFAULT_POLICY, Policy, StepView, place
from flexcore.analyzer.rules import LARGE, SMALL
from flexcore.analyzer.snapshot import Candidate, Snapshot
from flexcore.analyzer.standing import IDLE
from flexcore.analyzer.view import Measured, Source
from flexcore.runtime.interface import Health, HealthStatus

_LARGEST = 10**15
_LONGEST_QUEUE = 100_000
_HIGHEST_PRICE = 1_000_000  # in hundredths
_CENT = 100


class Change(StrEnum):
    """What is changed."""

    DATA_SIZE = "data_size"  # bytes
    QUEUE = "queue"  # attempts waiting at an instance
    PRICE = "price"  # hundredths of the currency of prices, per hour
    HEALTH = "health"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A change after which the step goes to `chosen` (None: nowhere). `before` is the nearest value where it does not.

    `value` and `before` are in the unit of the change; of a health, its name. `runtime` is whose load, price or health
    changes; of a size, "". `text` says it for people.
    """

    change: Change
    runtime: str
    before: int | str | None
    value: int | str
    chosen: str | None
    text: str


def flips(step: StepView, snapshot: Snapshot, policy: Policy = DEFAULT_POLICY) -> tuple[Flip, ...]:
    """Find, per thing that can change and direction, the smallest change that flips the decision."""
    return tuple(_Search(step, snapshot, policy).found())


def changed(step: StepView, snapshot: Snapshot, flip: Flip, value: int | str | None) -> tuple[StepView, Snapshot]:
    """Make the change of a flip, with this value."""
    match flip.change:
        case Change.DATA_SIZE:
            assert not isinstance(value, str)
            return with_size(step, value), snapshot
        case Change.QUEUE:
            assert isinstance(value, int)
            return step, with_queue(snapshot, flip.runtime, value)
        case Change.PRICE:
            assert isinstance(value, int)
            return step, with_price(snapshot, flip.runtime, value)
        case Change.HEALTH:
            assert isinstance(value, str)
            return step, with_health(snapshot, flip.runtime, Health(value))


def with_size(step: StepView, size: int | None) -> StepView:
    """Give the step an input of another size; the parts it is in grow and shrink alike."""
    if size is None:
        return step
    known = sum(each.bytes for each in step.inputs)
    inputs = tuple(each._replace(bytes=each.bytes * size // known) for each in step.inputs) if known else step.inputs
    if step.requirements.data_size is None:
        return replace(step, data=Measured(size, Source.MEASURED), inputs=inputs)
    data = Measured(size, step.data.source) if step.data.value is not None else step.data
    return replace(step, requirements=replace(step.requirements, data_size=size), data=data, inputs=inputs)


def with_queue(snapshot: Snapshot, runtime: str, queued: int) -> Snapshot:
    """Give an instance a queue of another length."""
    load = snapshot.loads.get(runtime, IDLE)._replace(queued=queued)
    return replace(snapshot, loads={**snapshot.loads, runtime: load})


def with_price(snapshot: Snapshot, runtime: str, hundredths: int) -> Snapshot:
    """Give an instance another price per hour."""
    return replace(snapshot, prices={**snapshot.prices, runtime: hundredths / _CENT})


def with_health(snapshot: Snapshot, runtime: str, state: Health) -> Snapshot:
    """Give an instance another health."""
    return replace(snapshot, candidates=tuple(_in(each, runtime, state) for each in snapshot.candidates))


def _in(candidate: Candidate, runtime: str, state: Health) -> Candidate:
    if candidate.name != runtime:
        return candidate
    known = candidate.health
    at = known.checked_at if known else datetime.fromtimestamp(0, UTC)
    latency = known.start_latency if known else None
    return replace(
        candidate,
        health=HealthStatus(state=state, reason=f"were it {state.value}", checked_at=at, start_latency=latency),
    )


class _Search:
    """One question's search. Places again and again; every changed snapshot has memos of its own."""

    def __init__(self, step: StepView, snapshot: Snapshot, policy: Policy) -> None:
        self.step, self.snapshot, self.policy = step, snapshot, policy
        self.now = place(step, snapshot, policy)
        self.feasible = [each.runtime for each in self.now.verdicts if each.feasible]

    def found(self) -> Iterator[Flip]:
        yield from self._sizes()
        for candidate in self.snapshot.candidates:
            yield from self._queues(candidate)
            yield from self._prices(candidate)
            yield from self._healths(candidate)

    def _chosen(self, step: StepView, snapshot: Snapshot) -> str | None:
        return place(step, snapshot, self.policy).chosen

    def _sizes(self) -> Iterator[Flip]:
        size = self.now.input_bytes
        if size is None:
            return
        for grid in (_rising(size, _LARGEST), _falling(size)):
            turn = self._turn(size, grid, lambda value: self._chosen(with_size(self.step, value), self.snapshot))
            if turn is not None:
                before, value, chosen = turn
                side = "above" if value > before else "below"
                text = f"{_wins(chosen)} {side} {size_text(before)} of input"
                yield Flip(change=Change.DATA_SIZE, runtime="", before=before, value=value, chosen=chosen, text=text)

    def _queues(self, candidate: Candidate) -> Iterator[Flip]:
        if candidate.name not in self.feasible:
            return
        queued = self.snapshot.loads.get(candidate.name, IDLE).queued
        grid = _rising(queued, _LONGEST_QUEUE) if candidate.name == self.now.chosen else _falling(queued)
        turn = self._turn(queued, grid, lambda value: self._chosen(self.step, self._with_queue(candidate, value)))
        if turn is not None:
            before, value, chosen = turn
            verb = "grows to" if value > before else "drops to"
            text = f"{_wins(chosen)} if the queue of {candidate.name} {verb} {value}"
            yield self._flip(Change.QUEUE, candidate, before, value, chosen, text)

    def _with_queue(self, candidate: Candidate, value: int) -> Snapshot:
        return with_queue(self.snapshot, candidate.name, value)

    def _prices(self, candidate: Candidate) -> Iterator[Flip]:
        if candidate.name not in self.feasible:
            return
        price = round((self.snapshot.price(candidate) or 0.0) * _CENT)
        grid = _rising(price, _HIGHEST_PRICE) if candidate.name == self.now.chosen else _falling(price)
        turn = self._turn(
            price,
            grid,
            lambda value: self._chosen(self.step, with_price(self.snapshot, candidate.name, value)),
        )
        if turn is not None:
            before, value, chosen = turn
            verb = "rises to" if value > before else "falls to"
            text = f"{_wins(chosen)} if the price of {candidate.name} {verb} {value / _CENT:.2f} an hour"
            yield self._flip(Change.PRICE, candidate, before, value, chosen, text)

    def _healths(self, candidate: Candidate) -> Iterator[Flip]:
        present = candidate.health.state if candidate.health else Health.UP
        for state in _next_to(present, is_chosen=candidate.name == self.now.chosen):
            chosen = self._chosen(self.step, with_health(self.snapshot, candidate.name, state))
            if chosen != self.now.chosen:
                text = f"{_wins(chosen)} if {candidate.name} is {state.value}"
                yield self._flip(Change.HEALTH, candidate, present.value, state.value, chosen, text)
                return

    def _flip(
        self,
        change: Change,
        candidate: Candidate,
        before: int | str,
        value: int | str,
        chosen: str | None,
        text: str,
    ) -> Flip:
        return Flip(change=change, runtime=candidate.name, before=before, value=value, chosen=chosen, text=text)

    def _turn(
        self, present: int, grid: Sequence[int], chosen: Callable[[int], str | None]
    ) -> tuple[int, int, str | None] | None:
        """Walk the grid away from the present value to where the answer is another, then halve down to one unit."""
        same = present
        if chosen(present) != self.now.chosen:
            return None  # it stands on the edge: what the present value is rounded to already flips it
        for value in grid:
            if chosen(value) == self.now.chosen:
                same = value
                continue
            other = value
            while abs(other - same) > 1:
                middle = (same + other) // 2
                if chosen(middle) == self.now.chosen:
                    same = middle
                else:
                    other = middle
            return same, other, chosen(other)
        return None


def _wins(chosen: str | None) -> str:
    return f"{chosen} wins" if chosen else "nothing can run it"


def _next_to(present: Health, is_chosen: bool) -> tuple[Health, ...]:
    """Name the other states, the nearest first: worse for what is chosen, better for the others."""
    order = (Health.UP, Health.DEGRADED, Health.DOWN)
    place_ = order.index(present)
    return order[place_ + 1 :] if is_chosen else tuple(reversed(order[:place_]))


def _rising(present: int, bound: int) -> list[int]:
    """Values above the present one: finely at first, then ever more coarsely, and just around the tables' bounds."""
    steps = {present + 1, present + 2, *(max(present, 1) * 5**n // 4**n for n in range(1, 200))}
    steps |= {edge + by for edge in (SMALL, LARGE) for by in (-1, 0, 1)} | {bound}
    return sorted(each for each in steps if present < each <= bound)


def _falling(present: int) -> list[int]:
    steps = {present - 1, present - 2, *(present * 4**n // 5**n for n in range(1, 200))}
    steps |= {edge + by for edge in (SMALL, LARGE) for by in (-1, 0, 1)} | {0}
    return sorted((each for each in steps if 0 <= each < present), reverse=True)


def as_mappings(found: Sequence[Flip]) -> list[Mapping[str, int | str | None]]:
    """Show flips as documents do."""
    return [
        {
            "change": each.change.value,
            "runtime": each.runtime or None,
            "before": each.before,
            "value": each.value,
            "chosen": each.chosen,
            "text": each.text,
        }
        for each in found
    ]
