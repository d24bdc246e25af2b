"""Tell good rows from bad ones. Bad rows go to a file with what is wrong with them; too many of them are an error."""

import json
from datetime import datetime
from pathlib import Path

COUNTRIES = {"DE", "FR", "NL", "PL"}
BAD_ROWS = Path("output/bad_rows.jsonl")


def main(orders, max_bad_rows):
    good, bad, seen = [], [], set()
    for order in orders:
        problems = list(problems_of(order, seen))
        seen.add(order.get("id"))
        if problems:
            bad.append({"problems": problems, "row": order})
        else:
            good.append(order)
    BAD_ROWS.parent.mkdir(exist_ok=True)
    BAD_ROWS.write_text("".join(json.dumps(each) + "\n" for each in bad))
    print(f"{len(good)} good rows, {len(bad)} bad ones, listed in {BAD_ROWS}")
    if len(bad) > max_bad_rows:
        raise ValueError(f"{len(bad)} of {len(orders)} rows are bad, {max_bad_rows} are allowed; see {BAD_ROWS}")
    return {"orders": good, "fetched": len(orders), "bad_rows": len(bad), "bad_rows_file": str(BAD_ROWS)}


def problems_of(order, seen):
    if not isinstance(order.get("id"), int) or order["id"] in seen:
        yield "id is missing or there twice"
    if not order.get("amount", 0) > 0:
        yield f"amount is {order.get('amount')}"
    if order.get("country") not in COUNTRIES:
        yield f"unknown country {order.get('country')}"
    try:
        datetime.fromisoformat(order.get("ordered_at", ""))
    except ValueError:
        yield f"ordered_at is no time: {order.get('ordered_at')!r}"
