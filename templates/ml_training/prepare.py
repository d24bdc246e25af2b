"""The measurements of 569 tumours, split into what is learned from and what is judged by."""

import csv
from pathlib import Path

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split


def main(training, evaluation, held_out, seed):
    measured = load_breast_cancer()
    rows = [[*map(float, row), int(target)] for row, target in zip(measured.data, measured.target, strict=True)]
    parts = train_test_split(rows, test_size=held_out, random_state=seed, stratify=measured.target)
    for path, part in zip((training, evaluation), parts, strict=True):
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*measured.feature_names, "benign"])
            writer.writerows(part)
    return {"features": len(measured.feature_names), "rows": [len(part) for part in parts]}
