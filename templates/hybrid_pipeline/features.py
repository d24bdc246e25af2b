"""What is known of a flight before it leaves: the same for training and for scoring."""

import json
from datetime import date
from pathlib import Path

NAMES = ["carrier", "origin", "dest", "hour", "weekday", "distance"]
CATEGORIES = [0, 1, 2]


def read(path):
    with Path(path).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def table(flights):
    """Columns for scikit-learn: a row per flight."""
    return [
        [
            flight["carrier"],
            flight["origin"],
            flight["dest"],
            flight["sched_dep_time"] // 100,
            date.fromisoformat(flight["date"]).weekday(),
            flight["distance"],
        ]
        for flight in flights
    ]


def arrived(flights):
    """The flights whose delay is known: those that were cancelled or diverted have none."""
    return [flight for flight in flights if flight["arr_delay"] is not None]
