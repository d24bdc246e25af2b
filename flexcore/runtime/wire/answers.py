"""What a runtime answers: its health, its capabilities, and what a cleanup came to."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TypeVar

from flexcore.common.values import timestamp
from flexcore.model.errors import InvalidRequest
from flexcore.model.ids import ExecutionId
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import Capabilities, CleanupReport, Feature, Health, HealthStatus, Resources
from flexcore.runtime.v1 import runtime_pb2 as pb
from flexcore.runtime.v1 import work_pb2
from flexcore.runtime.wire.work import attempt_message, attempt_of, present, span_message, span_of

_LIMITS = ("cpu", "memory", "gpu", "disk", "slots")
Word = TypeVar("Word", bound=StrEnum)


def health_message(status: HealthStatus, busy: int) -> pb.GetHealthResponse:
    """Carry a state of health, and how many attempts are read."""
    return pb.GetHealthResponse(
        state=status.state.value,
        reason=status.reason,
        checked_at=timestamp(status.checked_at),
        start_latency=span_message(status.start_latency),
        busy=busy,
    )


def health_of(message: pb.GetHealthResponse, now: datetime) -> HealthStatus:
    """Read a state of health as of now: the server's clock may be another. An unknown state counts as degraded."""
    return HealthStatus(
        state=Health(message.state) if message.state in list(Health) else Health.DEGRADED,
        reason=message.reason,
        checked_at=now,
        start_latency=span_of(message.start_latency) if message.HasField("start_latency") else None,
    )


def capabilities_message(found: Capabilities) -> work_pb2.Capabilities:
    """Carry what a runtime can do."""
    limits = {key: value for key in _LIMITS if (value := getattr(found.limits, key)) is not None}
    return work_pb2.Capabilities(
        step_kinds=sorted(each.value for each in found.step_kinds),
        limits=work_pb2.Resources(**limits),
        unsupported={feature.value: why for feature, why in found.unsupported.items()},
        tags=sorted(found.tags),
        data_stores=sorted(found.data_stores),
        versions=dict(found.versions),
        price_per_hour="" if found.price_per_hour is None else str(found.price_per_hour),
    )


def capabilities_of(message: work_pb2.Capabilities) -> Capabilities:
    """Read what a runtime can do, as far as this version knows it. Raises InvalidRequest."""
    return Capabilities(
        step_kinds=frozenset(_known(StepKind, message.step_kinds)),
        limits=Resources(**present(message.limits, _LIMITS)),
        unsupported={feature: message.unsupported[feature.value] for feature in _known(Feature, message.unsupported)},
        tags=frozenset(message.tags),
        data_stores=frozenset(message.data_stores),
        versions=dict(message.versions),
        price_per_hour=_price(message.price_per_hour),
    )


def report_message(report: CleanupReport) -> pb.CleanupResponse:
    """Carry what a cleanup came to."""
    return pb.CleanupResponse(
        gone=sorted(report.gone),
        pending=sorted(report.pending),
        unknown=dict(report.unknown),
        attempts={name: attempt_message(id) for name, id in report.attempts.items()},
        executions=sorted(report.executions),
        retained=sorted(report.retained),
    )


def report_of(message: pb.CleanupResponse) -> CleanupReport:
    """Read what a cleanup came to."""
    return CleanupReport(
        gone=frozenset(message.gone),
        pending=frozenset(message.pending),
        unknown=dict(message.unknown),
        attempts={name: attempt_of(each) for name, each in message.attempts.items()},
        executions=frozenset(ExecutionId(each) for each in message.executions),
        retained=frozenset(message.retained),
    )


def _known(words: type[Word], given: Iterable[str]) -> list[Word]:
    return [words(each) for each in given if each in list(words)]


def _price(text: str) -> Decimal | None:
    try:
        return Decimal(text) if text else None
    except InvalidOperation as error:
        raise InvalidRequest(f"not a price: {text!r}") from error
