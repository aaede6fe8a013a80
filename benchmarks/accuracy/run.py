"""Accuracy at default parameters, beside scikit-learn's models and published figures.

    python benchmarks/accuracy/run.py                      # all sets
    python benchmarks/accuracy/run.py --only iris,digits --seeds 3
    python benchmarks/accuracy/run.py --tables             # log-loss too: tabular.py
    python benchmarks/accuracy/run.py --embedding          # of the numbers in tables
    python benchmarks/accuracy/run.py --penalty            # l2 on tables
    python benchmarks/accuracy/run.py --held-out           # where no default was chosen
    python benchmarks/accuracy/run.py --imbalance          # 5 % positives: imbalance.py
    python benchmarks/accuracy/run.py --small              # 40 to 150 rows: small.py
    python benchmarks/accuracy/run.py --regression         # R², the sets of regression.py
    python benchmarks/accuracy/run.py --regression --only diabetes --arms Ridge,MLPRegressor

Bundled tables and digits: 5-fold stratified cross-validation. mnist1d, Fashion-MNIST and
the series of aeon: their own test part, on which no default was chosen. A row gives the
mean and the spread (standard deviation) over the seeds, which change the folds or the
weights, and the seconds of the processor that a fit takes.
"""

import argparse
import gzip
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.append(str(Path(__file__).parents[1]))
import imbalance
import regression
import small
import tabular
from results import add_option, mean_of, processor, record

FASHION = os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist")
PUBLISHED = {
    "fashion": "0.9496 (ResNet-20, 300 epochs, crop and flip)",
    "mnist1d": "0.94 (CNN), 0.96 (human)",
    # Wang et al. 2017, arXiv:1611.06455: 1500 epochs, mean of 5 runs.
    "ACSF1": "0.916",
    "ArrowHead": "0.838",
    "GunPoint": "0.991",
    "ItalyPowerDemand": "0.962",
    "OSULeaf": "0.980",
    "PickupGestureWiimoteZ": "0.704",
    "JapaneseVowels": "0.992",
}


def fashion(folder):
    """Training and test part of Fashion-MNIST as uint8 images."""

    def read(name, offset):
        with gzip.open(Path(folder) / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    X_train = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    X_test = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    y_train = read("train-labels-idx1-ubyte.gz", 8)
    y_test = read("t10k-labels-idx1-ubyte.gz", 8)
    return X_train, y_train, X_test, y_test


def mnist1d():
    """The 4,000 training and 1,000 test series that the package generates."""
    from mnist1d.data import get_dataset_args, make_dataset

    data = make_dataset(get_dataset_args())
    X_train, X_test = data["x"][:, None], data["x_test"][:, None]
    return X_train, data["y"], X_test, data["y_test"]


def series(name):
    """A set of the UCR archive that ships with aeon; NaN follow short series."""
    from aeon.datasets import load_classification

    def as_array(X):
        length = max(x.shape[1] for x in X)
        return np.stack(
            [
                np.pad(x, ((0, 0), (0, length - x.shape[1])), constant_values=np.nan)
                for x in X
            ]
        )

    X_train, y_train = load_classification(name, split="train")
    X_test, y_test = load_classification(name, split="test")
    n_train = len(X_train)
    X = as_array([*X_train, *X_test])
    return X[:n_train], y_train, X[n_train:], y_test


TABLES = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "digits": load_digits,
}
SERIES = [name for name in PUBLISHED if name not in ("fashion", "mnist1d")]
SERIES += ["BasicMotions"]


def splits(name, seed, folder):
    """(X_train, y_train, X_test, y_test) of every fold of a set."""
    if name in TABLES:
        X, y = TABLES[name](return_X_y=True)
        folds = StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y)
        return [(X[a], y[a], X[b], y[b]) for a, b in folds]
    if name == "fashion":
        return [fashion(folder)]
    return [mnist1d() if name == "mnist1d" else series(name)]


class Flat:
    """A model of scikit-learn on flattened samples, with zeros behind short series."""

    def __init__(self, model):
        self.model = model

    def fit(self, X, y):
        """Fit on rows."""
        self.model.fit(self._rows(X), y)
        return self

    def score(self, X, y):
        """Accuracy on rows."""
        return self.model.score(self._rows(X), y)

    def _rows(self, X):
        return np.nan_to_num(X.reshape(len(X), -1))


def models(name, seed, options):
    """The arms of the table."""
    from sk_resnet import ResNetClassifier, WideResNetClassifier  # not in that of peers

    changes = {"random_state": seed, "precision": options.precision}
    if name == "digits":
        changes["input_shape"] = (1, 8, 8)
    if name == "fashion":
        changes["max_epochs"] = options.epochs
    mlp = make_pipeline(StandardScaler(), MLPClassifier(random_state=seed))
    return {
        "ResNetClassifier": ResNetClassifier(**changes),
        "WideResNetClassifier": WideResNetClassifier(**changes),
        "MLPClassifier": Flat(mlp),
        "HistGradientBoosting": Flat(HistGradientBoostingClassifier(random_state=seed)),
    }


