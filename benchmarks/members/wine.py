"""How long the 180 fits of a grid search take, one after the other and as few trainings.

    python benchmarks/members/wine.py                # some minutes
    python benchmarks/members/wine.py --repeats 1

A grid of 36 points with five folds on the wine data: ``GridSearchCV`` with one network of
30 epochs a fit, one fit after the other and under joblib's backend ``"fused"``. The arms
take turns, warm, in one process with one torch thread. The script counts the groups of
fits that train as one network.
"""

import argparse
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV

sys.path.append(str(Path(__file__).parents[1]))
from results import add_option, median_of, record

from sk_resnet import ResNetClassifier, _fused

GRID = {
    "l2": [1e-3, 1e-2, 1e-1],
    "lr": [0.02, 0.05, 0.1],
    "dropout": [0.0, 0.2],
    "label_smoothing": [0.0, 0.1],
}
N_FOLDS, N_EPOCHS = 5, 30
ARMS = {
    "one after the other": ("sequential", 1),
    "as one": ("fused", 180),
}


def counted_groups(counts):
    """Let `counts` have one number for each network that trains: its members."""
    groups_of = _fused.groups_of

    def counting(*arguments):
        groups = groups_of(*arguments)
        counts.extend(len(places) for places in groups)
        return groups

    _fused.groups_of = counting


def searched(backend, n_jobs, grid):
    """Wall and CPU seconds of a search, and the mean scores of its points."""
    X, y = load_wine(return_X_y=True)
    model = ResNetClassifier(n_estimators=1, max_epochs=N_EPOCHS, random_state=0)
    search = GridSearchCV(model, grid, cv=N_FOLDS, refit=False)
    wall, cpu = time.perf_counter(), time.process_time()
    with joblib.parallel_config(backend, n_jobs=n_jobs):
        scores = search.fit(X, y).cv_results_["mean_test_score"]
    return time.perf_counter() - wall, time.process_time() - cpu, scores


def main():
    """Measure the arms in turns, print a line for each, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    add_option(parser, __file__)
    options = parser.parse_args()
    torch.set_num_threads(1)
    one = {name: values[:1] for name, values in GRID.items()}
    for backend, n_jobs in ARMS.values():
        searched(backend, n_jobs, one)  # warms up
    counts = []
    counted_groups(counts)
    found = {name: [] for name in ARMS}
    for _ in range(options.repeats):
        counts.clear()
        for name, (backend, n_jobs) in ARMS.items():
            found[name].append(searched(backend, n_jobs, GRID))
    alone = np.median([scores for *_, scores in found["one after the other"]], axis=0)
    for name, turns in found.items():
        walls, cpus, scores = zip(*turns, strict=True)
        measures = {
            "fits": N_FOLDS * len(scores[0]),
            "trainings": len(counts) if name == "as one" else N_FOLDS * len(scores[0]),
            "wall": median_of(walls),
            "cpu": median_of(cpus),
            "best": float(max(scores[0])),
            "apart": float(np.abs(np.median(scores, axis=0) - alone).max()),
        }
        record(options.json, "wine", "wine, 180 fits", name, measures, seeds=[0])
        print(f"{name:>20}: {measures}", flush=True)


if __name__ == "__main__":
    main()
