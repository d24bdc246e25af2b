"""Learn from the earlier days of the month which flights arrive late; the last days are held out."""

import joblib
from features import CATEGORIES, NAMES, arrived, read, table  # the file beside this one
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def main(flights, model, days, late_minutes):
    known = arrived(read(flights))
    held_out = sorted({flight["date"] for flight in known})[-days:]
    training = [flight for flight in known if flight["date"] < held_out[0]]
    if not training:
        raise ValueError(f"no day is left to train on when {days} are held out")
    is_late = [flight["arr_delay"] >= late_minutes for flight in training]

    rest = [number for number in range(len(NAMES)) if number not in CATEGORIES]
    learned = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore", min_frequency=20), [*CATEGORIES, NAMES.index("weekday")]),
            (StandardScaler(), rest),
        ),
        LogisticRegression(max_iter=500),
    )
    rows = table(training)
    learned.fit(rows, is_late)
    joblib.dump(learned, model)  # where the step's output `model` is taken from
    return {
        "trained_on": len(training),
        "late": sum(is_late),
        "auc": round(float(roc_auc_score(is_late, learned.predict_proba(rows)[:, 1])), 4),
        "held_out": held_out,
    }
