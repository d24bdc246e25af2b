"""The immutable view of the runtimes that placement reads: made anew when something changes, swapped whole.

It must never be changed in place. The one thing inside that does change is a memo of answers, which are a function of
the snapshot and the question, so nobody can tell.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

from flexcore.model.placement import Placement
from flexcore.runtime.candidate import Candidate

__all__ = ["Candidate", "Snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All candidates, best priority first, then by name."""

    candidates: tuple[Candidate, ...] = ()
    answers: dict[Hashable, Placement] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.candidates, key=lambda each: (each.priority, each.name)))
        object.__setattr__(self, "candidates", ordered)

    @property
    def names(self) -> tuple[str, ...]:
        """All instance names, in the order of preference."""
        return tuple(each.name for each in self.candidates)
