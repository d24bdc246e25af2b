"""Checks a machine and an installation, and says what to do about what is missing."""

import asyncio
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from flexcore.engine.evaluate import ExpressionPool
from flexcore.engine.render import Query
from flexcore.model.errors import FlexCoreError
from flexcore.runtime.candidate import Candidate
from flexcore.runtime.interface import Health
from flexcore.runtime.registry import Registry
from flexcore.store.sqlite import Store

_LEAST_FREE_BYTES = 500_000_000
_LEAST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


async def examine(store: Store, registry: Registry, pool: ExpressionPool) -> list[Check]:
    """Look at everything, the runtimes included."""
    return [
        _python(),
        _durability(store),
        await _artifacts(store),
        _disk(store.folder),
        _user(),
        await _expressions(pool),
        *await _runtimes(registry),
    ]


def _python() -> Check:
    version = platform.python_version()
    return Check(
        "python", sys.version_info >= _LEAST_PYTHON, f"{version} at {sys.executable}", "3.11 or newer is needed"
    )


def _durability(store: Store) -> Check:
    is_full = store.durability == "full"
    detail = f"{store.durability}, schema {store.schema_version}, {store.url}"
    return Check("store", is_full, detail, "put the store on a local disk that takes WAL and FULL")


async def _artifacts(store: Store) -> Check:
    try:
        await store.artifacts.put(b"doctor", format="text")
    except FlexCoreError as error:
        return Check("artifacts", False, error.message, error.hint)
    return Check(
        "artifacts", True, "in the store's folder" if store.artifacts.store == "file" else "in an object store"
    )


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    return Check(
        "disk", free >= _LEAST_FREE_BYTES, f"{free // 1_000_000} MB free", "make room: a full disk stops everything"
    )


def _user() -> Check:
    is_root = os.geteuid() == 0
    detail = "root: local steps run as root too" if is_root else f"uid {os.geteuid()}: local steps run as the same user"
    return Check("user", True, detail)


async def _expressions(pool: ExpressionPool) -> Check:
    try:
        (answer,) = await pool.evaluate([Query("[1, 2].map(n => n * 2)[1]", {})])
    except FlexCoreError as error:
        return Check("expressions", False, error.message, error.hint)
    works = answer.failure is None and answer.value == 4
    return Check("expressions", works, "JavaScript runs in a sandboxed child process" if works else str(answer.failure))


async def _runtimes(registry: Registry) -> list[Check]:
    candidates = await registry.candidates()
    unusable = [each.name for each in candidates if each.enabled and (each.obstacle is not None or _is_down(each))]
    advice = dict(zip(unusable, await asyncio.gather(*map(registry.advice, unusable)), strict=True))
    found = []
    for each in candidates:
        if not each.enabled:
            found.append(Check(f"runtime {each.name}", True, "disabled"))
        elif each.obstacle is not None:
            found.append(Check(f"runtime {each.name}", False, each.obstacle.reason, advice[each.name]))
        elif each.health is not None:
            detail = f"{each.health.state.value}: {each.health.reason}"
            found.append(Check(f"runtime {each.name}", not _is_down(each), detail, advice.get(each.name, "")))
    return found


def _is_down(candidate: Candidate) -> bool:
    return candidate.health is not None and candidate.health.state is Health.DOWN
