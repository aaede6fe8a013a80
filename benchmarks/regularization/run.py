"""What regularization brings: bytes, time and generalisation, over seeds.

    python benchmarks/regularization/run.py                    # all parts, small setting
    python benchmarks/regularization/run.py --parts size --samples 20000 --side 28

size         an over-wide WRN-10 with l1 and fine-tuning: zeros, bytes of its file, accuracy
compact      the same with l1_structure="channel": parameters, time to predict, before and
             after compact()
path         regularization_path from weak to strong and from strong to weak
subgradient  zeros after sub-gradient steps against proximal steps, on digits
gap          accuracy on training and test part with and without each regularization

Fashion-MNIST, its own test part, on which nothing was chosen; a row gives the mean and the
standard deviation over the seeds. Images are averaged down to `--side` pixels.
"""

import argparse
import gzip
import os
import platform
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
    for _ in range(3):
        for i, model in enumerate(models):
            started = time.perf_counter()
            model.predict(X)
            best[i] = min(best[i], time.perf_counter() - started)
    return best


def wide(options, seed, **changes):
    settings = {"width": options.width, "max_epochs": options.epochs, "random_state": seed}
    return WideResNetClassifier(10, **settings, **changes)


def size(options):
    X, y, X_test, y_test = fashion(options)
    print(f"{'l1':<8}{'zeros':>16}{'file kB':>18}{'smaller':>16}{'accuracy':>18}")
    dense = {}
    for l1 in (0.0, *options.l1s):
        rows = []
        for seed in range(options.seeds):
            finetune = options.finetune if l1 else 0
            model = wide(options, seed, l1=l1, finetune_epochs=finetune).fit(X, y)
            n = file_bytes(model)
            dense.setdefault(seed, n)
            accuracy = model.score(X_test, y_test)
            rows.append((model.sparsity_, n / 1e3, dense[seed] / n, accuracy))
        columns = list(zip(*rows, strict=True))
        print(
            f"{l1:<8g}{spread(columns[0]):>16}{spread(columns[1], digits=0):>18}"
            f"{spread(columns[2], digits=1):>16}{spread(columns[3], digits=4):>18}",
            flush=True,
        )


def compact(options):
    X, y, X_test, y_test = fashion(options)
    print(f"{'l1':<8}{'parameters left':>20}{'faster':>16}{'accuracy':>18}")
    for l1 in (0.0, *options.channel_l1s):
        rows = []
        for seed in range(options.seeds):
            model = wide(options, seed, l1=l1, l1_structure="channel")
            model.set_params(finetune_epochs=options.finetune if l1 else 0).fit(X, y)
            small = model.compact()
            before, after = predict_seconds([model, small], X_test[:1000])
            share = small.n_parameters_ / model.n_parameters_
            rows.append((share, before / after, small.score(X_test, y_test)))
        columns = list(zip(*rows, strict=True))
        print(
            f"{l1:<8g}{spread(columns[0]):>20}{spread(columns[1], digits=2):>16}"
            f"{spread(columns[2], digits=4):>18}",
            flush=True,
        )


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
