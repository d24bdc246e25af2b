"""An execution's document as text: its steps in a table, why each ran where, rows per stream, and the output."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flexcore.cli.reasons import refusals, why
from flexcore.cli.render import clean, count, painted, pretty, seconds, size, table
from flexcore.model.requests import Document

EXIT_CODES: Mapping[str, int] = {"succeeded": 0, "failed": 1, "cancelled": 4}
"""What an execution's end means as an exit code; an execution that has not ended means 0."""

_TIMED_OUT = 4
_WORST_FIRST = (1, 4, 0)
_STEPS_SHOWN = 100
_PATHS_SHOWN = 3


def exit_code_of(documents: Sequence[Document]) -> int:
    """Give the exit code of executions that were waited for: a failure is worse than a cancelled one."""
    codes = {_exit_code(each) for each in documents} | {0}
    return next(code for code in _WORST_FIRST if code in codes)


def _exit_code(document: Document) -> int:
    error = document.get("error") or {}
    # The whole was not done in its time. A step that was not is a failure like any other.
    if error.get("class") == "timeout" and not error.get("step"):
        return _TIMED_OUT
    return EXIT_CODES.get(document["status"], 0)


def summary(document: Document, tail: Sequence[str] = (), pinned: str | None = None) -> list[str]:
    """Describe an execution with its results.

    `tail` is the last output of the step that failed; `pinned` the runtime that was asked for with `--runtime`.
    """
    lines = [headline(document), "", *step_table(document)]
    placed = [*_placements(document), *_placed_elsewhere(document, pinned)]
    for part in (waits(document), placed, _streams(document), _errors(document, tail), _output(document)):
        if found := list(part):
            lines += ["", *found]
    return lines


def headline(document: Document) -> str:
    """Say in one line what an execution is and how it stands."""
    took = document.get("duration_s") if document.get("finished_at") else None  # none: it was cancelled in a queue
    lasted = "" if took is None else f" in {seconds(took)}"
    retried = f", a retry of {document['forked_from']}" if document.get("forked_from") else ""
    return f"{document['workflow']}  {document['id']}  {painted(document['status'])}{lasted}{retried}"


def waits(document: Document) -> list[str]:
    """Say what the execution and each of its unfinished steps wait for."""
    whole = [f"it waits for {document['waiting_for']}"] if document.get("waiting_for") else []
    steps = document.get("steps", ())
    return whole + [f"{each['path']} waits for {each['waiting_for']}" for each in steps if each.get("waiting_for")]


def step_table(document: Document) -> list[str]:
    """Lay out the steps: path, status, runtime, attempt, time and rows."""
    steps = document.get("steps", ())
    rows = [
        (
            step["path"],
            "cached" if step.get("cached") else step["status"],
            step.get("runtime"),
            step.get("attempt") or "",
            seconds(step.get("duration_s")),
            count((step.get("usage") or {}).get("rows")),
        )
        for step in steps[:_STEPS_SHOWN]
    ]
    lines = table(("STEP", "STATUS", "RUNTIME", "ATTEMPT", "TIME", "ROWS"), rows, right=(3, 4, 5))
    more = len(steps) - _STEPS_SHOWN
    return [*lines, f"and {count(more)} more steps; --output json has them all"] if more > 0 else lines


def _placements(document: Document) -> Iterator[str]:
    """Say where steps went and why; steps that went the same way for the same reason share a line."""
    together: dict[tuple[str, str], list[str]] = {}
    for step in document.get("steps", ()):
        if placement := step.get("placement"):
            together.setdefault((placement.get("chosen") or "nowhere", why(placement)), []).append(step["path"])
    for (chosen, reason), paths in together.items():
        yield f"{_some(paths)} ran on {chosen}: {reason}"


def _placed_elsewhere(document: Document, pinned: str | None) -> Iterator[str]:
    """Say which steps did not go to the runtime that was asked for, and why."""
    together: dict[str, list[str]] = {}
    for step in document.get("steps", ()):
        placement = step.get("placement")
        if pinned is None or not placement or placement.get("chosen") == pinned:
            continue
        reason = next((each for name, each in refusals(placement) if name == pinned), "the step names its runtime")
        together.setdefault(reason, []).append(step["path"])
    for reason, paths in together.items():
        yield f"not on {pinned}, in spite of --runtime: {_some(paths)}: {reason}"


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _PATHS_SHOWN} more" if len(paths) > _PATHS_SHOWN else ""
    return f"{', '.join(paths[:_PATHS_SHOWN])}{more}"


def _streams(document: Document) -> Iterator[str]:
    for step in document.get("steps", ()):
        result = step.get("result")
        if step.get("type") != "singer" or not isinstance(result, Mapping) or not result.get("streams"):
            continue
        known = result.get("state_before")
        yield f"{step['path']}: " + (
            "incremental, went on from the stored state" if known else "full, no earlier state"
        )
        rows = [
            (f"  {name}", count(each.get("rows")), size(each.get("bytes"))) for name, each in _named(result["streams"])
        ]
        yield from table(("  STREAM", "ROWS", "BYTES"), rows, right=(1, 2))


def _named(streams: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read streams given as a list with names, or as a mapping by name."""
    pairs = streams.items() if isinstance(streams, Mapping) else ((each.get("name", ""), each) for each in streams)
    for name, each in pairs:
        yield str(name), each if isinstance(each, Mapping) else {"rows": each}


def _errors(document: Document, tail: Sequence[str]) -> Iterator[str]:
    error = document.get("error")
    if not error:
        return
    where = f" in step {error['step']}" if error.get("step") else ""
    name = f"{error['name']}: " if error.get("name") else ""
    yield f"error{where} [{error['class']}] {name}{clean(str(error['message']))}"
    if tail:
        yield "  its last output:"
        yield from (f"    {line}" for line in tail)
    if error.get("hint"):
        # A failure is made where the execution's id is not known; its hint says ID.
        yield "  hint: " + clean(str(error["hint"])).replace(" ID ", f" {document['id']} ")


def _output(document: Document) -> Iterator[str]:
    if document["status"] == "succeeded" and document.get("output") is not None:
        yield "output"
        yield from pretty(document["output"]).splitlines()
