"""JSON log lines of several makes, understood alike."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexcore.model.log_records import LogLevel, LogRecord, is_as_severe, log_record


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (
            '{"event": "done", "level": "info", "timestamp": "2026-01-01T00:00:00Z", "rows": 3}',
            LogRecord("info", "done", "2026-01-01T00:00:00Z", {"rows": 3}),
        ),
        (
            '{"message": "slow", "levelname": "WARNING", "asctime": "2026-01-01 00:00:00,000"}',
            LogRecord("warning", "slow", "2026-01-01 00:00:00,000", {}),
        ),
        ('{"msg": "gone", "severity": "FATAL", "ts": 1.5}', LogRecord("critical", "gone", 1.5, {})),
        ('{"msg": "hi", "level": 30, "time": 5}', LogRecord(None, "hi", 5, {"level": 30})),
        ('{"rows": 3}', LogRecord(None, None, None, {"rows": 3})),
    ],
)
def test_a_line_is_understood_whatever_wrote_it(line: str, record: LogRecord) -> None:
    assert log_record(line) == record


@pytest.mark.parametrize("line", ["", "plain", "[1]", "{not json", '{"a": NaN}', "{" * 5000])
def test_what_is_no_object_is_no_record(line: str) -> None:
    assert log_record(line) is None


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(), max_size=6))
def test_no_key_is_lost(content: dict[str, object]) -> None:
    record = log_record(json.dumps(content))

    assert record is not None
    taken = [each for each in (record.level, record.message, record.time) if each is not None]
    assert len(record.fields) + len(taken) == len(content)
    assert record.fields.items() <= content.items()


def test_levels_have_an_order() -> None:
    assert is_as_severe("critical", LogLevel.ERROR)
    assert not is_as_severe("info", LogLevel.ERROR)
    assert not is_as_severe(None, LogLevel.DEBUG)
    assert not is_as_severe("whatever", LogLevel.DEBUG)
