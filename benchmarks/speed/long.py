"""Whether a process that fits and predicts for a long time grows, on Linux.

    python benchmarks/speed/long.py
    python benchmarks/speed/long.py --fits 100 --predictions 1000 --only rows

rows      a network of depth 4 over 100 rows of 8 features
ensemble  eight of them
images    depth 8 over 40 images of 8 x 8
series    depth 8 over 40 series of unequal lengths
stopped   rows, with a validation set, early stopping and a checkpoint

Each case lives in a process of its own. 50 fits warm up; then its resident memory is read,
and again after each tenth of the fits. So it is with 500 predictions and those after them.
A table shows the growth in MiB: the last reading and the largest one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from sk_resnet import EarlyStopping, ResNetClassifier

sys.path.append(str(Path(__file__).parents[1]))
from results import add_option, record

CASES = ("rows", "ensemble", "images", "series", "stopped")
WARM_FITS, WARM_PREDICTIONS, N_PARTS = 50, 500, 10


def resident():
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def made(case, folder):
    """Estimator of a case, and its samples."""
    rng = np.random.default_rng(0)
    settings = {"max_epochs": 2, "random_state": 0, "n_estimators": 1}
    if case == "images":
        return ResNetClassifier(8, **settings), rng.normal(size=(40, 1, 8, 8))
    if case == "series":
        lengths = rng.integers(20, 40, 40)
        return ResNetClassifier(8, **settings), [rng.normal(size=n) for n in lengths]
    if case == "ensemble":
        settings["n_estimators"] = 8
    if case == "stopped":
        settings |= {
            "validation_split": 0.2,
            "callbacks": [EarlyStopping(patience=1)],
            "checkpoint": Path(folder) / "fit",
        }
    return ResNetClassifier(4, **settings), rng.normal(size=(100, 8))


def measure(case, options):
    """Print the memory at each reading, as a line of JSON."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model, X = made(case, folder)
        y = np.arange(len(X)) % 2

        def fit():
            model.fit(X, y)
            Path(folder, "fit").unlink(missing_ok=True)

        def predict():
            model.predict_proba(X[:5])

        acts = {"fits": (fit, WARM_FITS, options.fits)}
        acts["predictions"] = (predict, WARM_PREDICTIONS, options.predictions)
        found = {}
        for name, (act, n_warm, n) in acts.items():
            for _ in range(n_warm):
                act()
            found[name] = [resident()]
            for _ in range(N_PARTS):
                for _ in range(n // N_PARTS):
                    act()
                found[name].append(resident())
    print(json.dumps(found))


def main():
    """Measure all cases, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(CASES), help="cases, by commas")
    parser.add_argument("--fits", type=int, default=1000)
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    add_option(parser, __file__)
    options = parser.parse_args()
    if options.case:
        measure(options.case, options)
        return
    print(f"{options.fits} fits, {options.predictions} predictions: growth in MiB")
    print(f"{'':10} {'fits':>8} {'largest':>8} {'predictions':>12} {'largest':>8}")
    numbers = [f"--fits={options.fits}", f"--predictions={options.predictions}"]
    for case in options.only.split(","):
        command = [sys.executable, __file__, "--case", case, *numbers]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        measures = {}
        for name, readings in json.loads(done.stdout).items():
            grown = (np.array(readings[1:]) - readings[0]) / 2**20
            measures |= {name: float(grown[-1]), f"largest of {name}": float(grown.max())}
        fits, most_of_fits, predictions, most_of_predictions = measures.values()
        print(
            f"{case:10} {fits:8.1f} {most_of_fits:8.1f} {predictions:12.1f} "
            f"{most_of_predictions:8.1f}",
            flush=True,
        )
        record(options.json, "long", case, "ours", measures, seeds=[0])


if __name__ == "__main__":
    main()
