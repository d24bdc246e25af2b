"""Whether what is learned has earned its say: what its choices came to, held against what the rules' would have.

An estimate off policy, by the direct method (Dudík, Langford and Li, *Doubly robust policy evaluation and learning*,
2011): what was chosen is known by its measured time and money, what the rules would have taken by its prediction of
that moment. So it finds choices that were too hopeful, and never those that nobody knows better of. Pure.
"""

from math import sqrt
from typing import NamedTuple

LATEST = 200  # choices that count: older ones fade
ENOUGH_CHOICES = 20  # before any verdict
WORSE = 0.1  # than the rules, by so much
REST = 200  # runs by the rules, before learning gets another chance, from a clean sheet


class Trust(NamedTuple):
    """Sums over choices made by what was learned, in the units of scores. `resting` counts the runs still to go."""

    choices: float = 0.0
    by_rule: float = 0.0
    excess: float = 0.0
    squares: float = 0.0
    resting: int = 0

    def with_(self, came_to: float, by_rule: float) -> "Trust":
        """Fold a choice: what it came to, and what the rules' was predicted to."""
        keep, more = 1 - 1 / LATEST, came_to - by_rule
        found = Trust(
            self.choices * keep + 1,
            self.by_rule * keep + by_rule,
            self.excess * keep + more,
            self.squares * keep + more * more,
        )
        return found._replace(resting=REST) if found.is_worse else found

    @property
    def is_worse(self) -> bool:
        """Say whether the choices were worse than the rules' by more than is tolerated, and by more than chance."""
        beyond_chance = self.excess - sqrt(self.squares)  # less one standard error of the sum: a single mishap is none
        return self.choices >= ENOUGH_CHOICES and beyond_chance > WORSE * self.by_rule

    def rested(self) -> "Trust":
        """Count a run that the rules placed."""
        return self._replace(resting=self.resting - 1) if self.resting > 1 else Trust()
