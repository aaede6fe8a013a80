"""What regularization brings: bytes, time and generalisation, over seeds.

    python benchmarks/regularization/run.py                    # all parts, small setting
    python benchmarks/regularization/run.py --parts size,compact --samples 20000 --epochs 6

size         an over-wide WRN-10 with l1 and fine-tuning: zeros, bytes of its file, accuracy
compact      the same with l1_structure="channel": parameters, bytes, and time to predict,
             before and after compact()
path         regularization_path from weak to strong and from strong to weak
subgradient  zeros after sub-gradient steps against proximal steps, on digits
gap          accuracy on training and test part with and without each regularization

Fashion-MNIST, its own test part, on which nothing was chosen; a row gives the mean and the
standard deviation over the seeds. Images are averaged down to `--side` pixels. `--choose`
measures on a fifth of the training rows instead, to choose strengths on.

Fits of size and compact are kept in the file `--results`, so that a run that was stopped,
by hand or by `--stop-after`, goes on where it was.
"""

import argparse
import gzip
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import sk_resnet
from sk_resnet import (
    EarlyStopping,
    ResNetClassifier,
    WideResNetClassifier,
    regularization_path,
)
from sk_resnet._network import kernels

sys.path.append(str(Path(__file__).parents[1]))
from results import add_option, mean_of, processor, record

STARTED = time.perf_counter()
FASHION = os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist")


