"""Seconds until a search is as good as a grid of 36 points over plain skorch.

    python benchmarks/search/run.py                                  # digits, 3 seeds
    python benchmarks/search/run.py --data fashion --widths 0.25,0.5,1
    python benchmarks/search/run.py --epochs 2 --depths 8 --seeds 1  # a minute

Both arms cross-validate the same residual networks on the same folds with the same
optimizer, schedule, batch size and epochs, in one process with one thread. The grid
(depth x width x l2) runs in GridSearchCV over skorch's NeuralNetClassifier. Ours is a study
of CrossValidationObjective over the ranges that the grid spans; it starts with a shallow
and wide network, and ends at the first mean score at least as good as the best of the
grid. Fashion-MNIST images are averaged down to `--side` pixels.
"""

import argparse
import gzip
import os
import platform
import time
import warnings
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from torch import nn

from sk_resnet import ResNetClassifier
from sk_resnet._network import build_network, initialize
from sk_resnet._spec import network_spec
from sk_resnet.search import CrossValidationObjective, create_study

FASHION = os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist")
LR, MOMENTUM = 0.1, 0.9


class Plain(nn.Module):
    """The network of ResNetClassifier, built by depth and width."""

    def __init__(self, depth=8, width=1.0, shape=(1, 8, 8), seed=0):
        super().__init__()
        settings = {"block": "basic", "order": "original", "shortcut": "projection"}
        spec = network_spec(
            input_shape=shape, n_classes=10, depth=depth, width=width,
            layout="small", dropout=0.0, wide=False, **settings,
        )  # fmt: skip
        self.network = build_network(spec).to_empty(device="cpu")
        initialize(self.network, torch.Generator().manual_seed(seed))

    def forward(self, x):
        return self.network(x)


def load(options):
    """Standardized images and their labels."""
    if options.data == "digits":
        X, y = load_digits(return_X_y=True)
        X = X.reshape(-1, 1, 8, 8)
    else:
        folder, factor = Path(options.fashion), 28 // options.side
        with gzip.open(folder / "train-images-idx3-ubyte.gz") as file:
            X = np.frombuffer(file.read(), np.uint8, offset=16)
        with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
            y = np.frombuffer(file.read(), np.uint8, offset=8)
        rows = np.random.default_rng(0).permutation(len(y))[: options.samples]
        X = X.reshape(-1, 1, options.side, factor, options.side, factor)[rows].mean((3, 5))
        y = y[rows].astype(int)
    return ((X - X.mean()) / X.std()).astype(np.float32), y


def grid(X, y, folds, options, seed):
    """Seconds, points, epochs and best score of the grid over plain skorch."""
    torch.manual_seed(seed)
    n_steps = options.epochs * -(-len(folds[0][0]) // options.batch_size)
    schedule = LRScheduler(
        torch.optim.lr_scheduler.OneCycleLR,
        max_lr=LR,
        total_steps=n_steps + options.epochs,
        cycle_momentum=False,
        step_every="batch",
    )
    net = NeuralNetClassifier(
        Plain,
        module__shape=X.shape[1:],
        module__seed=seed,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=MOMENTUM,
        optimizer__nesterov=True,
        lr=LR,
        max_epochs=options.epochs,
        batch_size=options.batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks=[("schedule", schedule)],
        verbose=0,
    )
    points = {
        "module__depth": options.depths,
        "module__width": options.widths,
        "optimizer__weight_decay": options.l2,
    }
    started = time.perf_counter()
    search = GridSearchCV(net, points, cv=folds, refit=False).fit(X, y)
    n = len(search.cv_results_["params"])
    seconds = time.perf_counter() - started
    return seconds, n, n * len(folds) * options.epochs, search.best_score_


def ours(X, y, folds, options, seed, target):
    """The same of a study that ends where it reaches the target."""
    model = ResNetClassifier(
        lr=LR,
        momentum=MOMENTUM,
        max_epochs=options.epochs,
        batch_size=options.batch_size,
        random_state=seed,
    )
    space = {
        "depth": CategoricalDistribution(options.depths),
        "width": CategoricalDistribution(options.widths),
        "l2": FloatDistribution(min(options.l2), max(options.l2), log=True),
    }
    objective = CrossValidationObjective(model, X, y, space=space, cv=folds)
    study = create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial({"depth": min(options.depths), "width": max(options.widths)})

    def stop_at_target(study, trial):
        if trial.state.name == "COMPLETE" and trial.value >= target:
            study.stop()

    started = time.perf_counter()
    study.optimize(objective, n_trials=options.trials, callbacks=[stop_at_target])
    seconds = time.perf_counter() - started
    epochs = sum(len(trial.intermediate_values) for trial in study.trials)
    return seconds, len(study.trials), epochs, study.best_value


def numbers(kind):
    """Parser of values by comma."""
    return lambda text: [kind(part) for part in text.split(",")]


def main():
    """Print a row for each seed and arm."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", choices=("digits", "fashion"), default="digits")
    parser.add_argument("--samples", type=int, default=10_000, help="of Fashion-MNIST")
    parser.add_argument("--side", type=int, default=14, choices=(7, 14, 28))
    parser.add_argument("--fashion", default=FASHION, help="folder of its files")
    parser.add_argument("--depths", type=numbers(int), default="8,14,20")
    parser.add_argument("--widths", type=numbers(float), default="0.5,1,2")
    parser.add_argument("--l2", type=numbers(float), default="1e-5,1e-4,1e-3,1e-2")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--trials", type=int, default=72, help="at most")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    print(
        f"{platform.processor() or platform.machine()}, 1 thread, "
        f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}, {options}"
    )
    X, y = load(options)
    print(
        f"{'seed':<5}{'arm':<6}{'seconds':>9}{'points':>8}{'epochs':>8}{'score':>8}{'':7}"
    )
    for seed in range(options.seeds):
        splitter = StratifiedKFold(3, shuffle=True, random_state=seed)
        folds = list(splitter.split(X, y))
        plain = grid(X, y, folds, options, seed)
        found = ours(X, y, folds, options, seed, plain[3])
        for arm, (seconds, points, epochs, score) in (("grid", plain), ("ours", found)):
            reached = f"{plain[0] / seconds:7.1f}" if score >= plain[3] else "not reached"
            print(
                f"{seed:<5}{arm:<6}{seconds:9.1f}{points:8}{epochs:8}{score:8.4f}{reached}",
                flush=True,
            )


if __name__ == "__main__":
    main()
