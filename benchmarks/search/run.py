"""Seconds until a search is as good as a grid.

    python benchmarks/search/run.py                       # tables and digits, three seeds
    python benchmarks/search/run.py --data cancer --seeds 0
    python benchmarks/search/run.py --data fashion
    python benchmarks/search/run.py --reports  # what scores tell before the end

All arms search the same estimator, with its own learning rate schedule and defaults, over
the same ranges, by the same score on the same folds, in one process with one thread:

grid       GridSearchCV over all points, one fit after the other
fused      the same under joblib's backend "fused"
one epoch  one epoch of every point of the grid, and then the best three to their end, by
           CrossValidationObjective (the arm of arXiv:2307.15422)
ASHA       random points and Optuna's own values of successive halving, by
           CrossValidationObjective (arXiv:1810.05934)
ours       CrossValidationObjective and create_study, as they are

The last three end at the first trial that is at least as good as the best of the grid, or
when the seconds of the grid are spent. Seconds are those of the processor, so that
neighbours do not count.

With `--reports`: Spearman's correlation, over 40 random points of the ranges, of the mean
score of the folds after some of the epochs with that at the end.
"""

import argparse
import gzip
import itertools
import os
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import optuna
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from scipy.stats import spearmanr
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from sk_resnet import ResNetClassifier
from sk_resnet.search import CrossValidationObjective, create_study

sys.path.append(str(Path(__file__).parents[1]))
from results import add_option, processor, record

FASHION = os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist")


class Case(NamedTuple):
    """A set of data, and what is searched on it."""

    load: object
    grid: dict
    n_folds: int
    scoring: str
    settings: dict


def images_of_digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).reshape(-1, 1, 8, 8).astype(np.float32), y


def images_of_fashion(n=2_000, factor=2):
    """Some of the images, averaged down."""
    folder, side = Path(FASHION), 28 // factor
    with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
        X = np.frombuffer(file.read(), np.uint8, offset=16)
    with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
        y = np.frombuffer(file.read(), np.uint8, offset=8)
    rows = np.random.default_rng(0).permutation(len(y))[:n]
    X = X.reshape(-1, 1, side, factor, side, factor)[rows].mean((3, 5)) / 255
    return X.astype(np.float32), y[rows].astype(int)


def table(load):
    return lambda: load(return_X_y=True)


OF_ROWS = {
    "l2": [1e-3, 1e-2, 3e-2, 1e-1],
    "dropout": [0.0, 0.2, 0.4],
    "lr": [0.02, 0.1],
}
OF_IMAGES = {
    "depth": [8, 14],
    "width": [0.25, 0.5, 1],
    "l2": [1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2],
}
CASES = {
    "cancer": Case(table(load_breast_cancer), OF_ROWS, 5, "neg_log_loss", {}),
    "wine": Case(table(load_wine), OF_ROWS, 5, "neg_log_loss", {}),
    "digits": Case(images_of_digits, OF_IMAGES, 3, "accuracy", {"max_epochs": 10}),
    "fashion": Case(images_of_fashion, OF_IMAGES, 3, "accuracy", {"max_epochs": 10}),
}


def space_of(grid):
    """Ranges that a grid spans; of depths and widths its values."""
    return {
        name: CategoricalDistribution(values)
        if name in ("depth", "width")
        else FloatDistribution(min(values), max(values), log=min(values) > 0)
        for name, values in grid.items()
    }


def points_of(grid):
    return [
        dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
    ]


class Search:
    """One case with one seed."""

    def __init__(self, case, seed):
        X, y = case.load()
        splitter = StratifiedKFold(case.n_folds, shuffle=True, random_state=seed)
        self.case, self.seed, self.data = case, seed, (X, y)
        self.folds = list(splitter.split(X, y))
        self.model = ResNetClassifier(n_estimators=1, random_state=seed, **case.settings)

    def grid(self, backend):
        """Mean scores of all points."""
        search = GridSearchCV(
            self.model,
            self.case.grid,
            cv=self.folds,
            scoring=self.case.scoring,
            refit=False,
        )
        with joblib.parallel_config(backend, n_jobs=64 if backend == "fused" else 1):
            search.fit(*self.data)
        return search.cv_results_["mean_test_score"]

    def objective(self):
        return CrossValidationObjective(
            self.model,
            *self.data,
            space=space_of(self.case.grid),
            cv=self.folds,
            scoring=self.case.scoring,
        )

    def one_epoch(self, stops):
        """Scores of the best three points after one epoch."""
        objective = self.objective()
        objective.report_every = 1
        first = optuna.pruners.ThresholdPruner(lower=np.inf)  # ends all after one
        short = optuna.create_study(direction="maximize", pruner=first)
        points = points_of(self.case.grid)
        for point in points:
            short.enqueue_trial(point)
        short.optimize(objective, n_trials=len(points))
        best = sorted(short.trials, key=lambda trial: trial.intermediate_values[1])[-3:]
        pruner = optuna.pruners.NopPruner()
        study = optuna.create_study(direction="maximize", pruner=pruner)
        for trial in reversed(best):
            study.enqueue_trial(trial.params)
        study.optimize(objective, n_trials=3, callbacks=[stops])
        return study.trials

    def asha(self, stops):
        sampler = optuna.samplers.RandomSampler(seed=self.seed)
        pruner = optuna.pruners.SuccessiveHalvingPruner()
        study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        study.optimize(self.objective(), callbacks=[stops])
        return study.trials

    def ours(self, stops):
        objective = self.objective()
        sampler = optuna.samplers.TPESampler(seed=self.seed)
        study = create_study(objective=objective, sampler=sampler)
        study.optimize(objective, callbacks=[stops])
        return study.trials


