"""What was collected, or would be, as a document."""

from collections.abc import Sequence

from flexcore.engine.services.retention import Outcome
from flexcore.model.requests import CollectRequest, Document
from flexcore.monitor import document as show


def collection_document(outcomes: Sequence[Outcome], request: CollectRequest) -> Document:
    """Show what became of each kind, and of all of them together."""
    return {
        "dry_run": request.dry_run,
        "count": sum(each.collected.count for each in outcomes),
        "bytes": sum(each.collected.bytes for each in outcomes),
        "kinds": [_kind(each) for each in outcomes],
    }


def _kind(outcome: Outcome) -> Document:
    return {
        "kind": outcome.kind.value,
        "before": show.time(outcome.before),
        "count": outcome.collected.count,
        "bytes": outcome.collected.bytes,
        "note": outcome.note or None,
    }
