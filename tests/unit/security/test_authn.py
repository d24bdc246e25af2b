"""The one token: made once, kept as a hash, compared whole."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flexcore.model.errors import InvalidSettings, PermissionDenied
from flexcore.security.authn import FILE_NAME, load_or_create_token, verifier_of


def test_the_first_start_makes_a_token_and_later_ones_know_it(tmp_path: Path) -> None:
    first, token = load_or_create_token(tmp_path / "store")
    second, again = load_or_create_token(tmp_path / "store")

    assert token is not None
    assert len(token) > 40
    assert again is None
    assert first.accepts(token)
    assert second.accepts(token)
    assert not second.accepts(token + "x")
    assert not second.accepts(token[:-1])
    assert not second.accepts("")


def test_only_the_hash_is_kept_and_only_for_the_owner(tmp_path: Path) -> None:
    verifier, token = load_or_create_token(tmp_path)
    path = tmp_path / FILE_NAME

    assert [each.name for each in tmp_path.iterdir()] == [FILE_NAME]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token is not None
    assert token not in path.read_text()
    assert path.read_text().startswith("sha256-")
    assert verifier.digest.hex() not in repr(verifier)


def test_of_many_first_starts_one_makes_the_token(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: load_or_create_token(tmp_path), range(16)))

    made = [token for _, token in found if token is not None]
    assert len(made) == 1
    assert all(verifier.accepts(made[0]) for verifier, _ in found)
    assert [each.name for each in tmp_path.iterdir()] == [FILE_NAME]


def test_stores_have_different_tokens(tmp_path: Path) -> None:
    _, one = load_or_create_token(tmp_path / "a")
    verifier, _ = load_or_create_token(tmp_path / "b")

    assert one is not None
    assert not verifier.accepts(one)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    load_or_create_token(tmp_path)
    (tmp_path / FILE_NAME).chmod(mode)

    with pytest.raises(PermissionDenied, match="others"):
        load_or_create_token(tmp_path)


@pytest.mark.parametrize("text", ["", "secret", "sha256-", "sha256-zz", "sha256-abcd", "md5-" + "0" * 64])
def test_a_file_with_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    load_or_create_token(tmp_path)
    (tmp_path / FILE_NAME).write_text(text)

    with pytest.raises(InvalidSettings, match="does not hold"):
        load_or_create_token(tmp_path)


def test_an_operator_may_choose_the_token() -> None:
    assert verifier_of("chosen-by-somebody").accepts("chosen-by-somebody")
    assert not verifier_of("chosen-by-somebody").accepts("chosen-by-somebody-else")


@pytest.mark.parametrize(
    "token", ["", "short", "with spaces in the middle", "nicht-ganz-ascii-ü", "line\nbreak-in-token"]
)
def test_a_token_that_cannot_work_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        verifier_of(token)

    assert not token or token not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "accepted"),
    [("Bearer chosen-by-somebody", True), ("bearer  chosen-by-somebody ", True), ("Basic chosen-by-somebody", False),
     ("chosen-by-somebody", False), ("", False), ("Bearer", False), ("Bearer \udcff", False)],
)  # fmt: skip
def test_authorization_is_bearer_and_the_token(value: str, accepted: bool) -> None:
    assert verifier_of("chosen-by-somebody").accepts_authorization(value) is accepted