def correlations(search, n=40):
    """Correlation of the scores at some reports with those at the end, by report."""
    objective = search.objective()
    reads_all = optuna.pruners.ThresholdPruner(lower=-np.inf)
    sampler = optuna.samplers.RandomSampler(seed=search.seed)
    study = optuna.create_study(direction="maximize", pruner=reads_all, sampler=sampler)
    study.optimize(objective, n_trials=n)
    values = [trial.value for trial in study.trials]
    curves = np.array([list(t.intermediate_values.values()) for t in study.trials])
    places = {"first": 0, "half": 0.5, "three quarters": 0.75, "nine tenths": 0.9}
    last = curves.shape[1]
    return {
        name: float(spearmanr(curves[:, max(0, round(share * last) - 1)], values)[0])
        for name, share in places.items()
    }


def timed(act):
    """Seconds of the processor, and what an act returns."""
    started = time.process_time()
    found = act()
    return time.process_time() - started, found


def until(target, seconds):
    """Callback that ends a study at a score, or when seconds are spent."""
    ends = time.process_time() + seconds

    def stop(study, trial):
        reached = trial.state.name == "COMPLETE" and trial.value >= target
        if reached or time.process_time() > ends:
            study.stop()

    return stop


def rows_of(search):
    """Seconds, number of points, and best score of each arm."""
    seconds, scores = timed(lambda: search.grid("sequential"))
    target, n = float(scores.max()), len(scores)
    yield "grid", seconds, n, target, True
    fused_seconds, fused_scores = timed(lambda: search.grid("fused"))
    best = float(fused_scores.max())
    yield "fused", fused_seconds, n, best, best >= target - float(scores.std())
    arms = {"one epoch": search.one_epoch, "ASHA": search.asha, "ours": search.ours}
    for name, arm in arms.items():
        stops = until(target, seconds)
        spent, trials = timed(lambda arm=arm, stops=stops: arm(stops))
        values = [trial.value for trial in trials if trial.state.name == "COMPLETE"]
        best = max(values, default=float("nan"))
        yield name, spent, len(trials), best, best >= target


def main():
    """Print a row for each case, seed and arm."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="cancer,wine,digits", help="by commas")
    parser.add_argument("--seeds", default="0,1,2", help="by commas")
    parser.add_argument("--reports", action="store_true", help="correlations with the end")
    add_option(parser, __file__)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    print(f"{processor()}, torch {torch.__version__}")
    cases = itertools.product(options.data.split(","), map(int, options.seeds.split(",")))
    if options.reports:
        for data, seed in cases:
            found = correlations(Search(CASES[data], seed))
            print(data, seed, {name: round(value, 2) for name, value in found.items()})
            record(options.json, "reports", data, f"seed {seed}", found, seeds=[seed])
        return
    print("data     seed arm         seconds  grid / arm  points    best", flush=True)
    for data, seed in cases:
        of_grid = None
        for arm, seconds, n, best, reached in rows_of(Search(CASES[data], seed)):
            of_grid = of_grid or seconds
            ratio = round(of_grid / seconds, 1) if reached else "not reached"
            print(
                f"{data:<8} {seed:4} {arm:<10} {seconds:8.1f}  {ratio!s:>11} {n:6}"
                f"  {best:8.4f}",
                flush=True,
            )
            measures = {"seconds": seconds, "ratio": ratio, "trials": n, "score": best}
            record(
                options.json, "search", f"{data}, seed {seed}", arm, measures, seeds=[seed]
            )


if __name__ == "__main__":
    main()
