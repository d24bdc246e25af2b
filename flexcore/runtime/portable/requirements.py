"""What may stand in `packages`: one requirement a string, by name, as PEP 508 writes them.

Nothing that the installer could take for an option or a file, and no credentials: those belong in its own environment
variables. Problems never quote what was given: it may hold a secret. Standard library only.
"""

import re
from urllib.parse import urlsplit

LONGEST = 1000
MOST = 500
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VERSION = r"(?:===|~=|==|!=|<=|>=|<|>)\s*[A-Za-z0-9._*+!-]+"
_REQUIREMENT = re.compile(
    rf"(?P<name>{_NAME})\s*(?:\[\s*(?P<extras>{_NAME}(?:\s*,\s*{_NAME})*)?\s*\])?\s*"
    rf"(?:(?P<versions>{_VERSION}(?:\s*,\s*{_VERSION})*)|@\s*(?P<url>[a-z+]+://[^\s;]+))?"
    r"\s*(?:;\s*(?P<marker>[^\s;][^;]*))?"
)
_FILES = (".whl", ".txt", ".gz", ".zip", ".toml")
_SCHEMES = ("https", "http", "git+https", "git+ssh")


def normal(requirement: str) -> str:
    """Spell a requirement in the one way that all its spellings share. Raises ValueError with what is wrong."""
    text = requirement.strip()
    if len(text) > LONGEST or not text.isprintable():
        raise ValueError(f"a requirement is one line of at most {LONGEST} characters")
    if text.startswith("-"):
        raise ValueError("a requirement does not begin with `-`: options of the installer cannot be given here")
    found = _REQUIREMENT.fullmatch(text)
    if found is None or (text.endswith(_FILES) and "://" not in text):
        raise ValueError(_advice(text))
    name = _folded(found["name"])
    extras = sorted({_folded(each.strip()) for each in (found["extras"] or "").split(",") if each.strip()})
    versions = sorted({re.sub(r"\s", "", each) for each in (found["versions"] or "").split(",") if each.strip()})
    origin = f" @ {_checked(found['url'])}" if found["url"] else ",".join(versions)
    marker = f" ; {' '.join(found['marker'].split())}" if found["marker"] else ""
    return f"{name}{'[' + ','.join(extras) + ']' if extras else ''}{origin}{marker}"


def normal_set(requirements: list[str]) -> list[str]:
    """Spell a list of them so that order and repeats make no difference."""
    if len(requirements) > MOST:
        raise ValueError(f"{len(requirements)} requirements are more than {MOST}")
    return sorted({normal(each) for each in requirements})


def _folded(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        named = parts.username if parts.scheme != "git+ssh" else None
    except ValueError as error:
        raise ValueError("the address of a requirement cannot be read") from error
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"a requirement comes from one of {', '.join(_SCHEMES)}; paths and files are not supported")
    if parts.password is not None or named:
        raise ValueError(
            "a requirement holds credentials; give them to the installer, as in the step's `env` "
            '{UV_INDEX_NAME_PASSWORD: "${{ secrets.NAME }}"}'
        )
    return url


def _advice(text: str) -> str:
    if "://" in text.split(";")[0] and "@" not in text.split("://")[0]:
        return "an address needs the name before it: `name @ https://…`"
    if text.startswith((".", "/", "~")) or text.endswith(_FILES):
        return "a requirement is a package's name, not a path; put own modules beside the workflow and use `file`"
    return "not a requirement; write for example `pandas==2.2.*`, `httpx[http2]>=0.27` or `name @ https://…`"
