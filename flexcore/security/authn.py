"""Who is asking: one static token, of which a server keeps only the hash.

The token is made when a server first starts on a store, shown once, and never written anywhere by FlexCore. Tokens
are compared by hash in constant time. Nothing here ever prints or logs one.
"""

import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from flexcore.model.errors import InvalidSettings, PermissionDenied

FILE_NAME = "server-token"

_SCHEME = "bearer"
_SHORTEST = 16
_HASH_PREFIX = "sha256-"


@dataclass(frozen=True, slots=True)
class TokenVerifier:
    """Knows the hash of the one token."""

    digest: bytes = field(repr=False)

    def accepts(self, token: str) -> bool:
        """Say whether this is the token; takes as long for a near miss as for a far one."""
        return hmac.compare_digest(_digest(token), self.digest)

    def accepts_authorization(self, value: str) -> bool:
        """Say whether an `Authorization` value is `Bearer` and the token."""
        scheme, _, token = value.partition(" ")
        return scheme.lower() == _SCHEME and self.accepts(token.strip())


def verifier_of(token: str) -> TokenVerifier:
    """Accept a token that the operator chose. Raises InvalidSettings when it is short or not plain ASCII."""
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        hint = f"at least {_SHORTEST} printable ASCII characters without spaces"
        raise InvalidSettings("the server's token is not usable", hint=hint)
    return TokenVerifier(_digest(token))


def load_or_create_token(folder: Path) -> tuple[TokenVerifier, str | None]:
    """Load the verifier kept in a store's folder; the first time, make a token and give its text too, this once.

    Of several servers that start at once, one makes the token and the others load it.
    """
    path = folder / FILE_NAME
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        token = f"fxt_{secrets.token_urlsafe(32)}"
        if _keep(path, _digest(token)):
            return TokenVerifier(_digest(token)), token
    return _load(path), None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _keep(path: Path, digest: bytes) -> bool:
    """Write whole and private, then give it its name; False when somebody else was first."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{_HASH_PREFIX}{digest.hex()}\n")
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(scratch)
    except FileExistsError:
        return False
    finally:
        scratch.unlink(missing_ok=True)
    return True


def _load(path: Path) -> TokenVerifier:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise PermissionDenied(f"{path} can be used by others than its owner", hint=f"chmod 600 {path}")
    text = path.read_text(errors="replace").strip()
    try:
        digest = bytes.fromhex(text.removeprefix(_HASH_PREFIX))
    except ValueError:
        digest = b""
    if not text.startswith(_HASH_PREFIX) or len(digest) != hashlib.sha256().digest_size:
        hint = "delete it; the next start makes a new token"
        raise InvalidSettings(f"{path} does not hold a token's hash", hint=hint)
    return TokenVerifier(digest)
