"""Secrets by name, and keeping their values out of everything that is kept or shown.

A value is looked up at dispatch and lives in memory only. Whatever leaves the process for a log, an error or the store
goes through a redactor first: as written, base64 (at any alignment), URL-encoded and JSON-escaped. Values shorter than
four characters are not redacted: they would blot out ordinary text, and are no secrets.
"""

import base64
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

from flexcore.model.errors import InvalidInput, NotFound, PermissionDenied
from flexcore.model.values import JSON

SHORTEST = 4
MASK = "***"
SECRETS_FILE = "secrets.yaml"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOTENV_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")
_VARIABLE = "FLEXCORE_SECRET_"


class SecretSource:
    """Finds secrets: `FLEXCORE_SECRET_NAME`, then `.env` of the folder and the home, then the home's `secrets.yaml`.

    Files are read at every look-up, so that a rotated secret is used without a restart.
    """

    def __init__(self, environ: Mapping[str, str], folder: Path, home: Path) -> None:
        self._environ = environ
        self._dotenvs = tuple(dict.fromkeys((folder / ".env", home / ".env")))
        self._file = home / SECRETS_FILE

    def get(self, name: str) -> str:
        """Give a secret's value. Raises NotFound naming the places looked at, PermissionDenied for an open file."""
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"{name!r} cannot be the name of a secret", hint="letters, digits and underscores")
        if (value := self._environ.get(_VARIABLE + name)) is not None:
            return value
        for path in self._dotenvs:
            if path.is_file() and (value := _dotenv(path).get(name)) is not None:
                return value
        if (value := _secrets_file(self._file).get(name)) is not None:
            return value
        places = ", ".join([_VARIABLE + name, *map(str, self._dotenvs), str(self._file)])
        raise NotFound(f"there is no secret {name}", hint=f"looked at {places}")


def _dotenv(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    matches = (_DOTENV_LINE.fullmatch(line) for line in lines)
    return {match[1]: _unquoted(match[2]) for match in matches if match}


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return re.split(r"\s+#", text, maxsplit=1)[0]


def _secrets_file(path: Path) -> dict[str, str]:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return {}
    with os.fdopen(descriptor, encoding="utf-8") as file:
        # Asked of the open file, so that nobody can swap it between the look and the reading.
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            raise PermissionDenied(f"{path} can be read by others than its owner", hint=f"chmod 600 {path}")
        return _mapping(file.read(), path)


def _mapping(text: str, path: Path) -> dict[str, str]:
    import yaml  # slow to load, and most installations have no such file

    try:
        content = yaml.load(text, yaml.BaseLoader)  # noqa: S506  the base loader makes nothing but text
    except yaml.YAMLError:
        # The parser's own words may quote the file, and with it a secret: neither its message nor its chain is kept.
        content = text
    if content is None or content == "":
        return {}
    if not isinstance(content, dict) or not all(isinstance(each, str) for each in content.values()):
        raise InvalidInput(f"{path} is not a list of secrets", hint="one `NAME: value` a line, values in quotes")
    return {str(name): value for name, value in content.items()}


class Redactor:
    """Replaces secret values, in every form they may have taken, in text, bytes and JSON."""

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values if len(value) >= SHORTEST for form in _forms(value)}
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile(b"|".join(map(re.escape, longest_first))) if forms else None
        self._text = re.compile("|".join(re.escape(_decoded(form)) for form in longest_first)) if forms else None
        self.longest = len(longest_first[0]) if forms else 0

    def text(self, value: str) -> str:
        """Redact a string: `***` for each occurrence, whatever its length."""
        return self._text.sub(MASK, value) if self._text else value

    def blob(self, value: bytes) -> bytes:
        """Redact bytes, keeping the length: asterisks for each byte of an occurrence. Logs are kept by offset."""
        return _blotted(value, self.spans(value))

    def spans(self, value: bytes) -> list[tuple[int, int]]:
        """Give the places of secrets in bytes, overlapping ones too, by their start."""
        return list(self._spans(value))

    def _spans(self, value: bytes) -> Iterator[tuple[int, int]]:
        at = 0
        while self._pattern and (match := self._pattern.search(value, at)):
            yield match.span()
            at = match.start() + 1

    def json(self, value: JSON) -> JSON:
        """Redact every string inside a JSON value, keys too."""
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return {self.text(key): self.json(each) for key, each in value.items()}
            case list() | tuple():
                return [self.json(each) for each in value]
            case _:
                return value


class RedactingStream:
    """Redacts one stream of bytes that comes in pieces: holds back what may be the beginning of a secret.

    What comes out is as long as what went in, byte for byte at its place. Fewer bytes than twice the longest form are
    held back.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""

    @property
    def held_bytes(self) -> int:
        """Say how many bytes have gone in and not come out yet."""
        return len(self._held)

    def feed(self, data: bytes) -> bytes:
        """Take a piece; give what can be given."""
        # What is held is redacted already where a secret is complete: asterisks never are the beginning of one again.
        held = self._held + data
        spans = self._redactor.spans(held)
        safe = max(0, len(held) - max(0, self._redactor.longest - 1))
        # A secret that reaches into the tail stays whole in it, until it cannot be the beginning of a longer one.
        for start, end in spans:
            if start < safe < end:
                safe = start
                break
        self._held = held[safe:]
        return _blotted(held, spans)[:safe]

    def flush(self) -> bytes:
        """Give the rest: the stream has ended."""
        held, self._held = self._held, b""
        return self._redactor.blob(held)


def _blotted(value: bytes, spans: Iterable[tuple[int, int]]) -> bytes:
    result = bytearray(value)
    for start, end in spans:
        result[start:end] = b"*" * (end - start)
    return bytes(result)


def _decoded(form: bytes) -> str:
    return form.decode("utf-8", "surrogateescape")


def _forms(value: str) -> Iterator[bytes]:
    raw = value.encode("utf-8", "surrogateescape")
    yield raw
    yield from _base64_forms(raw)
    yield from (form.encode() for form in (quote(raw), quote(raw, safe=""), quote_plus(raw), _lower_quoted(raw)))
    for ascii_only in (True, False):
        escaped = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield from (each.encode("utf-8", "surrogateescape") for each in (escaped, escaped.replace("/", "\\/")))


def _lower_quoted(raw: bytes) -> str:
    return re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), quote(raw, safe=""))


def _base64_forms(raw: bytes) -> Iterator[bytes]:
    """Give the part of the base64 text that depends on the value alone, for each of its three places in a text.

    Inside a longer text (`user:password` of an Authorization header) a value may begin at any of three bits; the
    characters at its ends then mix with its neighbours.
    """
    for before in range(3):
        first = (before * 8 + 5) // 6
        last = (before + len(raw)) * 8 // 6
        padded = b"\0" * before + raw + b"\0" * 3
        for encoded in (base64.b64encode(padded), base64.urlsafe_b64encode(padded)):
            if last - first >= SHORTEST:
                yield encoded[first:last]
