"""dbt's own account of a run: what became of every model, and what a later attempt of the step can leave out.

A failed attempt leaves its account in the instance's folder, by execution and step. The next attempt of the same step
goes on from it with `dbt retry`, which knows the order of the nodes and the arguments of the first run; a `--select`
of names would have to repeat both. Without a complete account (dbt was killed, nothing was compiled) all is run again.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flexcore.model.failure import Failure
from flexcore.model.ids import AttemptId, ExecutionId, external_name
from flexcore.model.values import JSON

TARGET = "dbt"
"""The folder of an attempt in which dbt writes."""

_BEFORE = "dbt-before"
_RESULTS, _DONE = "run_results.json", "models.json"
_FAILED = ("error", "fail", "runtime error", "partial success")
_TO_DO = (*_FAILED, "skipped")
_REUSED = "reused"
_KEPT = timedelta(days=30)


class Accounts:
    """The accounts that failed attempts of one instance left, each in `execution/name of the step`."""

    def __init__(self, folder: Path, installation: str, now: Callable[[], datetime]) -> None:
        self._folder = folder
        self._installation = installation
        self._now = now

    def take(self, attempt: AttemptId, work: Path) -> Path | None:
        """Copy what the attempt before left, if it left anything to go on from, and name the copy's folder."""
        kept = self._of(attempt)
        found = _read(kept / _RESULTS)
        if attempt.number == 1 or not any(each.get("status") in _TO_DO for each in _results(found)):
            return None
        before = work / _BEFORE
        for folder in (work.parent, work, before):  # the attempt's folder is private, and not there yet
            folder.mkdir(mode=0o700, exist_ok=True)
        for name in (_RESULTS, _DONE):
            with suppress(FileNotFoundError):
                shutil.copyfile(kept / name, before / name)
        return before

    def keep(self, attempt: AttemptId, work: Path) -> None:
        """After a failure: leave the account to the next attempt. An attempt without one leaves the last one there."""
        results = work / TARGET / _RESULTS
        if not _results(_read(results)):
            return
        self._sweep()
        kept = self._of(attempt)
        kept.mkdir(parents=True, exist_ok=True)
        done = [each for each in models_of(work) if each["status"] not in _TO_DO]
        _write(kept / _DONE, json.dumps(done))
        _write(kept / _RESULTS, results.read_text(encoding="utf-8"))

    def forget(self, attempt: AttemptId) -> None:
        """After a success nothing is left to go on from."""
        shutil.rmtree(self._of(attempt), ignore_errors=True)
        with suppress(OSError):
            self._of(attempt).parent.rmdir()

    def forget_execution(self, execution: ExecutionId) -> None:
        """Remove what all steps of an execution left."""
        shutil.rmtree(self._folder / execution, ignore_errors=True)

    def executions(self) -> frozenset[ExecutionId]:
        """Name the executions that left something."""
        return (
            frozenset(ExecutionId(each.name) for each in self._folder.iterdir())
            if self._folder.is_dir()
            else frozenset()
        )

    def _sweep(self) -> None:
        """Remove what executions left that failed for good: nobody comes back for it."""
        for each in self._folder.iterdir() if self._folder.is_dir() else ():
            with suppress(FileNotFoundError):
                if self._now().timestamp() - each.stat().st_mtime > _KEPT.total_seconds():
                    shutil.rmtree(each, ignore_errors=True)

    def _of(self, attempt: AttemptId) -> Path:
        first = AttemptId(attempt.execution, attempt.path, 1)
        return self._folder / attempt.execution / external_name(self._installation, first)


def models_of(work: Path) -> Iterator[dict[str, JSON]]:
    """Read what became of every node: those that an earlier attempt had done first, as `reused`, then those run now."""
    now = [_model(each) for each in _results(_read(work / TARGET / _RESULTS))]
    names = {each["name"] for each in now}
    before = _read(work / _BEFORE / _DONE)
    for each in before if isinstance(before, list) else ():
        if each["name"] not in names:
            yield {**each, "status": _REUSED}
    yield from now


def with_failed_models(failure: Failure, work: Path) -> Failure:
    """Put the models that failed in front of a failure's message."""
    failed = [each for each in models_of(work) if each["status"] in _FAILED]
    if not failed:
        return failure
    lines = [f"{each['name']}: {each['status']}: {each.get('message') or ''}".strip() for each in failed]
    return Failure(
        message="\n".join(lines)[:2_000],
        error_class=failure.error_class,
        name=f"dbt {failed[0]['status']}",
        hint=failure.hint,
    )


def _results(account: Any) -> list[Mapping[str, Any]]:
    results = account.get("results") if isinstance(account, Mapping) else None
    return [each for each in results or () if isinstance(each, Mapping)]


def _model(result: Mapping[str, Any]) -> dict[str, JSON]:
    """`unique_id` is kind, project and name, and of a test a hash behind them. Not every database counts rows."""
    response = result.get("adapter_response")
    rows = response.get("rows_affected") if isinstance(response, Mapping) else None
    kind, _, rest = str(result.get("unique_id", "")).partition(".")
    name = rest.partition(".")[2]
    status = str(result.get("status"))
    return {
        "name": name.rpartition(".")[0] or name if kind in ("test", "unit_test") else name,
        "kind": kind,
        "status": status,
        "rows": rows if isinstance(rows, int) else None,
        "seconds": result.get("execution_time"),
        **({"message": str(result.get("message"))} if status not in ("success", "pass") else {}),
    }


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
