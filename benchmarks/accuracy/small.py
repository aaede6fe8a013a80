"""Log-loss of 40, 80 and 150 rows at default parameters: run.py calls this with --small.

Every set is a development set of tabular.py that has at most 10 classes. The rows to train
on are drawn by class; models are scored on at most 1,000 others, if there are 50. The seed
draws the rows and changes the models. Probabilities are clipped at 1e-7. The last lines
give the mean rank of each model over all sets and numbers of rows, and its geometric mean.

Platt's method turns the outputs of the support vector machine into probabilities, with as
many folds as the smallest class has rows, at most 5.
"""

import time

import numpy as np
from results import read, record_seeds
from scipy.stats import gmean, rankdata
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from tabular import SETS as ALL_SETS
from tabular import SMALLEST, load

SETS = [name for name in ALL_SETS if name not in ("letter", "movement_libras")]
SIZES = (40, 80, 150)
FEWEST_SCORED, MOST_SCORED = 50, 1000


def resnet(seed, y):
    from sk_resnet import ResNetClassifier

    return ResNetClassifier(random_state=seed)


def logistic(seed, y):
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def svc(seed, y):
    n_folds = min(5, np.bincount(y).min())
    model = CalibratedClassifierCV(SVC(), ensemble=False, cv=n_folds)
    return make_pipeline(StandardScaler(), model)


MODELS = {"ResNetClassifier": resnet, "LogisticRegression": logistic, "SVC": svc}


def measure(arm, X, y, n, seed):
    """Log-loss and accuracy after a fit of n rows, and its seconds of the processor."""
    n_scored = min(MOST_SCORED, len(X) - n)
    split = StratifiedShuffleSplit(1, train_size=n, test_size=n_scored, random_state=seed)
    train, test = next(split.split(X, y))
    model = MODELS[arm](seed, y[train])
    started = time.process_time()
    model.fit(X[train], y[train])
    seconds = time.process_time() - started
    probabilities = np.clip(model.predict_proba(X[test]).astype(np.float64), SMALLEST, 1)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return {
        f"log_loss {n}": log_loss(y[test], probabilities, labels=np.unique(y)),
        f"accuracy {n}": model.score(X[test], y[test]),
        f"seconds {n}": seconds,
    }


def table(sets, arms, n_seeds, path):
    """Print a line for each set and model, and record it; then the ranks."""
    for name in sets:
        X, y = load(name)
        sizes = [n for n in SIZES if len(X) - n >= FEWEST_SCORED]
        for arm in arms:
            by_seed = [
                {k: v for n in sizes for k, v in measure(arm, X, y, n, seed).items()}
                for seed in range(n_seeds)
            ]
            record_seeds(path, "small", name, arm, by_seed)
    print_ranks([row for row in read(path) if row["table"] == "small"])


def print_ranks(rows):
    """Mean rank in log-loss and its geometric mean, for each number of rows and for all."""
    by_arm = {}
    for row in rows:
        for n in SIZES:
            if f"log_loss {n}" in row["measures"]:
                mean = row["measures"][f"log_loss {n}"]["mean"]
                by_arm.setdefault(row["arm"], {})[row["case"], n] = mean
    cases = set.intersection(*map(set, by_arm.values()))
    for title, sizes in [*((f"{n} rows", [n]) for n in SIZES), ("all", SIZES)]:
        chosen = [case for case in sorted(cases) if case[1] in sizes]
        if not chosen:
            continue
        losses = np.array([[found[case] for found in by_arm.values()] for case in chosen])
        ranks = rankdata(losses, axis=1).mean(axis=0)
        print(f"\n{title}: {len(chosen)} cases, mean rank in log-loss, geometric mean")
        for arm, rank, mean in zip(by_arm, ranks, gmean(losses, axis=0), strict=True):
            print(f"{arm:<22} {rank:5.2f} {mean:7.4f}")
