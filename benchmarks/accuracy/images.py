"""What the penalty of images, and views of predictions, are worth on development data.

    python benchmarks/accuracy/images.py                    # half an hour
    python benchmarks/accuracy/images.py --only digits

Fashion-MNIST: 24,000 images of the training part, drawn with seed 0, for 8 epochs, and
10,000 others of it to score. Digits: 5 shuffled, stratified folds for each seed, as many
epochs as by default. Accuracy and log-loss of ResNetClassifier, its log-loss with
`test_time_augmentation`, and the seconds of the processor for a fit, on one thread. The
seed changes the weights, and the folds.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold

sys.path.append(str(Path(__file__).parents[1]))
from results import add_option, mean_of, record
from run import FASHION, fashion, names

from sk_resnet import ResNetClassifier

N_TRAINED, N_SCORED, N_EPOCHS = 24_000, 10_000, 8
ARMS = {"l2 = 1e-4": {"l2": 1e-4}, "l2 = 5e-4": {"l2": 5e-4}}
VIEWS = ("crop", "flip")


def splits(name, seed, folder):
    """(X_train, y_train, X_test, y_test) of every fold, and parameters for the set."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        X = X.reshape(-1, 1, 8, 8)
        folds = StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y)
        return [(X[a], y[a], X[b], y[b]) for a, b in folds], {}
    X, y, _, _ = fashion(folder)
    order = np.random.default_rng(0).permutation(len(X))
    a, b = order[:N_TRAINED], order[-N_SCORED:]
    return [(X[a], y[a], X[b], y[b])], {"max_epochs": N_EPOCHS}


def measured(name, parameters, seed, folder):
    """Means over the folds by name of the measure."""
    folds, own = splits(name, seed, folder)
    rows = []
    for X_train, y_train, X_test, y_test in folds:
        model = ResNetClassifier(random_state=seed, **own, **parameters)
        started = time.process_time()
        model.fit(X_train, y_train)
        row = {"seconds": time.process_time() - started}
        probabilities = model.predict_proba(X_test)
        row["accuracy"] = accuracy_score(y_test, model.classes_[probabilities.argmax(1)])
        row["log_loss"] = log_loss(y_test, probabilities)
        for view in VIEWS:
            model.set_params(test_time_augmentation=view)
            row[f"log_loss {view}"] = log_loss(y_test, model.predict_proba(X_test))
        rows.append(row)
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def main():
    """Print and record a row for each set and strength."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", type=names, default="fashion,digits", help="sets, by comma"
    )
    parser.add_argument("--arms", type=names, default=",".join(ARMS), help="by comma")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--fashion", default=FASHION, help="folder of its files")
    add_option(parser, __file__)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.only:
        for arm in options.arms:
            by_seed = [
                measured(name, ARMS[arm], seed, options.fashion)
                for seed in range(options.seeds)
            ]
            found = {key: mean_of([row[key] for row in by_seed]) for key in by_seed[0]}
            shown = ", ".join(f"{key} {of['mean']:.4f}" for key, of in found.items())
            print(f"{name}, {arm}: {shown}", flush=True)
            record(options.json, "images", name, arm, found, seeds=range(options.seeds))


if __name__ == "__main__":
    main()
