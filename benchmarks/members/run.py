"""What is saved where many networks train as one.

    python benchmarks/members/run.py                       # all, some hours
    python benchmarks/members/run.py --only grid-560,ensemble-560 --repeats 1 --points 4

grid      GridSearchCV over l2, dropout and lr, five folds, default network: one after the
          other, under joblib's backend "fused", and with two workers of loky
ensemble  n_estimators=8 against eight fits, and one prediction against eight

The arms take turns, warm, in one process on two cores; loky's workers are started before.
A ratio is the CPU time (or the wall time) of the first arm over that of the others: above
1, training as one saves time. Data are random: what is learned does not change the time.
"""

import argparse
import statistics
import sys
import time
from itertools import product
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV

sys.path.append(str(Path(__file__).parents[1]))
from results import add_option, record

from sk_resnet import ResNetClassifier

# Rows of a table, or the shape of a sample; training parts of five folds have four fifths.
ROWS = (140, 560, 1500, 3000)
SHAPES = {"digits": (8, 8), "series-40": (40,), "series-150": (150,), "images-28": (28, 28)}
N_SHAPED = 500
GRID = {"lr": [0.05, 0.1], "l2": [1e-3, 1e-2, 1e-1], "dropout": [0.0, 0.2]}


def data(case):
    """Samples and labels of a case."""
    if case.isdigit():
        n = int(case)
        return make_classification(n, 18, n_informative=8, n_classes=3, random_state=0)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_SHAPED, 1, *SHAPES[case])).astype(np.float32)
    return X, rng.integers(0, 3, N_SHAPED)


def model(case, options, **parameters):
    """Default estimator, with fewer epochs where they are asked for."""
    depth = "auto" if case.isdigit() else 8
    epochs = options.epochs or "auto"
    settings = {"n_estimators": 1, "max_epochs": epochs, "random_state": 0} | parameters
    return ResNetClassifier(depth, **settings)


def timed(act):
    """CPU and wall seconds of an act."""
    cpu, wall = time.process_time(), time.perf_counter()
    act()
    return np.array([time.process_time() - cpu, time.perf_counter() - wall])


def grid_arms(case, options):
    """Searches of one case by the name of their arm, and their scores."""
    X, y = data(case)
    points = [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]
    chosen = points[:: max(1, len(points) // options.points)][: options.points]
    grid = [{name: [value] for name, value in point.items()} for point in chosen]
    scores = {}

    def search(name, backend, n_jobs):
        with joblib.parallel_config(backend, n_jobs=n_jobs):
            found = GridSearchCV(model(case, options), grid, cv=5, refit=False).fit(X, y)
        scores[name] = found.cv_results_["mean_test_score"]

    arms = {
        "single": lambda: search("single", "sequential", 1),
        "fused": lambda: search("fused", "fused", 64),
        "loky": lambda: search("loky", "loky", 2),
    }
    return arms, scores


def ensemble_arms(case, options):
    """Fits and predictions of one case by the name of their arm."""
    X, y = data(case)
    # All networks on all samples, as the eight of the other arm.
    together = model(case, options, n_estimators=8, validation_split=None)
    alone = [model(case, options).set_params(random_state=i) for i in range(8)]
    return {
        "fits": lambda: [one.fit(X, y) for one in alone],
        "ensemble": lambda: together.fit(X, y),
        "predictions": lambda: [one.predict_proba(X) for one in alone for _ in range(5)],
        "prediction": lambda: [together.predict_proba(X) for _ in range(5)],
    }


def medians(arms, repeats):
    """CPU and wall seconds of each arm, which take turns."""
    spent = {name: [] for name in arms}
    for _ in range(repeats):
        for name, act in arms.items():
            spent[name].append(timed(act))
    return {name: np.median(values, axis=0) for name, values in spent.items()}


def grid(case, options):
    """Measure searches, print a line, and keep it."""
    arms, scores = grid_arms(case, options)
    arms["loky"]()  # starts its workers
    found = medians(arms, options.repeats)
    cpu, wall = found["single"] / found["fused"]
    against_loky = found["loky"][1] / found["fused"][1]
    apart = float(np.abs(scores["single"] - scores["fused"]).max())
    spread = statistics.pstdev(scores["single"])
    print(
        f"grid {case:>11}: CPU {found['single'][0]:.1f} s, fused {found['fused'][0]:.1f}: "
        f"{cpu:.2f}; wall {wall:.2f}, of two workers {against_loky:.2f}; "
        f"mean scores differ by up to {apart:.3f}, points by {spread:.3f}",
        flush=True,
    )
    measures = {"cpu": cpu, "wall": wall, "loky": against_loky, "apart": apart}
    record(options.json, "fused", case, "GridSearchCV", measures, seeds=[0])


def ensemble(case, options):
    """Measure ensembles, print a line, and keep it."""
    arms = ensemble_arms(case, options)
    for name in ("fits", "ensemble"):
        arms[name]()  # warms up
    found = medians(arms, options.repeats)
    fit = found["ensemble"][0] / found["fits"][0]
    predict = found["prediction"][0] / found["predictions"][0]
    print(
        f"ensemble {case:>7}: fit {fit:.2f}, prediction {predict:.2f} of eight", flush=True
    )
    measures = {"fit": fit, "predict": predict}
    record(options.json, "ensembles", case, "n_estimators=8", measures, seeds=[0])


KINDS = {"grid": grid, "ensemble": ensemble}


def main():
    """Run the chosen cases."""
    cases = [f"{kind}-{n}" for kind in KINDS for n in ROWS]
    cases += [f"grid-{shape}" for shape in SHAPES]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help=f"some of {', '.join(cases)}, by commas")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--points", type=int, default=12, help="of the grid")
    parser.add_argument("--epochs", type=int, help="default: those of the estimator")
    add_option(parser, __file__)
    options = parser.parse_args()
    for case in options.only.split(",") if options.only else cases:
        kind, _, name = case.partition("-")
        KINDS[kind](name, options)


if __name__ == "__main__":
    main()
