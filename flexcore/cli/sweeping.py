"""What a sweep of a runtime found, in lines for people."""

from collections.abc import Iterator

from flexcore.cli.render import clean, table
from flexcore.model.requests import Document


def swept_lines(swept: Document) -> Iterator[str]:
    """Say what was found, what became of it, and what was left alone."""
    orphans, looked = swept["orphans"], swept["dry_run"]
    if orphans:
        rows = [
            (each["name"], each["execution"], each["path"], str(each["attempt"]), _fate(each, looked=looked))
            for each in orphans
        ]
        yield from table(("NAME", "EXECUTION", "STEP", "ATTEMPT", ""), rows, right=(3,))
    gone = len(orphans) if looked else sum(each["gone"] for each in orphans)
    yield f"{swept['runtime']}: {_counted(gone)} {'would go' if looked else 'removed'}{_kept(swept)}"
    if looked and orphans:
        yield f"remove them: flexcore runtime cleanup {swept['runtime']} --orphans"


def _counted(number: int) -> str:
    return {0: "no orphans", 1: "1 orphan"}.get(number, f"{number} orphans")


def _kept(swept: Document) -> str:
    kept = f"; {swept['in_flight']} in flight left alone" if swept["in_flight"] else ""
    retained = ", ".join(clean(each) for each in swept["retained"])
    return kept + (f"; meant to stay: {retained}" if retained else "")


def _fate(orphan: Document, *, looked: bool) -> str:
    if looked:
        return "would go"
    return "gone" if orphan["gone"] else clean(f"still there: {orphan['reason']}")
