"""Which attempt may work at a server: the newest of its step, and none that was cleaned up; also after a restart."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexcore.api.remote.fence import Fence
from flexcore.model.errors import Fenced
from flexcore.model.execution import Handle
from flexcore.runtime.interface import ExecutionRequest
from flexcore.testing.factories import attempt_id, execution_request


def attempt(number: int, token: int | None = None, handle: Handle | None = None) -> ExecutionRequest:
    return execution_request(id=attempt_id(number=number), token=number if token is None else token, handle=handle)


def test_an_older_attempt_comes_too_late_also_after_a_restart(tmp_path: Path) -> None:
    Fence(tmp_path).enter(attempt(2))

    with pytest.raises(Fenced, match="too late"):
        Fence(tmp_path).enter(attempt(1))


def test_a_newer_attempt_names_the_one_to_end_until_that_is_settled(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    fence.enter(attempt(1))

    named = [fence.enter(attempt(2)), fence.enter(attempt(2))]  # the first call broke off before the older one ended
    fence.settle(attempt(2).id)

    assert named == [(attempt(1).id,)] * 2
    assert fence.enter(attempt(2)) == ()


def test_all_that_nobody_saw_the_end_of_are_named(tmp_path: Path) -> None:
    Fence(tmp_path).enter(attempt(1))
    Fence(tmp_path).enter(attempt(2))  # the server died before it had ended the first

    assert Fence(tmp_path).enter(attempt(3)) == (attempt(1).id, attempt(2).id)


def test_a_cleanup_does_not_hide_what_was_before(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    fence.enter(attempt(1))
    fence.enter(attempt(2))
    fence.end(attempt(2).id)

    assert fence.enter(attempt(3)) == (attempt(1).id, attempt(2).id)


def test_what_was_cleaned_up_is_not_started_by_a_call_that_comes_late(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    fence.end(attempt(1).id)

    with pytest.raises(Fenced, match="cleaned up"):
        fence.enter(attempt(1))


def test_who_has_the_handle_may_still_ask_what_became_of_it(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    fence.enter(attempt(1))
    fence.end(attempt(1).id)

    assert fence.enter(attempt(1, handle=Handle(1, "fx-a", "x"))) == ()
    assert not fence.is_current(attempt(1).id)


def test_steps_do_not_fence_each_other(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    fence.enter(attempt(5))
    other = replace(attempt(1), id=attempt_id("other"))

    assert fence.enter(other) == ()
    assert fence.is_current(other.id) and fence.is_current(attempt(5).id)


def test_the_end_of_an_execution_ends_all_its_steps(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    fence.enter(attempt(1))

    fence.end_all(attempt(1).id.execution)

    assert not fence.is_current(attempt(1).id)


def test_only_old_marks_of_what_was_cleaned_up_are_forgotten(tmp_path: Path) -> None:
    fence, later = Fence(tmp_path), 2.0**40
    ended = replace(attempt(1), id=attempt_id("ended"))
    fence.enter(attempt(1))
    fence.enter(ended)
    fence.end(ended.id)

    fence.forget(later)

    assert fence.is_current(attempt(1).id)
    assert fence.enter(ended) == ()


def test_an_attempt_that_was_not_begun_may_ask_again_and_is_forgotten_in_time(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    fence.enter(attempt(2))
    fence.rest(attempt(2).id, unless=lambda: False)

    with pytest.raises(Fenced):
        fence.enter(attempt(1))
    assert fence.is_current(attempt(2).id)
    assert fence.enter(attempt(2)) == ()
    fence.forget(2.0**40)
    assert fence.is_current(attempt(2).id)  # for it was asked again

    fence.rest(attempt(2).id, unless=lambda: False)
    fence.forget(2.0**40)
    assert list(tmp_path.iterdir()) == []


def test_who_is_about_to_enter_or_has_replaced_an_attempt_does_not_rest(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    fence.enter(attempt(1))
    fence.rest(attempt(1).id, unless=lambda: True)
    fence.enter(attempt(2))
    fence.rest(attempt(1).id, unless=lambda: False)

    fence.forget(2.0**40)

    assert fence.is_current(attempt(2).id)


def test_what_a_dead_writer_left_is_forgotten(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    fence.end(attempt(1).id)
    (folder,) = tmp_path.iterdir()
    (folder / ".new-half").touch()

    fence.forget(2.0**40)

    assert list(tmp_path.iterdir()) == []


@settings(max_examples=30)  # every one writes through to the disk
@given(st.lists(st.tuples(st.sampled_from(["enter", "end"]), st.integers(1, 4)), max_size=12))
def test_tokens_never_go_back(tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, int]]) -> None:
    folder = tmp_path_factory.mktemp("tokens")
    newest, ended = 0, set[int]()
    for verb, number in calls:
        fence = Fence(folder)  # a restart between any two calls
        if verb == "end":
            fence.end(attempt(number).id)
            ended.add(number)
            newest = max(newest, number)
            continue
        late = number < newest or number in ended
        try:
            fence.enter(attempt(number))
        except Fenced:
            assert late
        else:
            assert not late
            newest = number
