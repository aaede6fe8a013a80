"""The papers' experiments on Fashion-MNIST: what was published beside what is measured.

    python benchmarks/papers/run.py                      # reduced, for a CPU
    python benchmarks/papers/run.py --parts depth,orders --seeds 3 --minutes 5
    python benchmarks/papers/run.py --full               # as published, for a GPU
    python benchmarks/papers/run.py --only-table         # of what has been measured

anchors  test accuracies published for this release of Fashion-MNIST (300 epochs)
depth    plain against residual networks (arXiv:1512.03385, table 6 and figure 6)
orders   where norms and ReLUs stand (arXiv:1603.05027, table 2)
width    fewer, wider layers against more of them (arXiv:1605.07146, table 4)
dropout  between the convolutions of a wide block (arXiv:1605.07146, table 6)

Only the anchors were published for Fashion-MNIST. The other figures are errors on CIFAR-10,
whose order is what can be compared.

A run is one network and one seed. Each that ends is a line of the results file, and is not
done again: stop the script at any time and start it again. What a run is made of is part of
its line, so that a change of the settings starts anew. The table has the mean and the
standard deviation over the seeds; errors are of the last epoch, on the test part.
"""

import argparse
import gzip
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

import sk_resnet
from sk_resnet import ResNetClassifier, WideResNetClassifier

sys.path.append(str(Path(__file__).parents[1]))
from results import add_option, mean_of, origin, processor, record

FASHION = os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist")
RESULTS = Path(__file__).parent / "results.jsonl"
COMMON = {"batch_size": 128, "lr": 0.1, "momentum": 0.9}
# The code of arXiv:1708.04896 decays every parameter, and divides the rate at epochs 150
# and 225 of 300.
# Differs from it: Nesterov, a reflected border, noise as eraser.
ERASING = {**COMMON, "schedule": "resnet_steps", "l2": 5e-4, "l2_on": "all"}
# Differs from the paper: no warm-up for 110 layers.
RESNET = {**COMMON, "schedule": "resnet_steps", "l2": 1e-4, "l2_on": "all"}
WIDE = {**COMMON, "schedule": "wide_steps", "l2": 5e-4, "l2_on": "all"}
CROP = ["crop", "flip"]


@dataclass(frozen=True)
class Arm:
    """One network of a part: as published, what was published, and how it is reduced."""

    part: str
    name: str
    parameters: dict
    published: str
    reduced: dict = field(default_factory=dict)
    epochs: int = 200
    wide: bool = False


def _anchors():
    erase = [*CROP, "random_erasing"]
    return [
        Arm("anchors", "ResNet-20, crop, flip", {"depth": 20, "augment": CROP, **ERASING},
            "5.04 ± 0.13", epochs=300),
        Arm("anchors", "the same, erasing", {"depth": 20, "augment": erase, **ERASING},
            "4.81 ± 0.09", epochs=300),
        Arm("anchors", "WRN-28-10, erasing",
            {"depth": 28, "width": 10, "augment": erase, **ERASING}, "4.30",
            {"depth": 16, "width": 2}, epochs=300, wide=True),
    ]  # fmt: skip


def _depth():
    # 64,000 steps of 128 samples are 137 epochs of 60,000.
    published = {20: "8.75", 32: "7.51", 44: "7.17", 56: "6.97", 110: "6.43"}
    return [
        Arm("depth", f"{kind}-{depth}",
            {"depth": depth, "shortcut": shortcut, "augment": CROP, **RESNET}, text,
            {"augment": None}, epochs=137)
        for kind, shortcut in (("residual", "zero_pad"), ("plain", "none"))
        for depth in published
        for text in [published[depth] if kind == "residual" else "rises with depth"]
    ]  # fmt: skip


def _orders():
    published = {
        "original": "6.61",
        "norm_after_addition": "8.17",
        "relu_before_addition": "7.84",
        "relu_only_preactivation": "6.71",
        "full_preactivation": "6.37",
    }
    return [
        Arm("orders", order, {"depth": 110, "order": order, "augment": CROP, **RESNET},
            text, {"depth": 32, "augment": None}, epochs=137)
        for order, text in published.items()
    ]  # fmt: skip


