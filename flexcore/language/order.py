"""The order of one list of steps: who waits for whom, a sequence in which that can be done, and the cycles if not."""

from collections.abc import Sequence
from dataclasses import dataclass

from flexcore.model.workflow import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """All by index in the list. What is in a cycle, or waits for one, is not in `sequence`."""

    before: tuple[tuple[int, ...], ...]
    sequence: tuple[int, ...]
    cycles: tuple[tuple[int, ...], ...]  # each from its first step in the list, in the order of waiting


def order_of(steps: Sequence[Step]) -> Order:
    """Work out the order of a list. Needs that are not in the list count for nothing here."""
    before = _before(steps)
    after: list[list[int]] = [[] for _ in steps]
    waiting = [len(each) for each in before]
    for index, each in enumerate(before):
        for needed in each:
            after[needed].append(index)
    sequence = [index for index, count in enumerate(waiting) if not count]
    for done in sequence:
        for index in after[done]:
            waiting[index] -= 1
            if not waiting[index]:
                sequence.append(index)
    return Order(before=before, sequence=tuple(sequence), cycles=_cycles(before, sequence))


def _before(steps: Sequence[Step]) -> tuple[tuple[int, ...], ...]:
    indices: dict[str, int] = {}
    for index, step in enumerate(steps):
        indices.setdefault(step.id, index)
    return tuple(
        ((index - 1,) if index else ())
        if step.needs is None
        else tuple(dict.fromkeys(indices[need] for need in step.needs if need in indices))
        for index, step in enumerate(steps)
    )


def _cycles(before: Sequence[Sequence[int]], done: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Find one cycle for each group of steps that wait for each other."""
    left = set(range(len(before))) - set(done)
    cycles: list[tuple[int, ...]] = []
    visited: set[int] = set()
    for start in sorted(left):
        trail: dict[int, int] = {}
        here = start
        while here not in visited and here not in trail:
            trail[here] = len(trail)
            here = next(index for index in before[here] if index in left)
        if here in trail:
            cycle = list(trail)[trail[here] :]
            first = cycle.index(min(cycle))
            cycles.append((*cycle[first:], *cycle[:first]))
        visited.update(trail)
    return tuple(cycles)
