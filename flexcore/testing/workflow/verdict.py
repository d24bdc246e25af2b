"""Holds what a test came to against what it expects: one line for everything that is not as expected."""

from collections.abc import Iterator, Sequence

from flexcore.model.failure import Failure
from flexcore.model.lifecycle import StepStatus
from flexcore.model.units import format_duration
from flexcore.model.values import JSON
from flexcore.testing.workflow.addresses import Address
from flexcore.testing.workflow.matching import differences, missing, shown
from flexcore.testing.workflow.player import Played, PlayedStep
from flexcore.testing.workflow.scenario import Expected, ExpectedError, ExpectedStep, Wanted


def problems(expected: Expected, played: Played) -> list[str]:
    """Say everything that is wrong; an empty list means that the test passed."""
    return [*played.problems, *_whole(expected, played), *_of_steps(expected, played)]


def _whole(expected: Expected, played: Played) -> Iterator[str]:
    if expected.status is not played.status:
        because = f": {failure_text(played.failure)}" if played.failure is not None else ""
        yield f"status: expected {expected.status.value}, was {played.status.value}{because}"
    yield from _values(expected.outputs, played.output, "output")
    yield from _error(expected.error, played.failure, "error")
    if expected.path is not None:
        yield from _path(expected.path, played.path)
    if expected.duration is not None and expected.duration != played.duration:
        wanted, was = format_duration(expected.duration), format_duration(played.duration)
        yield f"duration: expected {wanted}, was {was}"


def _path(expected: Sequence[Address], actual: Sequence[str]) -> Iterator[str]:
    if len(expected) == len(actual) and all(one.covers(other) for one, other in zip(expected, actual, strict=True)):
        return
    yield f"path: expected {' → '.join(each.text for each in expected) or 'nothing'}"
    yield f"      was      {' → '.join(actual) or 'nothing'}"


def _of_steps(expected: Expected, played: Played) -> Iterator[str]:
    for each in expected.steps:
        found = [step for path, step in played.steps.items() if each.address.covers(path)]
        if not found and each.status is not StepStatus.WAITING:
            yield f"steps.{each.address.text}: its turn never came"
        for step in found:
            yield from _step(each, step)
    for address, runtime in expected.placements:
        placed = [step for path, step in played.steps.items() if address.covers(path)]
        if not placed:
            yield f"placements.{address.text}: expected {runtime}, but its turn never came"
        for step in placed:
            yield from _runtime(runtime, step, f"placements.{step.path}")


def _step(expected: ExpectedStep, step: PlayedStep) -> Iterator[str]:
    at, state = f"steps.{step.path}", step.state
    if expected.status is not None and expected.status is not state.status:
        reason = failure_text(state.failure) if state.failure is not None else state.skipped_reason
        because = f": {reason}" if reason else ""
        yield f"{at}.status: expected {expected.status.value}, was {state.status.value}{because}"
    if expected.attempts is not None and expected.attempts != state.attempt:
        yield f"{at}.attempts: expected {expected.attempts}, was {state.attempt}"
    if expected.runtime is not None:
        yield from _runtime(expected.runtime, step, f"{at}.runtime")
    yield from _values(expected.results, step.result, f"{at}.result")
    yield from _values(expected.parameters, step.parameters, f"{at}.parameters")
    yield from _error(expected.error, state.failure, f"{at}.error")
    reason, part = state.skipped_reason, expected.skipped_reason_contains
    if part is not None and part not in reason:
        yield f"{at}.skipped_reason: expected to contain {shown(part)}, was {shown(reason or None)}"
    if expected.duration is not None and expected.duration != step.duration:
        was = format_duration(step.duration) if step.duration is not None else "not over"
        yield f"{at}.duration: expected {format_duration(expected.duration)}, was {was}"


def _runtime(expected: str, step: PlayedStep, at: str) -> Iterator[str]:
    if expected != step.state.runtime:
        placement = step.state.placement
        because = f": {placement.fallback_reason}" if placement is not None and placement.fallback_reason else ""
        yield f"{at}: expected {expected}, was {step.state.runtime or 'none'}{because}"


def _values(wanted: Sequence[Wanted], actual: JSON, at: str) -> Iterator[str]:
    for each in wanted:
        yield from (missing if each.is_partial else differences)(each.value, actual, at)


def _error(expected: ExpectedError | None, actual: Failure | None, at: str) -> Iterator[str]:
    if expected is None:
        return
    if actual is None:
        yield f"{at}: expected a failure, but there was none"
        return
    classes = (expected.error_class.value if expected.error_class else None, actual.error_class.value)
    pairs = {
        "step": (expected.step, actual.step),
        "class": classes,
        "name": (expected.name, actual.name),
        "message": (expected.message, actual.message),
    }
    for key, (one, other) in pairs.items():
        if one is not None and one != other:
            yield f"{at}.{key}: expected {shown(one)}, was {shown(other)}"
    part = expected.message_contains
    if part is not None and part not in actual.message:
        yield f"{at}.message: expected to contain {shown(part)}, was {shown(actual.message)}"


def failure_text(failure: Failure) -> str:
    """Say in one line what failed."""
    where = f"step '{failure.step}' failed with " if failure.step else ""
    return f"{where}{failure.error_class.value}: {failure.message or failure.name}"
