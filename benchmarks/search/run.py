"""Time until a score as good as that of a whole grid: a study against a plain grid.

    python benchmarks/search/run.py                       # digits, small setting
    python benchmarks/search/run.py --samples 1797 --epochs 15 --seeds 3

grid   GridSearchCV over plain skorch, 36 points: depth × width × l2, 3 folds
ours   CrossValidationObjective over the space of search_space, pruned by medians, until a
       trial scores at least as the best point of the grid, or 36 trials are done

A row gives seconds, epochs of training, and the score; the last column is the ratio of the
seconds.
"""

import argparse
import os
import platform
import time

import numpy as np
import optuna
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from skorch import NeuralNetClassifier
from torch import nn

from sk_resnet import ResNetClassifier
from sk_resnet._network import build_network, initialize
from sk_resnet._spec import network_spec
from sk_resnet.search import CrossValidationObjective, create_study, search_space

GRID = {
    "module__depth": [8, 14, 20],
    "module__width": [0.5, 1, 2],
    "optimizer__weight_decay": [0.0, 1e-4, 1e-3, 1e-2],
}


class Plain(nn.Module):
    """The network of ResNetClassifier, built by depth and width."""

    def __init__(self, depth=8, width=1):
        super().__init__()
        settings = {"block": "basic", "order": "original", "shortcut": "projection"}
        spec = network_spec(
            input_shape=(1, 8, 8), n_classes=10, depth=depth, width=width,
            layout="small", dropout=0.0, wide=False, **settings,
        )  # fmt: skip
        self.network = build_network(spec).to_empty(device="cpu")
        initialize(self.network, torch.Generator().manual_seed(0))

    def forward(self, x):
        return self.network(x)


def grid(X, y, folds, options):
    net = NeuralNetClassifier(
        Plain,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        lr=0.05,
        max_epochs=options.epochs,
        batch_size=32,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    X = ((X - X.mean()) / X.std()).reshape(-1, 1, 8, 8).astype(np.float32)
    started = time.perf_counter()
    search = GridSearchCV(net, GRID, cv=folds, refit=False).fit(X, y)
    n_fits = len(search.cv_results_["params"]) * len(folds)
    return time.perf_counter() - started, n_fits * options.epochs, search.best_score_


def ours(X, y, folds, options, seed, target):
    model = ResNetClassifier(
        8,
        input_shape=(1, 8, 8),
        max_epochs=options.epochs,
        batch_size=32,
        random_state=seed,
    )
    space = search_space(model)
    space["depth"] = optuna.distributions.IntDistribution(8, 20, step=6)
    space["width"] = optuna.distributions.CategoricalDistribution([0.5, 1, 2])
    space = {name: space[name] for name in ("depth", "width", "l2")}
    objective = CrossValidationObjective(model, X, y, space=space, cv=folds)
    study = create_study(
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2),
    )

    def stop_at_target(study, trial):
        if trial.value is not None and trial.value >= target:
            study.stop()

    started = time.perf_counter()
    study.optimize(objective, n_trials=36, callbacks=[stop_at_target])
    epochs = sum(len(trial.intermediate_values) for trial in study.trials)
    return time.perf_counter() - started, epochs, study.best_value


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}, {options}"
    )
    X, y = load_digits(return_X_y=True)
    print(f"{'seed':<6}{'arm':<7}{'seconds':>9}{'epochs':>8}{'score':>8}{'ratio':>7}")
    for seed in range(options.seeds):
        rows = np.random.default_rng(seed).permutation(len(X))[: options.samples]
        splitter = StratifiedKFold(3, shuffle=True, random_state=seed)
        folds = list(splitter.split(rows, y[rows]))
        torch.manual_seed(seed)
        plain = grid(X[rows], y[rows], folds, options)
        found = ours(X[rows], y[rows], folds, options, seed, plain[2])
        for arm, (seconds, epochs, score) in (("grid", plain), ("ours", found)):
            ratio = plain[0] / seconds
            print(
                f"{seed:<6}{arm:<7}{seconds:9.1f}{epochs:8}{score:8.3f}{ratio:7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
