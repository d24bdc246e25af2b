"""Load one day: here into a file of its own, replaced as a whole, so that a second time changes nothing.

The rows are generated; put your own extract in place of `rows_of`. A late day has no export at its first try.
"""

import json
import random
from pathlib import Path

FOLDER = Path("output")


def main(day, is_late):
    FOLDER.mkdir(exist_ok=True)
    asked_before = FOLDER / f"{day}.asked"
    if is_late and not asked_before.exists():
        asked_before.touch()
        raise FileNotFoundError(f"the export of {day} is not there yet")
    rows = list(rows_of(day))
    unfinished = FOLDER / f"{day}.new"
    unfinished.write_text("".join(json.dumps(row) + "\n" for row in rows))
    unfinished.rename(FOLDER / f"{day}.jsonl")
    asked_before.unlink(missing_ok=True)
    return {"day": day, "rows": len(rows), "visits": sum(row["visits"] for row in rows)}


def rows_of(day):
    chance = random.Random(day)
    for hour in range(24):
        yield {"day": day, "hour": hour, "visits": chance.randint(0, 500)}
