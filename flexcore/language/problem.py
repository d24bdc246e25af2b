"""One thing wrong inside a text, before anybody knows which file the text is from."""

from dataclasses import dataclass
from difflib import get_close_matches

from flexcore.model.template import Position


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, a stable code, how to mend it, and where. The front end makes a Diagnostic of it."""

    message: str
    code: str
    hint: str
    position: Position


def moved(start: Position, text: str, offset: int, margin: int | None = None) -> Position:
    """Find a place inside a text that starts at `start`; its further lines start at `margin`, else in the same column.

    Exact for one line and for `|` blocks; approximate where YAML folds lines or a quoted text has escapes.
    """
    line_start = text.rfind("\n", 0, offset) + 1
    left = start.column if line_start == 0 or margin is None else margin
    return Position(line=start.line + text.count("\n", 0, offset), column=left + offset - line_start)


def suggestion(name: str, known: "frozenset[str] | set[str]", otherwise: str = "") -> str:
    """Say which known name was probably meant, or else list them."""
    near = get_close_matches(name, sorted(known), n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    return otherwise or (f"known: {', '.join(sorted(known))}" if known else "")
