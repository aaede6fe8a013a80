"""How long a prediction of one sample takes, on one thread.

    python benchmarks/speed/latency.py

Each arm predicts the probabilities of one sample 100 times in a row, then the next does.
The median and the least of these times are shown, in milliseconds. The one network has
depth 20 for rows and 8 for images; the default is an ensemble of eight for rows.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits, make_classification
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from sk_resnet import ResNetClassifier

sys.path.append(str(Path(__file__).parents[1]))
from results import add_option, record

WARM, IN_A_ROW = 20, 100


def cases():
    """Estimators by what they read, with their samples."""
    rows = make_classification(500, 20, random_state=0)
    images = load_digits(return_X_y=True)
    shape = {"input_shape": (1, 8, 8)}
    return {
        "row": (
            *rows,
            {
                "one network": ResNetClassifier(20, n_estimators=1, max_epochs=1),
                "default": ResNetClassifier(max_epochs=1),
                "MLP": MLPClassifier(max_iter=1),
                "HistGB": HistGradientBoostingClassifier(),
            },
        ),
        "8 × 8 image": (
            *images,
            {
                "one network": ResNetClassifier(8, n_estimators=1, max_epochs=1, **shape),
                "default": ResNetClassifier(max_epochs=1, **shape),
                "MLP": MLPClassifier(max_iter=1),
                "HistGB": HistGradientBoostingClassifier(),
            },
        ),
    }


def measured(models, sample, n):
    """Seconds of each call, by arm."""
    seconds = {arm: [] for arm in models}
    for _ in range(n // IN_A_ROW):
        for arm, model in models.items():
            for call in range(WARM + IN_A_ROW):
                started = time.perf_counter()
                model.predict_proba(sample)
                if call >= WARM:
                    seconds[arm].append(time.perf_counter() - started)
    return seconds


def main():
    """Measure and print all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=2000)
    add_option(parser, __file__)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'milliseconds':12} {'':11} {'median':>7} {'least':>7}")
    with threadpool_limits(1):
        for case, (X, y, models) in cases().items():
            for model in models.values():
                model.fit(X, y)
            for arm, seconds in measured(models, X[:1], options.calls).items():
                found = {"median": 1e3 * np.median(seconds), "least": 1e3 * min(seconds)}
                print(f"{case:12} {arm:11} {found['median']:7.2f} {found['least']:7.2f}")
                record(options.json, "latency", case, arm, found, seeds=[0])


if __name__ == "__main__":
    main()
