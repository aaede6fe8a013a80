"""Whether a change of the code leaves fits and predictions as fast and as small as before.

    python benchmarks/speed/change.py --before HEAD~1
    python benchmarks/speed/change.py --before main --only dense-4/700,ResNet-20/64

before   the package of an earlier commit
after    that of this checkout, with what is not committed yet

Each arm lives in a process of its own, on one thread of the CPU. In each round the two take
turns with the same fit and the same predictions; the first round warms up and is not shown.
Times are the processor's, in medians of the rounds. A ratio is the time after over the time
before, so above 1 the code became slower:

ratio    of the medians
least    of the shortest times
pairs    median of the ratios of each round, which a slow drift of the machine leaves alone
wall     the same for wall time

MiB are the peak of a new process that imports the package, fits and predicts. A row is
marked where the arms reach other training losses: they did not do the same work. Two
processes with the same code differ too: --before HEAD in a clean checkout says by how much.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sk_resnet import ResNetClassifier

sys.path.append(str(Path(__file__).parents[1]))
from earlier import code_of, environment
from results import ROOT, add_option, median_of, processor, record

WALL, CPU = range(2)  # places in what is measured
RATIOS = ("ratio", "least", "pairs", "wall")


@dataclass(frozen=True)
class Case:
    """A network, its samples, and how often they are learned and predicted."""

    depth: int
    shape: tuple[int, ...]
    samples: int
    epochs: int
    predictions: int


CASES = {
    "dense-4/700": Case(4, (20,), 700, 15, 10),
    "dense-4/3000": Case(4, (20,), 3000, 10, 10),
    "dense-8/700": Case(8, (20,), 700, 10, 6),
    "dense-8/3000": Case(8, (20,), 3000, 6, 5),
    "dense-20/700": Case(20, (20,), 700, 5, 4),
    "dense-20/3000": Case(20, (20,), 3000, 3, 2),
    "series/500": Case(8, (1, 100), 500, 2, 2),
    "ResNet-20/64": Case(20, (1, 28, 28), 64, 4, 2),
}


def samples(case):
    """Noise, in four classes by the signs of the first two entries."""
    X = np.random.default_rng(0).normal(size=(case.samples, *case.shape))
    X = X.astype(np.float32)
    return X, (X.reshape(len(X), -1)[:, :2] > 0) @ [1, 2]


def spent():
    return np.array([time.perf_counter(), time.process_time()])


def measured(case):
    """What a fit and the predictions after it take, and the loss that the fit reaches."""
    X, y = samples(case)
    model = ResNetClassifier(depth=case.depth, max_epochs=case.epochs, random_state=0)
    if "n_estimators" in model.get_params():  # not in every state to compare with
        model.set_params(n_estimators=1)
    started = spent()
    model.fit(X, y)
    fit = spent() - started
    started = spent()
    for _ in range(case.predictions):
        model.predict(X)
    predict = (spent() - started) / case.predictions
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    loss = model.history_[-1]["train_loss"]
    return {"fit": fit.tolist(), "predict": predict.tolist(), "MiB": peak, "loss": loss}


def answer():
    """Measure the cases whose names are read, and print a line of JSON for each."""
    for line in sys.stdin:
        print(json.dumps(measured(CASES[line.strip()])), flush=True)


class Arm:
    """A process that measures cases with the package in a tree."""

    def __init__(self, tree):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--answer"],
            env=environment(tree),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.communicate()

    def __call__(self, name):
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def in_new_process(tree, name):
    with Arm(tree) as arm:
        return arm(name)


def in_turns(arms, n):
    """What the functions of the arms return, called in turns."""
    found = {arm: [] for arm in arms}
    for i in range(n):
        # Each is first every other time, so that a drift within a round favours neither.
        for arm, function in list(arms.items())[:: -1 if i % 2 else 1]:
            found[arm].append(function())
    return found


def compare(name, trees, arms, options):
    """Print the rows of one case."""
    timed = {arm: lambda call=call: call(name) for arm, call in arms.items()}
    fresh = {
        arm: lambda tree=tree: in_new_process(tree, name) for arm, tree in trees.items()
    }
    in_turns(timed, 1)
    found = in_turns(timed, options.rounds)
    peaks = in_turns(fresh, options.processes)
    same = len({row["loss"] for arm in found for row in found[arm]}) == 1
    measures = {
        arm: measures_of(found[arm], peaks[arm], found["before"], peaks["before"])
        for arm in trees
    }
    for what in ("fit", "predict"):
        show(f"{name} {what}", *measures.values(), what, same)
    for arm in trees:
        record(options.json, "change", name, arm, measures[arm], seeds=[0])


def measures_of(rows, peaks, first, first_peaks):
    """Measures of an arm, whose ratios are to the first arm."""
    measures = {}
    for what in ("fit", "predict"):
        a, b = (np.array([row[what] for row in arm]) for arm in (first, rows))
        measures[what] = median_of(b[:, CPU])
        measures[f"{what} ratio"] = np.median(b[:, CPU]) / np.median(a[:, CPU])
        measures[f"{what} least"] = b[:, CPU].min() / a[:, CPU].min()
        for place, name in ((CPU, "pairs"), (WALL, "wall")):
            measures[f"{what} {name}"] = np.median(b[:, place] / a[:, place])
    a, b = ([row["MiB"] for row in arm] for arm in (first_peaks, peaks))
    return measures | {"MiB": median_of(b), "MiB ratio": np.median(b) / np.median(a)}


def show(title, before, after, what, same):
    """Print the row of a fit or of a prediction."""
    text = f"{title:<23}"
    for arm in (before, after):
        span = f"{1e3 * arm[what]['low']:.1f}-{1e3 * arm[what]['high']:.1f}"
        text += f"{1e3 * arm[what]['median']:9.1f} {span:<15}"
    text += "".join(f"{after[f'{what} {name}']:7.3f}" for name in RATIOS)
    if what == "fit":
        text += f"{before['MiB']['median']:8.0f}{after['MiB']['median']:6.0f}"
        text += f"{after['MiB ratio']:7.3f}"
    print(f"{text}{'' if same else '  other losses'}", flush=True)


def main():
    """Print the table, or answer as one arm."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    side = parser.add_mutually_exclusive_group(required=True)
    side.add_argument("--before", metavar="REF", help="commit to compare with")
    side.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", default=",".join(CASES), help="by comma")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--processes", type=int, default=2, help="to find the peaks in")
    add_option(parser, __file__)
    options = parser.parse_args()
    if options.answer:
        answer()
        return
    torch.set_num_threads(1)  # as in the arms
    print(f"{processor()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    print(
        f"{'milliseconds':<23}{'before':>9} {'range':<15}{'after':>9} {'range':<15}"
        f"{''.join(f'{name:>7}' for name in RATIOS)}{'MiB':>14}{'ratio':>7}"
    )
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        trees = {"before": code_of(options.before, folder), "after": ROOT}
        arms = {arm: stack.enter_context(Arm(tree)) for arm, tree in trees.items()}
        for name in options.only.split(","):
            compare(name, trees, arms, options)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
