"""Places that are limited: how many executions of a workflow, or attempts of a step, may be under way at a time.

A *pool* is a named limit. A *claim* is one place in it, and belongs to a running execution or to a live attempt: it
is part of that state, so it ends with it. Nothing counts places; whoever wants one counts the claims that there are.
"""

from dataclasses import dataclass

from flexcore.model.ids import ExecutionId, StepPath
from flexcore.model.values import JSON, canonical, digest

_LONGEST_KEY = 128
WHOLE = StepPath("")
"""Stands where a step's path would, for what an execution as a whole holds or waits for."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One place in a pool that has `limit` of them."""

    pool: str
    limit: int


@dataclass(frozen=True, slots=True)
class Party:
    """Who holds a place or waits for one: a step of an execution, or (`WHOLE`) the execution itself."""

    execution: ExecutionId
    path: StepPath


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUse:
    """A pool at one moment, as one execution sees it: `held` counts the places of all others.

    `waiting` is in the order in which they came, as many as there are places; owners that are dead do not count.
    """

    held: int = 0
    waiting: tuple[Party, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """A pool at one moment, for people: how many places are held and by whom (the first few), and who waits.

    As in `PoolUse`, owners that are dead wait for nothing.
    """

    held: int = 0
    holders: tuple[ExecutionId, ...] = ()
    waiting: tuple[Party, ...] = ()


def workflow_pool(workspace: str, workflow: str, key: JSON = None) -> str:
    """Name the pool of a workflow's executions."""
    return f"workflow:{workspace}/{workflow}{_suffix(key)}"


def step_pool(workspace: str, workflow: str, step: str, key: JSON = None) -> str:
    """Name the pool of a step's attempts, over all executions of its workflow."""
    return f"step:{workspace}/{workflow}/{step}{_suffix(key)}"


def runtime_pool(name: str) -> str:
    """Name the pool of the attempts on a runtime."""
    return f"runtime:{name}"


def tag_pool(tag: str) -> str:
    """Name the pool of the attempts of steps that require a tag."""
    return f"tag:{tag}"


def described(pool: str) -> str:
    """Spell a pool for people: `step 'load' of workflow 'etl' for key 'eu'`."""
    kind, _, rest = pool.partition(":")
    if kind in ("runtime", "tag"):
        return f"{kind} '{rest}'"
    name, keyed, key = rest.partition(":")
    _, workflow, *step = name.split("/")
    whose = f"step '{step[0]}' of workflow '{workflow}'" if step else f"workflow '{workflow}'"
    return f"{whose} for key '{key}'" if keyed else whose


def _suffix(key: JSON) -> str:
    if key is None:
        return ""
    text = key if isinstance(key, str) else canonical(key).decode()
    return f":{text}" if len(text) <= _LONGEST_KEY else f":{digest(text.encode())}"
