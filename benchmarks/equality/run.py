"""Whether a change of the code leaves every bit of what is trained as it was.

    python benchmarks/equality/run.py --before HEAD~1
    python benchmarks/equality/run.py --before main --only original/rows,block/bottleneck

Fits small networks by the code of an earlier commit and by that of this checkout, with what
is not committed yet, each in its own process on one thread of the CPU, and compares them:

weights        every entry of ``module_.state_dict()``       bit by bit
embed          features of all samples                       bit by bit
logits         the classifier of ``module_`` over them       bit by bit
labels         of ``predict``                                bit by bit
losses         of ``history_``, training and validation      bit by bit
probabilities  within rounding of float32, whatever their type

A table that is all "yes" proves that a change from the inside is none from the outside, for
the documented values of the parameters that shape or train a network. `compile` and GPUs
are left out. It exits with 1 where a row differs, or could not be fitted.
"""

import argparse
import functools
import io
import pickle
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GroupKFold, StratifiedKFold
from skorch.callbacks import Callback, GradientNormClipping

import sk_resnet
from sk_resnet import EarlyStopping, ResNetClassifier, WideResNetClassifier

sys.path.append(str(Path(__file__).parents[1]))
from earlier import code_of, environment
from results import ROOT

# Samples: tiny, and the same in every process.


def iris():
    return load_iris(return_X_y=True)


def rows():
    X, y = iris()
    return X[::2], y[::2]


def names():
    X, y = rows()
    return X, load_iris().target_names[y]


def series():
    """Waves of three frequencies, in two channels."""
    y = np.arange(60) % 3
    times = np.linspace(0, 2 * np.pi, 24) + np.array([[0.0], [1.0]])
    noise = np.random.default_rng(0).normal(size=(60, 2, 24))
    return np.sin((y + 1)[:, None, None] * times) + 0.3 * noise, y


@functools.cache
def images():
    """Digits from 0 to 3, with fewer zeros than others."""
    digits = load_digits(n_class=4)
    kept = np.flatnonzero((digits.target > 0) | (np.arange(len(digits.target)) % 2 > 0))
    return digits.images[kept[:64], None], digits.target[kept[:64]]


def colours():
    X, y = images()
    return np.concatenate([X, X[..., ::-1], 16 - X], axis=1), y


def volumes():
    """Noise, in one of two classes with a brighter half."""
    y = np.arange(40) % 2
    X = np.random.default_rng(0).normal(size=(40, 1, 4, 4, 4))
    X[:, :, :2] += y[:, None, None, None, None]
    return X, y


def large():
    """Digits of 64 x 64 pixels."""
    X, y = images()
    return X[:16].repeat(8, axis=2).repeat(8, axis=3), y[:16]


def series_last():
    X, y = series()
    return np.moveaxis(X, 1, -1), y


def colours_last():
    X, y = colours()
    return np.moveaxis(X, 1, -1), y


def volumes_last():
    X, y = volumes()
    return np.moveaxis(X, 1, -1), y


def flat():
    X, y = images()
    return X.reshape(len(X), -1), y


def whole_numbers():
    X, y = images()
    return X.astype(np.uint8), y


# Trainings: a new estimator and samples come to a fitted one.


def fit(model, X, y):
    return model.fit(X, y)


def fit_weighted(model, X, y):
    return model.fit(X, y, sample_weight=np.arange(len(X)) % 3)


def fit_validated(model, X, y):
    return model.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])


