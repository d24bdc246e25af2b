"""How likely each flight of a day is to arrive late, as the model has it, beside what came true."""

import json
from pathlib import Path

import joblib
from features import read, table  # the file beside this one


def main(flights, model, scores, day, late_minutes):
    learned = joblib.load(model)
    today = [flight for flight in read(flights) if flight["date"] == day]
    chances = learned.predict_proba(table(today))[:, 1]
    with Path(scores).open("w", encoding="utf-8") as file:
        for flight, chance in zip(today, chances, strict=True):
            delay = flight["arr_delay"]
            line = {
                "date": day,
                "carrier": flight["carrier"],
                "route": f"{flight['origin']}-{flight['dest']}",
                "chance": round(float(chance), 4),
                "late": None if delay is None else delay >= late_minutes,
            }
            file.write(json.dumps(line) + "\n")
    return {"day": day, "flights": len(today), "expected_late": round(float(chances.sum()), 1)}
