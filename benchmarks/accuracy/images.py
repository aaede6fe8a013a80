"""What the defaults of images, and views of predictions, are worth on development data.

    python benchmarks/accuracy/images.py                    # the penalty; half an hour
    python benchmarks/accuracy/images.py --only digits
    python benchmarks/accuracy/images.py --tried --only fashion --seeds 1   # two hours

Fashion-MNIST: 24,000 images of the training part, drawn with seed 0, for 8 epochs, and
10,000 others of it to score. Digits: 5 shuffled, stratified folds for each seed, as many
epochs as by default. Accuracy and log-loss of ResNetClassifier, its log-loss with
`test_time_augmentation`, and the seconds of the processor for a fit, on one thread. The
seed changes the weights, and the folds. With `--tried`: one change of the defaults at a
time, among them what the network of arXiv:2404.00498 is made of. The learning rate is 0.1,
which was the default then.
"""

import argparse
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold
from skorch.callbacks import Callback

sys.path.append(str(Path(__file__).parents[1]))
from results import add_option, record_seeds
from run import FASHION, fashion, names

from sk_resnet import ResNetClassifier, _network

N_TRAINED, N_SCORED, N_EPOCHS = 24_000, 10_000, 8
# The default when these were measured: 0.2 is what they found.
RATE = {"lr": 0.1}
PENALTIES = {"l2 = 1e-4": {"l2": 1e-4}, "l2 = 5e-4": {"l2": 5e-4}}
TRIED = {
    "none": {},
    "depth 8, width 2": {"depth": 8, "width": 2},
    "depth 14, width 2": {"depth": 14, "width": 2},
    "depth 8, width 3": {"depth": 8, "width": 3},
    "label smoothing 1 in 10": {"label_smoothing": 0.1},
    "batches of 64": {"batch_size": 64},
    "batches of 256": {"batch_size": 256},
    "rate of 0.05": {"lr": 0.05},
    "rate of 0.2": {"lr": 0.2},
    "rate of 0.4": {"lr": 0.4},
    "whitened patches": {},
    "identity branches": {},
    "lookahead": {},
    "average of weights": {},
    "crop": {"augment": ["crop"]},
    "flip": {"augment": ["flip"]},
}
VIEWS = ("crop", "flip")


class WeightAverage(Callback):
    """Ends with an average of the weights, in which those of each step decay."""

    def __init__(self, decay=0.999):
        self.decay = decay

    def on_train_begin(self, net, **kwargs):
        self.average = {k: v.clone() for k, v in net.module_.state_dict().items()}

    @torch.no_grad()
    def on_batch_end(self, net, batch, training, **kwargs):
        for name, value in net.module_.state_dict().items() if training else ():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - self.decay)

    def on_train_end(self, net, **kwargs):
        net.module_.load_state_dict(self.average)


class Lookahead(Callback):
    """Slow weights, which go half of the way of every five steps: arXiv:1907.08610."""

    def on_train_begin(self, net, **kwargs):
        self.step = 0
        self.slow = [w.detach().clone() for w in net.module_.parameters()]

    @torch.no_grad()
    def on_batch_end(self, net, batch, training, **kwargs):
        self.step += training
        if training and self.step % 5 == 0:
            for slow, weight in zip(self.slow, net.module_.parameters(), strict=True):
                slow.lerp_(weight, 0.5)
                weight.copy_(slow)


CALLBACKS = {"average of weights": WeightAverage, "lookahead": Lookahead}


def whitening(X):
    """Function that turns images into their decorrelated patches of 2 × 2: 4 channels."""

    def patches(images):
        padded = np.pad(images / 255.0, ((0, 0), (0, 0), (0, 1), (0, 1)), mode="edge")
        height, width = images.shape[2:]
        parts = [
            padded[:, 0, i : i + height, j : j + width] for i in (0, 1) for j in (0, 1)
        ]
        return np.stack(parts, axis=1)

    found = patches(X[:5000])
    values = np.moveaxis(found, 1, 0).reshape(4, -1)
    variances, directions = np.linalg.eigh(np.cov(values))
    matrix = directions.T / np.sqrt(variances + 1e-4)[:, None]
    return lambda images: np.einsum("kc,nchw->nkhw", matrix, patches(images)).astype("f4")


@contextmanager
def identity_branches():
    """Networks begin with branches that add nothing: arXiv:1706.02677 §5.1."""
    usual = _network.initialize

    def initialize(network, generator):
        usual(network, generator)
        for block in (part for part in network.modules() if hasattr(part, "branch")):
            norms = [m for m in block.branch if isinstance(m, torch.nn.BatchNorm2d)]
            torch.nn.init.zeros_(norms[-1].weight)

    with mock.patch.object(_network, "initialize", initialize):
        yield


def splits(name, seed, folder):
    """(X_train, y_train, X_test, y_test) of every fold, and parameters for the set."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        X = X.reshape(-1, 1, 8, 8)
        folds = StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y)
        return [(X[a], y[a], X[b], y[b]) for a, b in folds], {}
    X, y, _, _ = fashion(folder)
    order = np.random.default_rng(0).permutation(len(X))
    a, b = order[:N_TRAINED], order[-N_SCORED:]
    return [(X[a], y[a], X[b], y[b])], {"max_epochs": N_EPOCHS}


def measured(name, arm, parameters, seed, folder):
    """Means over the folds by name of the measure."""
    folds, own = splits(name, seed, folder)
    rows = []
    for X_train, y_train, X_test, y_test in folds:
        if arm == "whitened patches":
            whitened = whitening(X_train)
            X_train, X_test = whitened(X_train), whitened(X_test)
        callbacks = [CALLBACKS[arm]()] if arm in CALLBACKS else None
        model = ResNetClassifier(
            random_state=seed, callbacks=callbacks, **own, **parameters
        )
        started = time.process_time()
        with identity_branches() if arm == "identity branches" else nullcontext():
            model.fit(X_train, y_train)
        row = {"seconds": time.process_time() - started}
        probabilities = model.predict_proba(X_test)
        row["accuracy"] = accuracy_score(y_test, model.classes_[probabilities.argmax(1)])
        row["log_loss"] = log_loss(y_test, probabilities)
        for view in VIEWS:
            model.set_params(test_time_augmentation=view)
            probabilities = model.predict_proba(X_test)
            row[f"log_loss {view}"] = log_loss(y_test, probabilities)
            found = model.classes_[probabilities.argmax(1)]
            row[f"accuracy {view}"] = accuracy_score(y_test, found)
        rows.append(row)
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def main():
    """Print and record a row for each set and strength."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", type=names, default="fashion,digits", help="sets, by comma"
    )
    parser.add_argument("--tried", action="store_true", help="one change at a time")
    parser.add_argument("--arms", help="some of them, by semicolon")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--fashion", default=FASHION, help="folder of its files")
    add_option(parser, __file__)
    options = parser.parse_args()
    torch.set_num_threads(1)
    arms = TRIED if options.tried else PENALTIES
    for name in options.only:
        for arm in options.arms.split(";") if options.arms else arms:
            by_seed = [
                measured(name, arm, RATE | arms[arm], seed, options.fashion)
                for seed in range(options.seeds)
            ]
            key = ("tried", arm, name) if options.tried else ("images", name, arm)
            record_seeds(options.json, *key, by_seed)


if __name__ == "__main__":
    main()
