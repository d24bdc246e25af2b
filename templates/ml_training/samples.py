"""Reads what `prepare` wrote: rows of measurements, and what each turned out to be."""

import csv
from pathlib import Path


def read(path):
    with Path(path).open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        next(lines)
        rows = [[float(value) for value in line] for line in lines]
    return [row[:-1] for row in rows], [int(row[-1]) for row in rows]
