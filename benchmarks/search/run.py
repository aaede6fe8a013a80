"""Seconds until a search is as good as a grid of 36 points over plain skorch.

    python benchmarks/search/run.py                                   # digits, 3 seeds
    python benchmarks/search/run.py --data fashion --epochs 3 --batch-size 128 --lr 0.1
    python benchmarks/search/run.py --recipe ours                     # a stronger grid
    python benchmarks/search/run.py --defaults                        # ours untouched
    python benchmarks/search/run.py --epochs 2 --widths 0.25,0.5 --l2 1e-4   # a minute

The grid (depth x width x l2) runs in GridSearchCV over skorch's NeuralNetClassifier: SGD
with momentum at one learning rate, ``--recipe plain``. With ``--recipe ours`` it gets what
our estimator does by default: Nesterov steps and a one-cycle schedule up to 0.1.

Ours is what a user writes: a ResNetClassifier of that many epochs, whose parameters the
first trial takes as near as the ranges allow, CrossValidationObjective over the ranges that
the grid spans, and create_study. On Fashion-MNIST the other parameters are the defaults; on
digits they are OURS, chosen on folds of other seeds (10 to 12). It ends at the first mean
score that is at least the grid's best, or after a third of the grid's seconds. Both arms
build the same networks and are scored by accuracy on the same folds, in one process with
one thread; seconds are those of the processor, so that neighbours do not count.
Fashion-MNIST images are averaged down to ``--side`` pixels.

The grid is done a depth and a width at a time, and what is done is kept in ``--kept``, so
that a run which was cut off, or ended by ``--limit``, goes on behind it.
"""

import argparse
import gzip
import itertools
import json
import os
import sys
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
from sk_resnet._network import new_network
from sk_resnet._spec import FAMILIES, Architecture, network_spec
from sk_resnet.search import CrossValidationObjective, create_study

sys.path.append(str(Path(__file__).parents[1]))
from results import add_option, processor, record

KEPT_BY = ("data", "side", "samples", "recipe", "lr", "epochs", "batch_size", "l2")
OURS = {
    "digits": {"depth": 8, "lr": 0.2, "label_smoothing": 0.1},
    "fashion": {},
}
NAMES = {"digits": "digits", "fashion": "Fashion-MNIST"}
MEASURES = ("seconds", "trials", "epochs", "score")
FASHION = os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist")


class Plain(nn.Module):
    """The network of ResNetClassifier, built by depth and width."""

    def __init__(self, depth=8, width=1.0, shape=(1, 8, 8), seed=0):
        super().__init__()
        spec = network_spec(
            Architecture(depth, width, layout="small"),
            FAMILIES["resnet"],
            input_shape=shape,
            n_outputs=10,
        )
        self.network = new_network(spec, device=torch.device("cpu"), seed=seed)

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


