"""Bookmarks of several makes: where a run goes on, and a stream set back without anything else changing."""

import copy
from typing import Any

import pytest
from flexcore_meltano.bookmarks import CannotRewind, differences, rewound, starts
from hypothesis import given
from hypothesis import strategies as st

SDK = {
    "bookmarks": {
        "orders": {"replication_key": "id", "replication_key_value": 27},
        "events": {
            "replication_key": "at",
            "replication_key_value": "2026-03-01T10:00:00+00:00",
            "progress_markers": {"replication_key_value": "2026-03-02T00:00:00+00:00"},
        },
        "parts": {
            "partitions": [
                {"context": {"shop": 1}, "replication_key": "at", "replication_key_value": "2026-03-01"},
                {"context": {"shop": 2}, "replication_key": "at", "replication_key_value": "2026-04-01"},
            ]
        },
        "full": {},
    }
}
FLAT = {"bookmarks": {"users": {"updated_at": "2026-03-01T00:00:00Z", "version": 1}, "two": {"a": 1, "b": 2}}}


def test_starts_are_told_stream_by_stream_and_partition_by_partition() -> None:
    found = [(each.stream, each.partition, each.key, each.value, each.unfinished) for each in starts(SDK)]

    assert found == [
        ("orders", None, "id", 27, False),
        ("events", None, "at", "2026-03-01T10:00:00+00:00", True),
        ("parts", {"shop": 1}, "at", "2026-03-01", False),
        ("parts", {"shop": 2}, "at", "2026-04-01", False),
        ("full", None, None, None, False),
    ]
    assert [(each.stream, each.key) for each in starts(FLAT)] == [("users", "updated_at"), ("two", "a"), ("two", "b")]


@pytest.mark.parametrize("state", [None, {}, [], {"bookmarks": None}, {"bookmarks": {"a": 1}}, {"own": "format"}])
def test_a_state_of_another_kind_has_no_starts(state: Any) -> None:
    assert starts(state) == []


@pytest.mark.parametrize(
    ("state", "stream", "text", "key", "changes"),
    [
        (SDK, "orders", "5", None, [("bookmarks.orders.replication_key_value", 27, 5)]),
        (
            SDK,
            "events",
            "2026-02-01",
            None,
            [
                (
                    "bookmarks.events.replication_key_value",
                    "2026-03-01T10:00:00+00:00",
                    "2026-02-01T00:00:00+00:00",
                ),
                ("bookmarks.events.progress_markers", {"replication_key_value": "2026-03-02T00:00:00+00:00"}, None),
            ],
        ),
        (
            SDK,
            "parts",
            "2026-01-31",
            None,
            [
                ("bookmarks.parts.partitions[0].replication_key_value", "2026-03-01", "2026-01-31"),
                ("bookmarks.parts.partitions[1].replication_key_value", "2026-04-01", "2026-01-31"),
            ],
        ),
        (
            FLAT,
            "users",
            "2026-01-31",
            None,
            [("bookmarks.users.updated_at", "2026-03-01T00:00:00Z", "2026-01-31T00:00:00Z")],
        ),
        (FLAT, "two", "0", "b", [("bookmarks.two.b", 2, 0)]),
        (SDK, "orders", "2e1", None, [("bookmarks.orders.replication_key_value", 27, 20)]),
        (
            FLAT,
            "users",
            "2026-01-31T10:00:00",
            None,
            [("bookmarks.users.updated_at", "2026-03-01T00:00:00Z", "2026-01-31T10:00:00Z")],
        ),
    ],
)
def test_a_stream_is_set_back_in_the_form_of_its_bookmark(
    state: Any, stream: str, text: str, key: str | None, changes: list[Any]
) -> None:
    before = copy.deepcopy(state)

    after = rewound(state, stream, text, key)

    assert [(each["where"], each["before"], each["after"]) for each in differences(state, after)] == changes
    assert state == before


@pytest.mark.parametrize(
    ("state", "stream", "text", "words"),
    [
        (SDK, "nobody", "1", "no stream 'nobody'"),
        (SDK, "full", "1", "no bookmark"),
        (SDK, "orders", "28", "not back but ahead"),
        (SDK, "orders", "soon", "is a number"),
        (SDK, "orders", "nan", "is a number"),
        (SDK, "orders", "-inf", "is a number"),
        ({"bookmarks": {"a": {"id": "100"}}}, "a", "inf", "is a number"),
        ({"bookmarks": {"a": {"id": "²"}}}, "a", "1", "no order"),
        (SDK, "events", "soon", "is a time"),
        (SDK, "events", "20260101", "is a time"),
        (SDK, "events", "2027-01-01", "not back but ahead"),
        (SDK, "parts", "2026-03-15", "not back but ahead"),
        (FLAT, "two", "0", "several bookmarks"),
        ({"bookmarks": {"a": {"cursor": "xyz"}}}, "a", "abc", "no order"),
    ],
)
def test_what_is_not_a_step_back_is_refused(state: Any, stream: str, text: str, words: str) -> None:
    with pytest.raises(CannotRewind) as raised:
        rewound(state, stream, text)

    assert words in raised.value.message


json_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.", max_size=2), inner, max_size=3),
)


@given(json_values, json_values)
def test_states_without_a_difference_are_equal(before: Any, after: Any) -> None:
    assert (list(differences(before, after)) == []) == (before == after or _only_nulls(before, after))


def _only_nulls(before: Any, after: Any) -> bool:
    """A key that is null and one that is not there mean the same to a tap."""
    if isinstance(before, dict) and isinstance(after, dict):
        return all(_same(before.get(key), after.get(key)) for key in {*before, *after})
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(_same, before, after))
    return False


def _same(before: Any, after: Any) -> bool:
    return before == after or _only_nulls(before, after)
