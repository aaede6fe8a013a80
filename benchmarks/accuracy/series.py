"""What strides, dilations and kernels for series are worth on development data.

    python benchmarks/accuracy/series.py                 # an hour and a half
    python benchmarks/accuracy/series.py --only OSULeaf --arms "default"

The training parts of the sets in aeon, by shuffled, stratified folds: five, or two where
there are 60 series or more. And mnist1d, of which 100 or 400 series are generated
to train on and 1,500 others to score, by other seeds than that of the published set. Means
of accuracy, log-loss, and seconds of the processor for a fit, on one thread. The seed
changes the weights, the folds and what is generated.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold

sys.path.append(str(Path(__file__).parents[1]))
import run
from results import add_option, record_seeds

from sk_resnet import ResNetClassifier

ARMS = {
    "strides (15, 7)": {"layout": "small", "block": (15, 7)},
    "strides (7, 3)": {"layout": "small", "block": (7, 3)},
    "dilations (9, 5)": {"layout": "dilated", "block": (9, 5)},
    "default": {},
}
SETS = [
    "ArrowHead",
    "GunPoint",
    "ItalyPowerDemand",
    "PickupGestureWiimoteZ",
    "OSULeaf",
    "ACSF1",
    "JapaneseVowels",
    "BasicMotions",
    "mnist1d, 100",
    "mnist1d, 400",
]


def splits(name, seed):
    """(X_train, y_train, X_test, y_test) of every fold of a set."""
    if name.startswith("mnist1d"):
        from mnist1d.data import get_dataset_args, make_dataset

        n, options = int(name.split()[-1]), get_dataset_args()
        options.seed, options.num_samples = 101 + seed, 5000
        data = make_dataset(options)
        X, y = data["x"][:, None], data["y"]
        return [(X[:n], y[:n], X[n : n + 1500], y[n : n + 1500])]
    X, y, _, _ = run.series(name)
    folds = StratifiedKFold(5 if len(y) < 60 else 2, shuffle=True, random_state=seed)
    return [(X[a], y[a], X[b], y[b]) for a, b in folds.split(np.zeros(len(y)), y)]


def measured(name, parameters, seed):
    """Means over the folds by name of the measure."""
    rows = []
    for X_train, y_train, X_test, y_test in splits(name, seed):
        model = ResNetClassifier(random_state=seed, **parameters)
        started = time.process_time()
        model.fit(X_train, y_train)
        seconds = time.process_time() - started
        probabilities = model.predict_proba(X_test)
        rows.append(
            {
                "accuracy": accuracy_score(y_test, model.classes_[probabilities.argmax(1)]),
                "log_loss": log_loss(y_test, probabilities, labels=model.classes_),
                "seconds": seconds,
            }
        )
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def main():
    """Print and record a row for each set and arm."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="sets, by semicolon; or all")
    parser.add_argument("--arms", help="some of them, by semicolon")
    parser.add_argument("--seeds", type=int, default=1)
    add_option(parser, __file__)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.only.split(";") if options.only else SETS:
        for arm in options.arms.split(";") if options.arms else ARMS:
            by_seed = [measured(name, ARMS[arm], s) for s in range(options.seeds)]
            record_seeds(options.json, "series", name, arm, by_seed)


if __name__ == "__main__":
    main()
