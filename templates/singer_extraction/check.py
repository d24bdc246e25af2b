"""Compare the target with the source: every flight once, none lost, none from nowhere, the same sums.

DuckDB is installed with the loader and nowhere else, so the loader's own interpreter does the reading.
"""

import csv
import json
import subprocess
from pathlib import Path

READ = """
import duckdb, json, sys
with duckdb.connect(sys.argv[1], read_only=True) as database:
    cursor = database.execute(sys.argv[2], json.loads(sys.argv[3]))
    names = [column[0] for column in cursor.description]
    print(json.dumps([dict(zip(names, row)) for row in cursor.fetchall()]))
"""

FLIGHTS = """
select count(*)::bigint as rows, count(distinct flight_id)::bigint as ids,
       coalesce(sum(distance), 0)::bigint as miles, coalesce(sum(dep_delay), 0)::bigint as delay_minutes,
       count(*) filter (where dep_time is null)::bigint as not_departed,
       count(*) filter (where carrier not in (select carrier from airlines))::bigint as unknown_carrier
from flights
"""


def main(extract, minimum_rows=0):
    source = count(Path(extract["project"], "data", "flights.csv"))
    found = query(extract, FLIGHTS)[0]
    problems = [
        f"{name}: {found[name]} in the target, {source[name]} in the source"
        for name in source
        if found[name] != source[name]
    ]
    if found["ids"] != found["rows"]:
        problems.append(f"{found['rows'] - found['ids']} flights are there more than once")
    if found["unknown_carrier"]:
        problems.append(f"{found['unknown_carrier']} flights have a carrier that is not among the airlines")
    if found["rows"] < minimum_rows:
        problems.append(f"{found['rows']} flights in the target, at least {minimum_rows} expected")
    if problems:
        raise ValueError("; ".join(problems) + " (full_refresh: true loads everything again)")
    return {
        "rows": found["rows"],
        "duplicates": 0,
        "missing": 0,
        "not_departed": found["not_departed"],
        "miles": found["miles"],
        "delay_minutes": found["delay_minutes"],
    }


def count(path):
    totals = {"rows": 0, "miles": 0, "delay_minutes": 0, "not_departed": 0}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            totals["rows"] += 1
            totals["miles"] += int(row["distance"])
            totals["delay_minutes"] += int(row["dep_delay"] or 0)
            totals["not_departed"] += not row["dep_time"]
    return totals


def query(extract, sql, *parameters):
    python = extract["plugins"]["target-duckdb"]["python"]
    command = [python, "-c", READ, extract["output_location"], sql, json.dumps(parameters)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