def _width():
    # Reduced: about 0.56 million parameters each.
    published = {
        (40, 4): ("4.97", (40, 1.0)),
        (22, 8): ("4.38", (22, 1.44)),
        (16, 8): ("4.81", (16, 1.8)),
    }
    return [
        Arm("width", f"WRN-{depth}-{width}",
            {"depth": depth, "width": width, "augment": CROP, **WIDE}, text,
            {"depth": small[0], "width": small[1], "augment": None}, wide=True)
        for (depth, width), (text, small) in published.items()
    ]  # fmt: skip


def _dropout():
    published = {
        (28, 10, 0.0): "4.00",
        (28, 10, 0.3): "3.89",
        (16, 4, 0.0): "5.02",
        (16, 4, 0.3): "5.24",
    }
    return [
        Arm("dropout", f"WRN-{depth}-{width}, dropout {rate:g}",
            {"depth": depth, "width": width, "dropout": rate, "augment": CROP, **WIDE},
            text, {"depth": 10, "width": 2 if width == 10 else 1, "augment": None},
            wide=True)
        for (depth, width, rate), text in published.items()
    ]  # fmt: skip


PARTS = {f.__name__[1:]: f for f in (_anchors, _depth, _orders, _width, _dropout)}


def fashion(folder, samples, side):
    """Training rows in the order of seed 0, and the test part; uint8 at full size."""

    def read(name, offset):
        with gzip.open(Path(folder) / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    def images(name):
        X = read(name, 16).reshape(-1, 1, 28, 28)
        factor = 28 // side
        if factor == 1:
            return X
        means = X.reshape(len(X), 1, side, factor, side, factor).mean((3, 5))
        return means.astype(np.float32)

    rows = np.random.default_rng(0).permutation(60_000)[:samples]
    X, X_test = (images(f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k"))
    y, y_test = (read(f"{part}-labels-idx1-ubyte.gz", 8) for part in ("train", "t10k"))
    return X[rows], y[rows], X_test, y_test


def runs(options):
    """Every run that is asked for, as what its line in the results begins with."""
    arms = [arm for part in options.parts.split(",") for arm in PARTS[part]()]
    for seed in range(options.seeds):
        for arm in arms:
            parameters, epochs = dict(arm.parameters), arm.epochs
            if not options.full:
                parameters |= {"batch_size": options.batch, **arm.reduced}
                epochs = options.epochs
                if parameters["depth"] > options.deepest:
                    continue
            yield arm, {
                "part": arm.part, "arm": arm.name, "wide": arm.wide, "seed": seed,
                "parameters": parameters, "epochs": epochs, "samples": options.samples,
                "side": options.side,
            }  # fmt: skip


def finished(path):
    """Lines of the results file; one that a kill cut off is left out."""
    rows = []
    for line in path.read_text().split("\n") if path.exists() else []:
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"left out a line of {path.name} that was cut off")
    return rows


def measure(run, data):
    """Fit one network, and what is kept of it."""
    X, y, X_test, y_test = data
    cls = WideResNetClassifier if run["wide"] else ResNetClassifier
    model = cls(**run["parameters"], max_epochs=run["epochs"], random_state=run["seed"])
    started = time.perf_counter()
    model.fit(X, y)
    return {
        "seconds": time.perf_counter() - started,
        "test_error": 100 * (1 - model.score(X_test, y_test)),
        "training_error": 100 * (1 - model.history_[-1]["train_accuracy"]),
        "n_parameters": model.n_parameters_,
        "device": model.device_,
        "precision": model.precision_,
        "version": sk_resnet.__version__,
        "origin": origin(model.device_),
    }


def work(options):
    """Do the runs that are missing, while the time lasts."""
    done = {key(row) for row in finished(options.results)}
    missing = [run for _, run in runs(options) if key(run) not in done]
    print(f"{len(missing)} runs to do", flush=True)
    started, longest = time.perf_counter(), 0.0
    data = fashion(options.fashion, options.samples, options.side) if missing else None
    for i, run in enumerate(missing):
        left = 60 * options.minutes - (time.perf_counter() - started)
        if left < longest:
            print(f"{len(missing) - i} runs left: start it again")
            return
        row = {**run, **measure(run, data)}
        longest = max(longest, row["seconds"])
        with options.results.open("a") as file:
            # A leading line break parts it from a line that a kill cut off.
            file.write("\n" + json.dumps(row))
            file.flush()
            os.fsync(file.fileno())
        print(
            f"{run['part']}, {run['arm']}, seed {run['seed']}: "
            f"test error {row['test_error']:.2f} %, {row['seconds']:.0f} s",
            flush=True,
        )


def key(row):
    """What a run is made of, without what it measured."""
    names = ("part", "arm", "wide", "seed", "parameters", "epochs", "samples", "side")
    return json.dumps({name: row[name] for name in names}, sort_keys=True)


def spread(values):
    """Mean and standard deviation; a single value stands alone."""
    text = f"{np.mean(values):.2f}"
    return f"{text} ± {np.std(values):.2f}" if len(values) > 1 else text


def table(options):
    """Print published against measured errors, part by part, and record them."""
    rows = {key(row): row for row in finished(options.results)}
    by_arm = {}
    for arm, run in runs(options):
        if key(run) in rows:
            by_arm.setdefault((arm.part, arm.name), (arm, []))[1].append(rows[key(run)])
    for part in options.parts.split(","):
        print(f"\n{part}: error in %, of {options.samples} samples")
        heads = ("published", "measured", "in training", "parameters", "s", "seeds")
        print(f"{'network':<34}" + "".join(f"{head:>17}" for head in heads))
        for (of, name), (arm, found) in by_arm.items():
            if of == part:
                n = len(found)
                cells = (
                    arm.published,
                    spread([row["test_error"] for row in found]),
                    spread([row["training_error"] for row in found]),
                    f"{found[0]['n_parameters']:,}",
                    f"{np.mean([row['seconds'] for row in found]):.0f}",
                    str(n),
                )
                name = name if options.full else _reduced_name(arm, found[0])
                print(f"{name:<34}" + "".join(f"{cell:>17}" for cell in cells))
                record(
                    options.json,
                    f"{part}, in full" if options.full else part,
                    name,
                    "ours",
                    measures(arm, found),
                    seeds=[row["seed"] for row in found],
                    source=found[0].get("origin"),
                )


def measures(arm, found):
    """What is recorded of an arm's runs."""
    depth, width = (arm.parameters.get(name, 1) for name in ("depth", "width"))
    full = f" (WRN-{depth}-{width})" if arm.wide and arm.reduced else ""
    return {
        "published": arm.published + full,
        "test error": mean_of([row["test_error"] for row in found]),
        "training error": mean_of([row["training_error"] for row in found]),
        "parameters": found[0]["n_parameters"],
        "seconds": mean_of([row["seconds"] for row in found]),
    }


def _reduced_name(arm, row):
    depth, width = row["parameters"]["depth"], row["parameters"].get("width", 1)
    full = arm.parameters["depth"], arm.parameters.get("width", 1)
    if (depth, width) == full:
        return arm.name
    small = f"WRN-{depth}-{width:g}" if arm.wide else f"{depth} layers"
    big = f"WRN-{full[0]}-{full[1]:g}"
    if arm.wide:
        return arm.name.replace(big, small)
    return f"{arm.name}, {small}"


def main():
    """Do what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="by comma")
    parser.add_argument("--full", action="store_true", help="as published, for a GPU")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--samples", type=int, default=None, help="default 2000")
    parser.add_argument("--side", type=int, default=None, help="14 or 28 pixels")
    parser.add_argument("--epochs", type=int, default=15, help="of the reduced setting")
    parser.add_argument("--batch", type=int, default=64, help="of the reduced setting")
    parser.add_argument("--deepest", type=int, default=56, help="of the reduced setting")
    parser.add_argument("--minutes", type=float, default=np.inf, help="then stop")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--fashion", default=FASHION, help="folder of its files")
    parser.add_argument("--only-table", action="store_true")
    add_option(parser, __file__)
    options = parser.parse_args()
    options.samples = options.samples or (60_000 if options.full else 2000)
    options.side = options.side or (28 if options.full else 14)
    print(f"{processor()}, torch {torch.__version__}, {options}")
    if not options.only_table:
        work(options)
    table(options)


if __name__ == "__main__":
    main()
