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
import platform
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


def spread(values, scale=1.0, digits=3):
    values = scale * np.array(values, dtype=float)
    return f"{values.mean():.{digits}f} ± {values.std():.{digits}f}"


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
    """Change of accuracy against the dense network of the same seed."""
    lost = [row[name] - d["accuracy"] for row, d in zip(rows, dense, strict=True)]
    return spread(lost, 100, 2)


def size(options):
    print(f"{'l1':<8}{'zeros':>16}{'file, kB':>14}{'smaller':>14}", end="")
    print(f"{'accuracy':>18}{'points':>16}")
    for l1 in (0.0, *options.l1s):
        pairs = [
            [measured(options, s, "weight", i) for s in (0.0, l1)] for i in seeds(options)
        ]
        dense, rows = zip(*pairs, strict=True)
        smaller = [d["bytes"] / row["bytes"] for d, row in pairs]
        print(
            f"{l1:<8g}{spread([r['zeros'] for r in rows]):>16}"
            f"{spread([r['bytes'] for r in rows], 1e-3, 0):>14}{spread(smaller, 1, 1):>14}"
            f"{spread([r['accuracy'] for r in rows], 1, 4):>18}{points(rows, dense):>16}",
            flush=True,
        )


def compact(options):
    print(f"{'l1':<8}{'parameters left':>17}{'file smaller':>16}{'faster':>14}", end="")
    print(f"{'accuracy':>18}{'points':>16}")
    for l1 in options.channel_l1s:
        dense = [measured(options, 0.0, "weight", seed) for seed in seeds(options)]
        rows = [measured(options, l1, "channel", seed) for seed in seeds(options)]
        pairs = list(zip(dense, rows, strict=True))
        smaller = [d["bytes"] / row["compact_bytes"] for d, row in pairs]
        accuracy = [row["compact_accuracy"] for row in rows]
        print(
            f"{l1:<8g}{spread([r['left'] for r in rows]):>17}{spread(smaller, 1, 1):>16}"
            f"{spread([r['faster'] for r in rows], 1, 2):>14}{spread(accuracy, 1, 4):>18}"
            f"{points(rows, dense, 'compact_accuracy'):>16}",
            flush=True,
        )


def seeds(options):
    return range(options.seeds)


def path(options):
    X, y, X_test, y_test = fashion(options)
    l1s = options.l1s
    print(f"{'direction':<12}{'l1':<9}{'zeros':>16}{'accuracy':>18}")
    for direction in ("increasing", "decreasing"):
        paths = [
            regularization_path(
                wide(options, seed), X, y, l1s, X_val=X_test, y_val=y_test,
                direction=direction,
            )
            for seed in range(options.seeds)
        ]  # fmt: skip
        for i, l1 in enumerate(paths[0].l1s):
            zeros = spread([p.sparsities[i] for p in paths])
            accuracy = spread([p.accuracies[i] for p in paths], digits=4)
            print(f"{direction:<12}{l1:<9g}{zeros:>16}{accuracy:>18}", flush=True)


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
    print(f"{'steps':<14}{'exact zeros':>18}{'below 1e-4':>18}")
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
        print(f"{name:<14}{spread(zeros):>18}{spread(small):>18}", flush=True)


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
    print(f"{n} samples\n{'with':<18}{'training':>18}{'test':>18}{'gap':>18}")
    for name, changes in GAP.items():
        rows = []
        for seed in range(options.seeds):
            model = wide(options, seed, **changes)
            model.set_params(max_epochs=3 * options.epochs)
            model.fit(X, y)
            scores = model.score(X, y), model.score(X_test, y_test)
            rows.append((*scores, scores[0] - scores[1]))
        train, test, difference = (spread(c, digits=4) for c in zip(*rows, strict=True))
        print(f"{name:<18}{train:>18}{test:>18}{difference:>18}", flush=True)


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
    options = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {options}"
    )
    for name in options.parts.split(","):
        print(f"\n{name}")
        PARTS[name](options)


if __name__ == "__main__":
    main()
