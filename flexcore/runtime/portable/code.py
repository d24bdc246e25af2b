"""The code of a step and what it is given, checked before anything is started."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from flexcore.model.values import JSON


class Refused(Exception):
    """The step cannot be started; nothing was."""


def text(value: JSON) -> str:
    """Spell a value for a command line or an environment: text as it is, null empty, everything else as JSON."""
    match value:
        case str():
            return value
        case None:
            return ""
        case _:
            return msgspec.json.encode(value).decode()


def bash_arguments(values: Sequence[JSON]) -> list[str]:
    """Spell the arguments of a `bash` step. Raises Refused."""
    spelled = [text(each) for each in values]
    if any("\0" in each for each in spelled):
        raise Refused("an argument holds a NUL character, which no command can be given")
    return spelled


def file_beside(name: str | None, folder: Path) -> Path | None:
    """Find the file that a step names. Raises Refused."""
    if name is None:
        return None
    path = (folder / name).absolute()
    if not path.is_file():
        raise Refused(f"file {name!r} is not in the workflow's folder")
    return path


def content_of(file: Path) -> str:
    """Read code. Raises Refused."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"file {file.name!r} cannot be read: {error}") from error


def without_secrets(packages: Sequence[str], secrets: Sequence[str]) -> Sequence[str]:
    """Refuse packages that hold a secret: what is installed is no secret anywhere. Raises Refused."""
    if any(secret in each for secret in secrets if secret for each in packages):
        raise Refused("a secret stands in `packages`; give it to the installer, as a UV_… variable in the step's `env`")
    return packages
