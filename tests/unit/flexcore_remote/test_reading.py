"""One reading over several streams: nothing is told twice, nothing is left out."""

from datetime import UTC, datetime

from flexcore_remote.handle import inner, outer, server_of
from flexcore_remote.reading import Reading

from flexcore.model.execution import Handle, Phase
from flexcore.model.failure import ErrorClass
from flexcore.runtime.interface import Failed, Finished, LogChunk, LogStream, PhaseEntered, Submitted
from flexcore.testing.factories import execution_request

HANDLE = Handle(2, "fx-a", "uid/7", {"x": 1}, transient=True)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def reading() -> Reading:
    return Reading(execution_request(log_offsets={LogStream.STDERR: 4}), "srv_1")


def test_a_handle_names_its_server_and_gives_the_inner_one_again() -> None:
    wrapped = outer("srv_1", HANDLE)

    assert server_of(wrapped) == "srv_1"
    assert inner(wrapped) == HANDLE
    assert not wrapped.transient


def test_submitted_is_told_once() -> None:
    read = reading()

    first = read.passed(Submitted(HANDLE))

    assert first == Submitted(outer("srv_1", HANDLE))
    assert read.passed(Submitted(HANDLE, adopted=True)) is None


def test_other_work_under_the_name_is_lost_work() -> None:
    read = reading()
    read.passed(Submitted(HANDLE))

    event = read.passed(Submitted(Handle(2, "fx-a", "uid/8")))

    assert isinstance(event, Finished) and isinstance(event.result.outcome, Failed)
    assert event.result.outcome.failure.error_class is ErrorClass.LOST


def test_the_next_stream_goes_on_where_the_last_one_broke() -> None:
    read = reading()
    read.passed(Submitted(HANDLE))
    read.passed(LogChunk(LogStream.STDOUT, 0, b"abc"))

    request = read.next_request()

    assert request.handle == HANDLE
    assert request.log_offsets == {LogStream.STDOUT: 3, LogStream.STDERR: 4}


def test_logs_that_begin_anew_are_cut_where_they_were_known() -> None:
    read = reading()
    read.passed(LogChunk(LogStream.STDOUT, 0, b"abc"))

    assert read.passed(LogChunk(LogStream.STDOUT, 0, b"ab")) is None
    assert read.passed(LogChunk(LogStream.STDOUT, 0, b"abcde")) == LogChunk(LogStream.STDOUT, 3, b"de")


def test_a_phase_is_entered_once() -> None:
    read = reading()

    told = [read.passed(PhaseEntered(Phase.RUN, NOW)) for _ in range(2)]

    assert told == [PhaseEntered(Phase.RUN, NOW), None]
