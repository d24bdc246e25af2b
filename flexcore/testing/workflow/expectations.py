"""Reads what a test expects: the mapping under `expect`."""

from collections.abc import Callable, Iterator
from datetime import timedelta

from flexcore.language.nodes import Entry, MapNode, ScalarNode, plain
from flexcore.language.reading import Fields, Reading
from flexcore.model.failure import ErrorClass
from flexcore.model.lifecycle import ExecutionStatus, StepStatus
from flexcore.model.template import Position
from flexcore.testing.workflow.addresses import Address
from flexcore.testing.workflow.scenario import Expected, ExpectedError, ExpectedStep, Wanted

Find = Callable[[str, Position], Address | None]

_MOST_ATTEMPTS = 1_000_000


def expected_of(node: MapNode, reading: Reading, find: Find) -> Expected:
    """Read `expect`. `find` understands the path of a step, and reports one that there is not."""
    written = Fields(node, reading)
    error = _error(written.mapping("error"), reading)
    expected = Expected(
        status=written.choice("status", ExecutionStatus) or _usual(error),
        outputs=_wanted(written, "output"),
        path=_path(written, reading, find),
        steps=tuple(_steps(written.mapping("steps"), reading, find)),
        placements=tuple(_placements(written.mapping("placements"), reading, find)),
        error=error,
        duration=_duration(written),
    )
    written.close()
    return expected


def _usual(error: ExpectedError | None) -> ExecutionStatus:
    return ExecutionStatus.SUCCEEDED if error is None else ExecutionStatus.FAILED


def _wanted(written: Fields, key: str) -> tuple[Wanted, ...]:
    """Read a value that is expected, `KEY` exactly and `KEY_contains` in part; null is a value, too."""
    found = ((written.entry(key), False), (written.entry(f"{key}_contains"), True))
    return tuple(Wanted(plain(entry.value), is_partial) for entry, is_partial in found if entry is not None)


def _duration(written: Fields) -> timedelta | None:
    return written.duration("duration", zero=True)


def _path(written: Fields, reading: Reading, find: Find) -> tuple[Address, ...] | None:
    nodes = written.items("path", what="a list of steps")
    if nodes is None:
        return None
    found: list[Address | None] = []
    for node in nodes:
        if isinstance(node, ScalarNode) and isinstance(node.value, str):
            found.append(find(node.value, node.position))
        else:
            reading.wrong_type(node, "an entry of `path`", "a step's path")
    return tuple(each for each in found if each is not None)


def _placements(node: MapNode | None, reading: Reading, find: Find) -> Iterator[tuple[Address, str]]:
    for entry in node.entries if node is not None else ():
        address = find(entry.key, entry.position)
        if not isinstance(entry.value, ScalarNode) or not isinstance(entry.value.value, str):
            reading.wrong_type(entry.value, f"`{entry.key}`", "the name of a runtime")
        elif address is not None:
            yield address, entry.value.value


def _steps(node: MapNode | None, reading: Reading, find: Find) -> Iterator[ExpectedStep]:
    for entry in node.entries if node is not None else ():
        step = _step(entry, reading, find)
        if step is not None:
            yield step


def _step(entry: Entry, reading: Reading, find: Find) -> ExpectedStep | None:
    address = find(entry.key, entry.position)
    if not isinstance(entry.value, MapNode):
        reading.wrong_type(entry.value, f"`{entry.key}`", "a mapping", "such as {status: succeeded}")
        return None
    written = Fields(entry.value, reading)
    attempts = written.integer("attempts", 0, _MOST_ATTEMPTS)
    status, runtime = written.choice("status", StepStatus), written.text("runtime")
    results, parameters = _wanted(written, "result"), _wanted(written, "parameters")
    error = _error(written.mapping("error"), reading)
    reason, duration = written.text("skipped_reason_contains"), _duration(written)
    written.close()
    if address is None:
        return None
    return ExpectedStep(
        address=address,
        status=status,
        attempts=attempts,
        runtime=runtime,
        results=results,
        parameters=parameters,
        error=error,
        skipped_reason_contains=reason,
        duration=duration,
    )


def _error(node: MapNode | None, reading: Reading) -> ExpectedError | None:
    if node is None:
        return None
    written = Fields(node, reading)
    error = ExpectedError(
        step=written.text("step"),
        error_class=written.choice("class", ErrorClass),
        name=written.text("name"),
        message=written.text("message"),
        message_contains=written.text("message_contains"),
    )
    written.close()
    return error