def plain_net(X, folds, options, seed):
    """What is searched in the grid."""
    n_batches = -(-len(folds[0][0]) // options.batch_size)
    schedule = LRScheduler(
        torch.optim.lr_scheduler.OneCycleLR,
        max_lr=0.1,
        total_steps=(n_batches + 1) * options.epochs,
        cycle_momentum=False,
        step_every="batch",
    )
    ours = options.recipe == "ours"
    return NeuralNetClassifier(
        Plain,
        module__shape=X.shape[1:],
        module__seed=seed,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        optimizer__nesterov=ours,
        lr=options.lr,
        max_epochs=options.epochs,
        batch_size=options.batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks=[("schedule", schedule)] if ours else [],
        verbose=0,
    )


def grid_piece(X, y, folds, options, seed, depth, width):
    """Seconds and mean scores of the points of one depth and width."""
    torch.manual_seed(seed)
    points = {
        "module__depth": [depth],
        "module__width": [width],
        "optimizer__weight_decay": options.l2,
    }
    net = plain_net(X, folds, options, seed)
    started = time.process_time()
    search = GridSearchCV(net, points, cv=folds, refit=False).fit(X, y)
    seconds = time.process_time() - started
    return {"seconds": seconds, "scores": search.cv_results_["mean_test_score"].tolist()}


def grid(X, y, folds, options, seed):
    """Seconds, epochs and best score of the grid; None where the limit came first."""
    pieces = []
    for depth, width in itertools.product(options.depths, options.widths):
        kept = json.loads(options.kept.read_text()) if options.kept.exists() else {}
        key = repr([*(getattr(options, name) for name in KEPT_BY), seed, depth, width])
        if key not in kept:
            if time.perf_counter() > options.ends:
                return None
            kept[key] = grid_piece(X, y, folds, options, seed, depth, width)
            options.kept.parent.mkdir(exist_ok=True)
            options.kept.write_text(json.dumps(kept, indent=1))
        pieces.append(kept[key])
    seconds = sum(piece["seconds"] for piece in pieces)
    scores = [score for piece in pieces for score in piece["scores"]]
    return seconds, len(scores), len(scores) * len(folds) * options.epochs, max(scores)


def ours(X, y, folds, options, seed, target, most_seconds):
    """The same of a study that ends where it reaches the target."""
    started = time.process_time()
    settings = {} if options.defaults else OURS[options.data]
    model = ResNetClassifier(max_epochs=options.our_epochs, random_state=seed, **settings)
    space = {
        "depth": CategoricalDistribution(options.depths),
        "width": CategoricalDistribution(options.widths),
        "l2": FloatDistribution(min(options.l2), max(options.l2), log=True),
    }
    objective = CrossValidationObjective(model, X, y, space=space, cv=folds)
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = create_study(objective=objective, sampler=sampler)

    def stop_at_target(study, trial):
        reached = trial.state.name == "COMPLETE" and trial.value >= target
        if reached or time.process_time() - started > most_seconds:
            study.stop()

    study.optimize(objective, callbacks=[stop_at_target])
    seconds = time.process_time() - started
    epochs = sum(len(trial.intermediate_values) for trial in study.trials)
    return seconds, len(study.trials), epochs, study.best_value


def show(seed, arm, measures, options):
    """Print a row, and record it."""
    seconds, points, epochs, score, *ratio = measures.values()
    text = f"{seed:4} {arm}  {seconds:9.1f} {points:7} {epochs:7}  {score:.4f}"
    print("  ".join([text, *map(str, ratio)]), flush=True)
    changes = ["recipe ours"] * (options.recipe == "ours") + ["defaults"] * options.defaults
    table, case = ", ".join(["search", *changes]), f"{NAMES[options.data]}, seed {seed}"
    record(options.json, table, case, arm, measures, seeds=[seed])


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
    parser.add_argument("--recipe", choices=("plain", "ours"), default="plain")
    parser.add_argument("--lr", type=float, default=0.05, help="of the plain recipe")
    parser.add_argument("--depths", type=numbers(int), default="8,14")
    parser.add_argument("--widths", type=numbers(float), default="0.25,0.5,1")
    parser.add_argument(
        "--l2", type=numbers(float), default="1e-5,1e-4,3e-4,1e-3,3e-3,1e-2"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--our-epochs", type=int, help="of ours; default: as the grid")
    parser.add_argument("--defaults", action="store_true", help="instead of OURS")
    parser.add_argument("--grid-only", action="store_true")
    parser.add_argument("--batch-size", type=int, default=64, help="of the grid")
    parser.add_argument("--seeds", type=numbers(int), default="0,1,2")
    parser.add_argument("--kept", type=Path, default="build/search.json")
    parser.add_argument("--limit", type=float, default=1e9, help="seconds for new pieces")
    add_option(parser, __file__)
    options = parser.parse_args()
    options.our_epochs = options.our_epochs or options.epochs
    options.ends = time.perf_counter() + options.limit
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    X, y = load(options)
    print(f"{processor()}, torch {torch.__version__}, {options}")
    print("seed arm    seconds  trials  epochs   score  grid / ours", flush=True)
    for seed in options.seeds:
        splitter = StratifiedKFold(3, shuffle=True, random_state=seed)
        folds = list(splitter.split(X, y))
        plain = grid(X, y, folds, options, seed)
        if plain is None:
            print("The limit came first: run it again to go on.")
            return
        if options.grid_only:
            continue
        found = ours(X, y, folds, options, seed, plain[3], plain[0] / 3)
        reached = found[3] >= plain[3]
        ratio = round(plain[0] / found[0], 1) if reached else "not reached"
        for arm, row, last in (
            ("grid", plain, {}),
            ("ours", found, {"grid / ours": ratio}),
        ):
            show(seed, arm, dict(zip(MEASURES, row, strict=True)) | last, options)


if __name__ == "__main__":
    main()