def fit_groups(model, X, y):
    return model.fit(X, y, groups=np.arange(len(X)) // 4)


def fit_twice(model, X, y):
    return model.fit(X, y).fit(X, y)


def fit_compact(model, X, y):
    return model.fit(X, y).compact()


def fit_compact_partial(model, X, y):
    return model.fit(X, y).compact().partial_fit(X, y)


def fit_parts(model, X, y):
    for start in range(3):
        model.partial_fit(X[start::3], y[start::3], classes=np.unique(y))
    return model


def fit_pickle(model, X, y):
    return pickle.loads(pickle.dumps(model.fit(X, y))).partial_fit(X, y)


def fit_joblib(model, X, y):
    file = io.BytesIO()
    joblib.dump(model.fit(X, y), file)
    file.seek(0)
    return joblib.load(file).partial_fit(X, y)


class Shrink(Callback):
    """A hook for batches that shows in the weights."""

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            with torch.no_grad():
                for w in net.module_.parameters():
                    w.mul_(0.99)


# Configurations


@dataclass(frozen=True)
class Configuration:
    """An estimator, its samples, and how it is trained on them."""

    make: type
    parameters: dict
    data: Callable
    train: Callable = fit


def resnet(data, train=fit, **changes):
    return small(ResNetClassifier, data, train, 8, "original", changes)


def wide(data, train=fit, **changes):
    return small(WideResNetClassifier, data, train, 10, "full_preactivation", changes)


def small(make, data, train, depth, order, changes):
    """Depth, width, order and axis are always named: their defaults may change."""
    parameters = {"depth": depth, "channel_axis": 1}
    if data in (rows, names):
        parameters = {"depth": 4}
    parameters |= {"width": 0.5, "order": order, "max_epochs": 3, "random_state": 0}
    return Configuration(make, parameters | changes, data, train)


def ordered(data, order):
    """Blocks with and without a change of shape: in those alone some orders agree."""
    return resnet(data, order=order, depth=6 if data is rows else 14, width=1)


ORDERS = (
    "original",
    "norm_after_addition",
    "relu_before_addition",
    "relu_only_preactivation",
    "full_preactivation",
)
KINDS = (rows, series, images, volumes)
SHORTCUTS = ("projection", "zero_pad", "none")
OPTIMIZERS = ("sgd", "heavy_ball", "adamw")
SCHEDULES = ("one_cycle", "cosine", "resnet_steps", "wide_steps", "constant")
L1S = {"weight": 0.003, "channel": 0.03}
SERIES_AUGMENTS = ("shift", "window")
IMAGE_AUGMENTS = (
    "crop",
    "flip",
    "random_erasing",
    "cutout",
    "scaling",
    "jitter",
    "mixup",
    "cutmix",
)
LAST = {"order": "full_preactivation"}
CHANNEL = {"l1": L1S["channel"], "l1_structure": "channel"}
STOP = EarlyStopping(patience=1, min_delta=0.2)

PRODUCTS = {
    **{f"{o}/{kind.__name__}": ordered(kind, o) for o in ORDERS for kind in KINDS},
    **{f"shortcut/{s}": resnet(images, shortcut=s) for s in SHORTCUTS},
    **{f"shortcut/{s}/preactivated": resnet(images, shortcut=s, **LAST) for s in SHORTCUTS},
    **{f"optimizer/{name}": resnet(images, optimizer=name) for name in OPTIMIZERS},
    **{
        f"l1/{structure}/{name}": resnet(
            images, l1=l1, l1_structure=structure, optimizer=name
        )
        for structure, l1 in L1S.items()
        for name in OPTIMIZERS
    },
    **{f"schedule/{name}": resnet(images, schedule=name) for name in SCHEDULES},
    **{f"augment/{name}": resnet(images, augment=name) for name in IMAGE_AUGMENTS},
    **{f"augment/{name}": resnet(series, augment=name) for name in SERIES_AUGMENTS},
}

SINGLE = {
    "block/bottleneck": resnet(images, depth=11, width=0.25, block="bottleneck"),
    "block/bottleneck/rows": resnet(rows, depth=5, block="bottleneck"),
    "block/bottleneck/wide": wide(images, width=0.25, block="bottleneck"),
    "block/bottleneck/preactivated": resnet(images, depth=11, block="bottleneck", **LAST),
    "block/3": resnet(images, depth=5, block=(3,)),
    "block/3-1-3": resnet(images, depth=11, block=(3, 1, 3)),
    "block/2-2": resnet(images, block=(2, 2)),
    "block/2-2/series": resnet(series, block=(2, 2)),
    "block/2-2/volumes": resnet(volumes, block=(2, 2)),
    "shortcut/zero_pad/rows": resnet(rows, shortcut="zero_pad"),
    "shortcut/zero_pad/series": resnet(series, shortcut="zero_pad"),
    "shortcut/zero_pad/volumes": resnet(volumes, shortcut="zero_pad"),
    "layout/imagenet": resnet(large, depth=18, width=0.125, layout="imagenet"),
    "layout/imagenet/series": resnet(series, depth=18, width=0.125, layout="imagenet"),
    "layout/auto": resnet(large, depth=18, width=0.125),
    "wide/rows": wide(rows, width=1),
    "wide/series": wide(series, width=1),
    "wide/images": wide(images, width=1),
    "wide/images/deeper": wide(images, depth=16),
    "wide/dropout": wide(images, dropout=0.3),
    "l1/rows": resnet(rows, l1=0.003),
    "l1/channel/adamw/faster": resnet(images, optimizer="adamw", lr=0.01, **CHANNEL),
    "l2/none": resnet(images, l2=0.0),
    "l2/strong": resnet(images, l2=0.05),
    "l2/all": resnet(images, l2=0.05, l2_on="all"),
    "l2/all/adamw": resnet(images, l2=0.05, l2_on="all", optimizer="adamw"),
    "lr": resnet(images, lr=0.02),
    "momentum/none": resnet(images, momentum=0.0),
    "batch_size": resnet(images, batch_size=10),  # the last one has 4
    "augment/jitter/rows": resnet(rows, augment="jitter"),
    "augment/mixup/rows": resnet(rows, augment="mixup"),
    "augment/several": resnet(images, augment=["crop", "flip", "mixup", "cutmix"]),
    "label_smoothing": resnet(images, label_smoothing=0.1),
    "label_smoothing/mixup": resnet(images, label_smoothing=0.1, augment="mixup"),
    "class_weight/dict": resnet(images, class_weight={0: 3.0, 2: 0.0}),
    "class_weight/balanced": resnet(images, class_weight="balanced"),
    "sample_weight": resnet(images, fit_weighted),
    "sample_weight/rows": resnet(rows, fit_weighted, class_weight="balanced"),
    "dropout": resnet(images, dropout=0.3),
    "dropout/rows": resnet(rows, dropout=0.3),
    "stochastic_depth": resnet(images, stochastic_depth=0.5),
    "stochastic_depth/rows": resnet(rows, stochastic_depth=0.5),
    "precision/bfloat16": resnet(images, precision="bfloat16"),
    "precision/float32": resnet(images, precision="float32"),
    "input/uint8": resnet(whole_numbers),
    "input/colours": resnet(colours),
    "input/folded": resnet(flat, input_shape=(1, 8, 8)),
    "channel_axis/series": resnet(series_last, channel_axis=-1),
    "channel_axis/images": resnet(colours_last, channel_axis=-1),
    "channel_axis/volumes": resnet(volumes_last, channel_axis=-1),
    "scale/none": resnet(images, scale=None),
    "scale/none/rows": resnet(rows, scale=None),
    "validation/fraction": resnet(images, validation_split=0.25),
    "validation/splitter": resnet(images, validation_split=StratifiedKFold(4)),
    "validation/groups": resnet(images, fit_groups, validation_split=GroupKFold(4)),
    "validation/given": resnet(images, fit_validated),
    "stopping": resnet(images, callbacks=[STOP], max_epochs=8),
    "stopping/fraction": resnet(
        images, validation_split=0.25, callbacks=[STOP], max_epochs=8
    ),
    "stopping/given": resnet(rows, fit_validated, callbacks=[STOP], max_epochs=8),
    "callbacks/batches": resnet(images, callbacks=[Shrink()]),
    "callbacks/gradients": resnet(images, callbacks=[GradientNormClipping(0.1)]),
    "warm_start": resnet(images, fit_twice, warm_start=True),
    "warm_start/adamw": resnet(rows, fit_twice, warm_start=True, optimizer="adamw"),
    "partial_fit": resnet(images, fit_parts),
    "partial_fit/rows": resnet(rows, fit_parts, class_weight={0: 2.0}),
    "finetune": resnet(images, l1=0.003, finetune_epochs=2),
    "finetune/channel": resnet(images, finetune_epochs=2, **CHANNEL),
    "labels/strings": resnet(names),
    "compact": resnet(images, fit_compact, **CHANNEL),
    "compact/partial_fit": resnet(images, fit_compact_partial, **CHANNEL, **LAST),
    "stored/pickle": resnet(images, fit_pickle),
    "stored/joblib": resnet(names, fit_joblib, l1=0.003),
    "default/resnet": Configuration(ResNetClassifier, {"random_state": 0}, iris),
    "default/wide": Configuration(WideResNetClassifier, {"random_state": 0}, iris),
}

CONFIGURATIONS = PRODUCTS | SINGLE

# One side


def record(names, path):
    """Write what the code that is imported here gives for each configuration."""
    found = {"source": np.array(sk_resnet.__file__)}
    for name in names:
        for item, value in fitted(CONFIGURATIONS[name]).items():
            found[f"{name}|{item}"] = value
    np.savez(path, **found)


def fitted(configuration):
    """Arrays by name, or one error."""
    X, y = configuration.data()
    try:
        model = configuration.make(**known(configuration))
        return arrays(configuration.train(model, X, y), X)
    except Exception as error:  # a row of the table, and the next one is fitted
        traceback.print_exc()
        return {"error": np.array(repr(error))}


def known(configuration):
    """Parameters as the code that runs names them: `scale` was a boolean before."""
    given = dict(configuration.parameters)
    if "scale" in given and not hasattr(configuration.make(), "scale"):
        given["standardize"] = given.pop("scale") is not None
    return given


def arrays(model, X):
    module, embedded = model.module_.eval(), model.embed(X)
    with torch.no_grad():
        logits = module.classifier(torch.from_numpy(embedded)).numpy()
    found = {f"weights {key}": w.numpy() for key, w in module.state_dict().items()}
    found |= {"embed": embedded, "logits": logits, "labels": model.predict(X)}
    for loss in ("train_loss", "valid_loss"):
        found[loss] = np.array([row.get(loss, np.nan) for row in model.history_])
    return found | {"probabilities": model.predict_proba(X)}


# Both sides


def recorded(tree, names, path):
    """What the package in a tree gives, by configuration and item."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "--record", str(path), "--only", ",".join(names)]
    subprocess.run(command, env=environment(tree), check=True)
    with np.load(path) as file:
        found = dict(file)
    source = Path(str(found.pop("source")))
    if not source.is_relative_to(tree):
        sys.exit(f"{source} was imported, not the package in {tree}")
    print(f"{time.perf_counter() - started:.0f} s for {tree}", flush=True)
    return by_configuration(found)


def by_configuration(found):
    result = {}
    for key, value in found.items():
        name, _, item = key.partition("|")
        result.setdefault(name, {})[item] = value
    return result


def is_equal(item, a, b):
    if a is None or b is None or a.shape != b.shape:
        return False
    if item == "probabilities":
        return np.allclose(a, b, rtol=1e-5, atol=1e-7)
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def distance(a, b):
    """Largest difference; infinite where there is no such number."""
    if a is None or b is None or a.shape != b.shape:
        return np.inf
    if "U" in a.dtype.kind + b.dtype.kind:
        return 0.0 if np.array_equal(a, b) else np.inf
    difference = np.abs(a.astype(float) - b.astype(float))
    # Losses that neither side has are NaN there.
    difference = np.where(np.isnan(a) & np.isnan(b), 0.0, difference)
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))


def compare(name, before, after):
    """Print one row; return whether it is equal."""
    if errors := [str(side["error"]) for side in (before, after) if "error" in side]:
        print(f"{name:<34}{'error':<12}{'; '.join(errors)}")
        return False
    items = list(before | after)
    pairs = {item: (before.get(item), after.get(item)) for item in items}
    wrong = [item for item in items if not is_equal(item, *pairs[item])]
    rounded = distance(*pairs.pop("probabilities"))
    largest = max(distance(*pair) for pair in pairs.values())
    groups = ", ".join(dict.fromkeys(item.partition(" ")[0] for item in wrong))
    print(
        f"{name:<34}{'no' if wrong else 'yes':<12}{largest:<20.3g}{rounded:<16.3g}{groups}"
    )
    return not wrong


def table(ref, names):
    """Print all rows; return how many differ."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder).resolve()
        before = recorded(code_of(ref, folder / "before"), names, folder / "before.npz")
        after = recorded(ROOT, names, folder / "after.npz")
    print(f"\n{'configuration':<34}{'bits equal':<12}{'largest difference':<20}", end="")
    print(f"{'probabilities':<16}what differs")
    wrong = sum(not compare(name, before[name], after[name]) for name in names)
    print(f"\n{len(names) - wrong} of {len(names)} configurations are equal")
    return wrong


def main():
    """Compare two sides, or record one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    side = parser.add_mutually_exclusive_group(required=True)
    side.add_argument("--before", metavar="REF", help="commit to compare with")
    side.add_argument("--record", metavar="FILE", help="record the package on the path")
    parser.add_argument("--only", default=",".join(CONFIGURATIONS), help="by comma")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := sorted(set(names) - set(CONFIGURATIONS)):
        parser.error(f"unknown {', '.join(unknown)}: use {', '.join(CONFIGURATIONS)}")
    if options.record:
        record(names, options.record)
    elif table(options.before, names):
        sys.exit(1)


if __name__ == "__main__":
    main()
