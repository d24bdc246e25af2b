"""How one attempt went on one runtime: what placement learns from. Never holds values of users.

A named tuple, where other data is dataclasses: one is made and stored with the end of every attempt, and costs a tenth.
Stored by position, so a new field comes last and has a default.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from flexcore.model.execution import Phase


class Observation(NamedTuple):
    """One attempt that a runtime ended. Seconds by phase; a phase that the runtime cannot tell is not there.

    `outcome` is `succeeded` or the failure's class; only what succeeded says how long such work takes, and a
    `timeout`, whose seconds of `run` are the limit, that it takes longer. `store` is where the input came from,
    `expected_wait_s` what placement had predicted for the queue. Where what was learned chose, `score` is what that
    came to, in the units of scores, and `rule_score` what the rules' choice was predicted to come to.
    """

    signature: str
    family: str
    runtime: str
    runtime_kind: str
    outcome: str
    at: datetime
    input_bytes: int | None = None
    seconds: Mapping[Phase, float] = MappingProxyType({})
    cpu_s: float | None = None
    score: float | None = None
    store: str = ""
    expected_wait_s: float | None = None
    rule_score: float | None = None
