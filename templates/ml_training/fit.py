"""One model of the kind that is asked for. Add yours to MODELS, and its name to `items` in the workflow."""

import joblib
from samples import read  # the file beside this one
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MODELS = {
    "linear": lambda seed: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed)),
    "forest": lambda seed: RandomForestClassifier(n_estimators=100, random_state=seed),
}


def main(training, model, kind, seed):
    rows, targets = read(training)
    joblib.dump(MODELS[kind](seed).fit(rows, targets), model)  # where the step's output `model` is taken from
    return {"kind": kind, "rows": len(rows)}
