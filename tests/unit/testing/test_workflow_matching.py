"""Comparing values of a workflow's test."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flexcore.testing.workflow.matching import differences, missing

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_every_value_equals_and_contains_itself(value: Any) -> None:
    assert list(differences(value, value, "v")) == []
    assert list(missing(value, value, "v")) == []


@given(VALUES, VALUES)
def test_what_is_equal_is_also_contained(one: Any, other: Any) -> None:
    if not list(differences(one, other, "v")):
        assert list(missing(one, other, "v")) == []


@given(VALUES, VALUES)
def test_differing_goes_both_ways(one: Any, other: Any) -> None:
    assert bool(list(differences(one, other, "v"))) == bool(list(differences(other, one, "v")))


@given(st.dictionaries(st.text("xyz", max_size=2), VALUES), st.dictionaries(st.text("uvw", min_size=1), VALUES))
def test_a_mapping_is_contained_in_one_with_more_keys(part: Any, more: Any) -> None:
    assert list(missing(part, {**part, **more}, "v")) == []


@given(st.lists(VALUES, max_size=3), st.lists(VALUES, max_size=3), st.lists(VALUES, max_size=3))
def test_a_list_is_contained_in_one_with_more_around_it(before: Any, part: Any, after: Any) -> None:
    assert list(missing(part, [*before, *part, *after], "v")) == []


def test_differences_are_named_key_by_key() -> None:
    found = list(
        differences({"rows": 3, "names": ["a"], "old": 1}, {"rows": 4, "names": ["a", "b"], "new": 2}, "output")
    )

    assert found == [
        "output.rows: expected 3, was 4",
        'output.names[1]: not expected, was "b"',
        "output.old: expected 1, but there is no such key",
        "output.new: not expected, was 2",
    ]


def test_true_is_not_one_but_one_is_one_point_nought() -> None:
    assert list(differences(1, True, "v")) != []
    assert list(missing(True, 1, "v")) != []
    assert list(differences(1, 1.0, "v")) == []