def fashion(options):
    """Training rows drawn by the first seed's order, and the test part."""

    def read(name, offset):
        with gzip.open(Path(options.fashion) / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    def images(name):
        X = read(name, 16).reshape(-1, 1, 28, 28).astype(np.float32)
        factor = 28 // options.side
        return X.reshape(len(X), 1, options.side, factor, -1, factor).mean((3, 5))

    rows = np.random.default_rng(0).permutation(60_000)[: options.samples]
    X, X_test = (images(f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k"))
    y, y_test = (read(f"{part}-labels-idx1-ubyte.gz", 8) for part in ("train", "t10k"))
    return X[rows], y[rows], X_test, y_test


def numbers(text):
    """Numbers by comma."""
    return [float(part) for part in text.split(",")]


# Digits behind the point of each measure; three of the others.
DIGITS = {"file kB": 0, "smaller": 1, "faster": 2, "points": 2, "accuracy": 4}


def spread(name, values):
    """Mean and standard deviation of a measure, as text."""
    digits = DIGITS.get(name, 3)
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def show(options, table, case, arm, measures):
    """Print one line, from the values of each measure by seed, and record it."""
    cells = (f"{name} {spread(name, values)}" for name, values in measures.items())
    print(f"{case:<16} {arm:<12} " + ", ".join(cells), flush=True)
    table = f"choose {table}" if options.choose else table
    means = {name: mean_of(values) for name, values in measures.items()}
    record(options.json, table, case, arm, means, seeds=range(options.seeds))


def file_bytes(model):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.skr"
        sk_resnet.save(model, path)
        return path.stat().st_size


def predict_seconds(models, X):
    """Least seconds of each model, interleaved."""
    best = [np.inf] * len(models)
    for _ in range(10):
        for i, model in enumerate(models):
            started = time.perf_counter()
            model.predict(X)
            best[i] = min(best[i], time.perf_counter() - started)
    return best


def wide(options, seed, **changes):
    settings = {"width": options.width, "max_epochs": options.epochs, "random_state": seed}
    return WideResNetClassifier(10, **settings, **changes)


SETTING = ("samples", "side", "width", "epochs", "finetune", "l2", "choose")


def measured(options, l1, structure, seed):
    """What a fit gives: from the file of results, or fitted now and put there."""
    key = {name: getattr(options, name) for name in SETTING}
    key |= {"l1": l1, "structure": structure if l1 else "weight", "seed": seed}
    results = Path(options.results)
    lines = results.read_text().splitlines() if results.exists() else []
    for row in map(json.loads, lines):
        if row["fit"] == key:
            return row
    if time.perf_counter() - STARTED > options.stop_after:
        sys.exit("stopped: run it again to go on")
    row = {"fit": key, **fit_and_measure(options, l1, structure, seed)}
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, file=sys.stderr, flush=True)
    return row


def fit_and_measure(options, l1, structure, seed):
    X, y, X_test, y_test = fashion(options)
    if options.choose:
        X, X_test, y, y_test = train_test_split(
            X, y, test_size=0.2, stratify=y, random_state=0
        )
    finetune = options.finetune if l1 else 0
    # The dense network trains for as many epochs as the others in all.
    model = wide(options, seed, l1=l1, l1_structure=structure, finetune_epochs=finetune)
    model.set_params(max_epochs=options.epochs + options.finetune - finetune)
    model.set_params(l2=options.l2)
    started = time.perf_counter()
    model.fit(X, y)
    row = {"seconds": time.perf_counter() - started, "zeros": model.sparsity_}
    row |= {"accuracy": model.score(X_test, y_test), "bytes": file_bytes(model)}
    if l1 and structure == "channel":
        small = model.compact()
        before, after = predict_seconds([model, small], X_test[:1000])
        row |= {"left": small.n_parameters_ / model.n_parameters_}
        row |= {"faster": before / after, "compact_bytes": file_bytes(small)}
        row |= {"compact_accuracy": small.score(X_test, y_test)}
    return row


def points(rows, dense, name="accuracy"):
    """Change of accuracy in points against the dense network of the same seed."""
    pairs = zip(rows, dense, strict=True)
    return [100 * (row[name] - other["accuracy"]) for row, other in pairs]


def fits(options, l1, structure):
    """What the fits of each seed give, with l1 and without."""
    seeds = range(options.seeds)
    rows = [measured(options, l1, structure, seed) for seed in seeds]
    return rows, [measured(options, 0.0, "weight", seed) for seed in seeds]


def size(options):
    for l1 in (0.0, *options.l1s):
        rows, dense = fits(options, l1, "weight")
        measures = {
            "zeros": [row["zeros"] for row in rows],
            "file kB": [row["bytes"] / 1000 for row in rows],
            "smaller": ratios(rows, dense, "bytes"),
            "accuracy": [row["accuracy"] for row in rows],
            "points": points(rows, dense),
        }
        show(options, "size", f"{l1:g}", "weight", measures)


def ratios(rows, dense, name):
    """How many times smaller a file is than that of the dense network."""
    return [other["bytes"] / row[name] for row, other in zip(rows, dense, strict=True)]


def compact(options):
    for l1 in options.channel_l1s:
        rows, dense = fits(options, l1, "channel")
        measures = {
            "left": [row["left"] for row in rows],
            "smaller": ratios(rows, dense, "compact_bytes"),
            "faster": [row["faster"] for row in rows],
            "accuracy": [row["compact_accuracy"] for row in rows],
            "points": points(rows, dense, "compact_accuracy"),
        }
        show(options, "compact", f"{l1:g}", "channel", measures)


def path(options):
    X, y, X_test, y_test = fashion(options)
    l1s = options.l1s
    for direction in ("increasing", "decreasing"):
        paths = [
            regularization_path(
                wide(options, seed), X, y, l1s, X_val=X_test, y_val=y_test,
                direction=direction,
            )
            for seed in range(options.seeds)
        ]  # fmt: skip
        for i, l1 in enumerate(paths[0].l1s):
            measures = {
                "zeros": [p.sparsities[i] for p in paths],
                "accuracy": [p.scores[i] for p in paths],
            }
            show(options, "path", f"{l1:g}", direction, measures)


def subgradient_zeros(X, y, l1, seed, epochs=30):
    """Zeros of the same network under SGD on cross-entropy + l1·‖W‖₁."""
    model = ResNetClassifier(8, input_shape=(1, 8, 8), max_epochs=1, random_state=seed)
    module = model.fit(X, y).module_.train()
    x = torch.from_numpy(model.net_.input_spec.transform(X))
    labels = torch.from_numpy(y)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            penalty = sum(w.abs().sum() for w in kernels(module).values())
            loss = torch.nn.functional.cross_entropy(module(x[rows]), labels[rows])
            (loss + l1 * penalty).backward()
            optimizer.step()
        schedule.step()
    return shares(module)


def shares(module):
    """Shares of exact zeros, and of values below 1e-4."""
    w = torch.cat([w.detach().abs().ravel() for w in kernels(module).values()])
    return float((w == 0).float().mean()), float((w < 1e-4).float().mean())


def subgradient(options):
    X, y = load_digits(return_X_y=True)
    l1 = 1e-3
    found = [subgradient_zeros(X, y, l1, seed) for seed in range(options.seeds)]
    settings = {"input_shape": (1, 8, 8), "l1": l1, "max_epochs": 30, "l2": 0.0}
    settings |= {"lr": 0.05, "schedule": "cosine", "batch_size": 64}
    models = [
        ResNetClassifier(8, random_state=seed, **settings).fit(X, y)
        for seed in range(options.seeds)
    ]
    ours = [shares(model.module_) for model in models]
    for name, rows in (("sub-gradient", found), ("proximal", ours)):
        zeros, small = zip(*rows, strict=True)
        measures = {"zeros": zeros, "below 1e-4": small}
        show(options, "subgradient", f"l1 = {l1:g}", name, measures)


GAP = {
    "none": {"l2": 0.0},
    "l2 = 5e-4": {},
    "dropout = 0.3": {"l2": 0.0, "dropout": 0.3},
    "label smoothing": {"l2": 0.0, "label_smoothing": 0.1},
    "random erasing": {"l2": 0.0, "augment": "random_erasing"},
    "crop and flip": {"l2": 0.0, "augment": ["crop", "flip"]},
    "l1 = 1e-4": {"l2": 0.0, "l1": 1e-4},
    "early stopping": {"l2": 0.0, "callbacks": [EarlyStopping(patience=5)]},
}


def gap(options):
    X, y, X_test, y_test = fashion(options)
    n = max(500, options.samples // 4)
    X, _, y, _ = train_test_split(X, y, train_size=n, stratify=y, random_state=0)
    print(f"{n} samples")
    for name, changes in GAP.items():
        rows = []
        for seed in range(options.seeds):
            model = wide(options, seed, **changes)
            model.set_params(max_epochs=3 * options.epochs)
            model.fit(X, y)
            scores = model.score(X, y), model.score(X_test, y_test)
            rows.append((*scores, scores[0] - scores[1]))
        measures = dict(
            zip(("training", "test", "gap"), zip(*rows, strict=True), strict=True)
        )
        show(options, "gap", name, f"WRN-10-{options.width:g}", measures)


PARTS = {f.__name__: f for f in (size, compact, path, subgradient, gap)}


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="by comma")
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--side", type=int, default=14, choices=(7, 14, 28))
    parser.add_argument("--width", type=float, default=2)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--finetune", type=int, default=4, help="epochs")
    parser.add_argument("--l1s", type=numbers, default="1e-3,4e-3,8e-3,1.6e-2")
    parser.add_argument("--channel-l1s", type=numbers, default="1e-3,2e-3")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--l2", type=float, default=5e-4)
    parser.add_argument("--choose", action="store_true", help="measure on training rows")
    parser.add_argument(
        "--results", default="build/regularization.jsonl", help="file of fits"
    )
    parser.add_argument("--stop-after", type=float, default=np.inf, metavar="SECONDS")
    parser.add_argument("--fashion", default=FASHION, help="folder of its files")
    add_option(parser, __file__)
    options = parser.parse_args()
    print(f"{processor()}, torch {torch.__version__}, {options}")
    for name in options.parts.split(","):
        print(f"\n{name}")
        PARTS[name](options)


if __name__ == "__main__":
    main()
