"""Put the scores of all days together: how good they were, and a page with the routes most likely to be late.

Needs nothing but Python, so that it runs in any image.
"""

import html
import json
from collections import defaultdict
from pathlib import Path


def main(airlines, forecast, top, **days):
    names = {each["carrier"]: each["name"] for each in read(airlines)}
    scores = [line for path in days.values() for line in read(path)]
    known = [line for line in scores if line["late"] is not None]
    routes = ranked(scores)[:top]
    for route in routes:
        route["airlines"] = sorted(names.get(code, code) for code in route.pop("carriers"))
    with Path(forecast).open("w", encoding="utf-8") as file:
        file.write(page(routes, len(scores), len(days)))
    return {
        "flights": len(scores),
        "auc": round(auc([(line["chance"], line["late"]) for line in known]), 4),
        "routes": routes,
    }


def read(path):
    with Path(path).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def ranked(scores, least=10):
    """The routes by their mean chance of being late, those with enough flights to say so."""
    by_route = defaultdict(list)
    for line in scores:
        by_route[line["route"]].append(line)
    found = [
        {
            "route": route,
            "flights": len(lines),
            "chance": round(sum(line["chance"] for line in lines) / len(lines), 3),
            "late": sum(bool(line["late"]) for line in lines),
            "carriers": {line["carrier"] for line in lines},
        }
        for route, lines in by_route.items()
        if len(lines) >= least
    ]
    return sorted(found, key=lambda each: (-each["chance"], each["route"]))


def auc(pairs):
    """How often a late flight has the higher chance than one in time: 0.5 is a coin."""
    late = sum(is_late for _, is_late in pairs)
    if late in (0, len(pairs)):
        return 0.5
    ranks, place = 0.0, 0
    ordered = sorted(pairs)
    while place < len(ordered):
        end = place
        while end < len(ordered) and ordered[end][0] == ordered[place][0]:
            end += 1
        mean_rank = (place + 1 + end) / 2
        ranks += mean_rank * sum(is_late for _, is_late in ordered[place:end])
        place = end
    return (ranks - late * (late + 1) / 2) / (late * (len(pairs) - late))


def page(routes, flights, days):
    lines = "".join(
        f"<tr><td>{html.escape(each['route'])}<td>{each['chance']:.0%}<td>{each['flights']}"
        f"<td>{html.escape(', '.join(each['airlines']))}</tr>\n"
        for each in routes
    )
    return (
        "<!doctype html><meta charset=utf-8><title>Late arrivals</title>\n"
        f"<h1>Routes most likely to be late</h1><p>{flights} flights on {days} days</p>\n"
        f"<table><tr><th>route<th>chance<th>flights<th>airlines</tr>\n{lines}</table>\n"
    )
