"""How often a model is right about what it has not seen, and in which way it is wrong."""

import joblib
from samples import read  # the file beside this one
from sklearn.metrics import accuracy_score, confusion_matrix, roc_auc_score


def main(model, evaluation, kind):
    rows, targets = read(evaluation)
    learned = joblib.load(model)
    found = learned.predict(rows)
    (_, false_benign), (false_malignant, _) = confusion_matrix(targets, found).tolist()
    return {
        "kind": kind,
        "rows": len(rows),
        "accuracy": round(float(accuracy_score(targets, found)), 4),
        "auc": round(float(roc_auc_score(targets, learned.predict_proba(rows)[:, 1])), 4),
        "false_benign": false_benign,
        "false_malignant": false_malignant,
    }