def measure(name, arm, seeds, options):
    """Accuracies by seed, and the mean seconds of the processor for a fit."""
    scores, seconds = [], []
    for seed in seeds:
        by_fold = []
        for X_train, y_train, X_test, y_test in splits(name, seed, options.fashion):
            model = models(name, seed, options)[arm]
            started = time.process_time()
            model.fit(X_train, y_train)
            seconds.append(time.process_time() - started)
            by_fold.append(model.score(X_test, y_test))
        scores.append(np.mean(by_fold))
    return np.array(scores), np.mean(seconds)


def keep(name, arm, scores, seconds, options):
    """Record a row, behind what it is to be compared with."""
    table = "fashion" if name == "fashion" else "accuracy"
    if options.precision != "auto":
        table, arm = "precision", f"{arm} {options.precision}"
    measures = {"accuracy": mean_of(scores), "seconds": {"mean": seconds}}
    if arm == "ResNetClassifier" and name in PUBLISHED:
        measures["published"] = PUBLISHED[name]
    record(options.json, table, name, arm, measures, seeds=range(options.seeds))


def classification(sets, options):
    """Print a row for each set and model."""
    print(f"{'set':<22} {'model':<21} {'accuracy':>17} {'s/fit':>8}  published")
    for name in sets:
        for arm in options.arms or models(name, 0, options):
            scores, seconds = measure(name, arm, range(options.seeds), options)
            spread = f"{scores.mean():.4f} ± {scores.std():.4f}"
            published = PUBLISHED.get(name, "") if arm == "ResNetClassifier" else ""
            print(
                f"{name:<22} {arm:<21} {spread:>17} {seconds:8.1f}  {published}", flush=True
            )
            keep(name, arm, scores, seconds, options)


def names(text):
    """Names by comma."""
    return text.split(",") if text else []


def main():
    """Print one of the tables row by row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--regression", action="store_true", help="R², not accuracy")
    parser.add_argument("--tables", action="store_true", help="log-loss too, many sets")
    parser.add_argument("--held-out", action="store_true", help="tables, other sets")
    parser.add_argument("--embedding", action="store_true", help="of numbers in tables")
    parser.add_argument("--penalty", action="store_true", help="l2 on tables")
    parser.add_argument("--imbalance", action="store_true", help="5 %% positives")
    parser.add_argument("--small", action="store_true", help="40 to 150 rows")
    parser.add_argument("--only", type=names, default="", help="sets, by comma; or all")
    parser.add_argument("--arms", type=names, default="", help="models, by comma; or all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15, help="of Fashion-MNIST")
    parser.add_argument("--precision", default="auto", help="float32 or bfloat16")
    parser.add_argument("--fashion", default=FASHION, help="folder of its files")
    add_option(parser, __file__)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(
        f"{processor()}, torch {torch.__version__}, seeds 0 to {options.seeds - 1}",
        flush=True,
    )
    if options.tables:
        sets, arms = options.only or tabular.SETS, options.arms or tabular.MODELS
        tabular.table(sets, arms, options.seeds, options.json)
    elif options.held_out:
        sets, arms = options.only or tabular.HELD_OUT, options.arms or tabular.MODELS
        tabular.table(sets, arms, options.seeds, options.json, name="held out")
    elif options.embedding:
        arms = options.arms or [*tabular.EMBEDDED, "HistGradientBoosting"]
        sets = options.only or tabular.JUMPS
        tabular.table(sets, arms, options.seeds, options.json, name="embedding")
    elif options.penalty:
        arms = options.arms or tabular.PENALTIES
        sets = options.only or tabular.NOISY_AND_CLEAR
        tabular.table(sets, arms, options.seeds, options.json, name="penalty")
    elif options.imbalance:
        sets, arms = options.only or imbalance.PROBLEMS, options.arms or imbalance.MODELS
        imbalance.table(sets, arms, options.seeds, options.json)
    elif options.small:
        sets, arms = options.only or small.SETS, options.arms or small.MODELS
        small.table(sets, arms, options.seeds, options.json)
    elif options.regression:
        sets, arms = options.only or regression.SETS, options.arms or regression.MODELS
        regression.table(sets, arms, options.seeds, options.json)
    else:
        sets = options.only or [*TABLES, "mnist1d", *SERIES, "fashion"]
        classification(sets, options)


if __name__ == "__main__":
    main()
