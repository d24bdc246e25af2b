"""What a sweep of one runtime found, and what became of it, as a document."""

from flexcore.engine.services.sweep import Swept
from flexcore.model.requests import Document


def sweep_document(runtime: str, swept: Swept, *, dry_run: bool) -> Document:
    """Show each orphan with the reason why it is still there, if it is."""
    return {
        "runtime": runtime,
        "dry_run": dry_run,
        "orphans": [
            {
                "name": each.name,
                "execution": each.attempt.execution,
                "path": each.attempt.path,
                "attempt": each.attempt.number,
                "gone": not each.remains,
                "reason": each.remains,
            }
            for each in swept.orphans
        ],
        "executions": list(swept.over),
        "in_flight": swept.in_flight,
        "retained": list(swept.retained),
    }
