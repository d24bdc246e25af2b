import base64
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexcore.model.errors import InvalidInput, NotFound, PermissionDenied
from flexcore.security.secrets import RedactingStream, Redactor, SecretSource

VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="*"), min_size=6, max_size=24)


def source(folder: Path, **environ: str) -> SecretSource:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return SecretSource(environ, folder, home)


def encodings(value: str) -> list[bytes]:
    raw = value.encode()
    return [
        raw,
        base64.b64encode(b"user:" + raw),
        base64.b64encode(raw + b":x"),
        base64.b64encode(b"ab" + raw),
        base64.urlsafe_b64encode(raw),
        quote(value).encode(),
        quote(value, safe="").encode(),
        quote_plus(value).encode(),
        json.dumps(value).encode(),
        json.dumps(value, ensure_ascii=False).encode(),
    ]


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def streamed(redactor: Redactor, chunks: Iterable[bytes]) -> bytes:
    stream = RedactingStream(redactor)
    return b"".join(stream.feed(chunk) for chunk in chunks) + stream.flush()


def test_the_environment_comes_first(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEY=from-file\n")

    assert source(tmp_path, FLEXCORE_SECRET_KEY="from-environment").get("KEY") == "from-environment"


@pytest.mark.parametrize(
    ("line", "value"),
    [("KEY=plain", "plain"), ("export KEY = 'a # b'", "a # b"), ('KEY="x=y"', "x=y"), ("KEY=v # note", "v")],
)
def test_a_dotenv_line_is_read(tmp_path: Path, line: str, value: str) -> None:
    (tmp_path / ".env").write_text(f"# comment\nOTHER=1\n{line}\n")

    assert source(tmp_path).get("KEY") == value


def test_a_private_secrets_file_is_read(tmp_path: Path) -> None:
    secrets = source(tmp_path)
    path = tmp_path / "home" / "secrets.yaml"
    path.write_text("KEY: '007'\n")
    path.chmod(0o600)

    assert secrets.get("KEY") == "007"


def test_a_secrets_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    secrets = source(tmp_path)
    path = tmp_path / "home" / "secrets.yaml"
    path.write_text("KEY: value\n")
    path.chmod(0o640)

    with pytest.raises(PermissionDenied) as refusal:
        secrets.get("KEY")

    assert "chmod 600" in refusal.value.hint


def test_a_broken_secrets_file_is_not_quoted(tmp_path: Path) -> None:
    secrets = source(tmp_path)
    path = tmp_path / "home" / "secrets.yaml"
    path.write_text('KEY: "hunter22\n')
    path.chmod(0o600)

    with pytest.raises(InvalidInput) as refusal:
        secrets.get("KEY")

    assert "hunter22" not in f"{refusal.value} {refusal.value.__cause__} {refusal.value.__context__}"


def test_an_unknown_secret_names_the_places(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as missing:
        source(tmp_path).get("NOPE")

    assert "NOPE" in missing.value.message
    assert "FLEXCORE_SECRET_NOPE" in missing.value.hint
    assert "secrets.yaml" in missing.value.hint


def test_a_name_with_other_characters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        source(tmp_path).get("../x")


def test_short_values_are_left_alone() -> None:
    assert Redactor(["abc", ""]).text("abcabc") == "abcabc"


def test_json_is_redacted_at_every_depth() -> None:
    redacted = Redactor(["hunter22"]).json({"hunter22": ["x hunter22", {"a": "hunter22"}, 7, None]})

    assert redacted == {"***": ["x ***", {"a": "***"}, 7, None]}


def test_bytes_keep_their_length() -> None:
    assert Redactor(["hunter22"]).blob(b"a hunter22 b") == b"a ******** b"


def test_overlapping_secrets_are_both_redacted() -> None:
    assert Redactor(["abcdef", "defghi"]).blob(b"abcdefghi") == b"*********"


@given(VALUES, st.binary(max_size=20), st.binary(max_size=20))
def test_no_form_survives_in_bytes(value: str, before: bytes, after: bytes) -> None:
    redactor = Redactor([value])

    for form in encodings(value):
        redacted = redactor.blob(before + form + after)
        assert len(redacted) == len(before) + len(form) + len(after)
        assert form not in redacted


@given(VALUES)
def test_no_form_survives_in_text(value: str) -> None:
    redactor = Redactor([value])

    for form in encodings(value):
        assert form.decode() not in redactor.text(f"x{form.decode()}y")


@given(
    st.lists(VALUES, min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.binary(max_size=12)), max_size=4),
    st.lists(st.integers(0, 10_000), max_size=12),
)
def test_a_stream_is_redacted_alike_however_it_is_cut(
    values: list[str], parts: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    redactor = Redactor(values)
    data = b"".join(encodings(values[which % len(values)])[form] + tail for which, form, tail in parts)

    result = streamed(redactor, pieces(data, cuts))

    assert result == redactor.blob(data)


def test_a_stream_holds_back_little() -> None:
    redactor = Redactor(["hunter22"])
    stream = RedactingStream(redactor)

    stream.feed(b"x" * 10_000)

    assert stream.held_bytes < 2 * redactor.longest
