"""What placement is told of a step: put together by whoever asks, from the definition and from what has been measured.

Holds sizes, names and counts, never a value of a user's.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

from flexcore.model.workflow import Complexity, Requirements, StepKind


class Source(StrEnum):
    """Where a value comes from, the most trusted first."""

    DECLARED = "declared"  # the author said so
    MEASURED = "measured"  # counted: the upstream result, the files that the step names
    LEARNED = "learned"  # from earlier runs
    INFERRED = "inferred"  # from the code, the packages, the image, the width of the loop
    UNKNOWN = "unknown"


class Measured(NamedTuple):
    """Bytes, and where that figure comes from. None is unknown, which is never zero."""

    value: int | None = None
    source: Source = Source.UNKNOWN


class Stored(NamedTuple):
    """A part of the step's input: which kind of store it is in (`file`, `s3`), and how large it is."""

    store: str
    bytes: int


class Facts(NamedTuple):
    """What can be read from a step without running it: worked out once per version, by `workload.facts`."""

    complexity: Complexity | None = None
    parallelizable: bool | None = None
    because: tuple[str, ...] = ()  # what each of these rests on: `imports sklearn`
    image: str = ""  # a container image that a portable step asks for
    width: int | None = None  # how many of it may run side by side: the parallelism of the loops around it


NO_FACTS = Facts()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """What placement needs to know of a step.

    `pin` is the step's own `runtime`: that instance or none. `preferred` is the wish for a whole execution: it acts
    as a pin for the steps that the instance is able to run, and is ignored for the others. `signature` names the step
    across executions (workflow and path without indices); without one nothing is learned about it. `family` is what
    it resembles, its kind unless said otherwise. `data_stores` are those that it has to reach. `deadline` is the time
    left to it; without, that of the requirements counts.
    """

    kind: StepKind
    requirements: Requirements = Requirements()
    pin: str | None = None
    preferred: str | None = None
    signature: str = ""
    family: str = ""
    data: Measured = Measured()
    inputs: tuple[Stored, ...] = ()
    data_stores: frozenset[str] = frozenset()
    deadline: timedelta | None = None
    facts: Facts = NO_FACTS
