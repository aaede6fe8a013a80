"""Seconds of fit and predict beside plain skorch and loops written by hand.

    python benchmarks/speed/run.py                         # every net, small settings
    python benchmarks/speed/run.py --nets WRN-16-4 --samples 5120 --repeats 3
    python benchmarks/speed/run.py --peers                 # Lightning, Keras, fastai too
    python benchmarks/speed/run.py --cold --epochs 5 --samples 20000 --nets WRN-16-4
    python benchmarks/speed/run.py --growth                # how time grows, ours alone
    python benchmarks/speed/run.py --profile --nets dense-4,WRN-16-4 --samples 512

Arms, interleaved within one run, on the same data, initial weights, epochs, batch size and
schedule, all samples trained:

skorch   plain NeuralNetClassifier with its DataLoader, float32
loop     loop over tensors, float32, layers as they come
tuned    loop with channels innermost, fused optimizer, folded prediction, and bfloat16
         where the processor or GPU does it fast
compiled the same with torch.compile (only with --compile)
ours     the estimator; "ours compiled" with compile=True (only with --compile)

A first fit of each arm warms up and is not shown; then they take turns, with another seed
each time. Seconds are medians, with their range; a ratio is skorch's time over the arm's. A
row whose mean accuracy is off that of skorch by more than two standard deviations, of seeds
and of the test samples, is marked void and not recorded. With --cold each arm runs once, in
a process of its own, with whatever its first fit prepares; MiB are its peak over the data.
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import BATCH, PEERS
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from torch import nn

from sk_resnet import ResNetClassifier, WideResNetClassifier
from sk_resnet._machine import has_fast_bfloat16, pays_in_bfloat16
from sk_resnet._network import new_network
from sk_resnet._spec import FAMILIES, architecture, network_spec
from sk_resnet._surgery import folded, multiply_adds

sys.path.append(str(Path(__file__).parents[1]))
from results import add_option, mean_of, median_of, origin, processor, record

FASHION = os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist")
LR, DECAY = 0.1, 1e-4
ARMS = "skorch,loop,tuned,compiled,ours,ours bf16,ours compiled,lightning,keras,fastai"


@dataclass(frozen=True)
class Net:
    """A network to time, and the data that it is timed on."""

    data: str
    depth: int
    width: float
    wide: bool = False


NETS = {
    "dense-4": Net("table", 4, 1),
    "dense-8": Net("table", 8, 1),
    "series": Net("series", 8, 2),
    "ResNet-20": Net("images", 20, 1),
    "WRN-16-4": Net("images", 16, 4, wide=True),
    "ResNet-110": Net("images", 110, 1),
}
# Two-dimensional nets of a GPU: see --nets.
GPU_NETS = {"WRN-28-10": Net("images", 28, 10, wide=True)}
SHARE = {"images": 1.0, "series": 0.2, "table": 4.0}  # samples, as a part of --samples


def images(folder, n):
    """Fashion-MNIST as float32, standardized: n for training, a fifth to test."""

    def read(name, offset):
        with gzip.open(Path(folder) / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    X = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[: n + n // 5]
    y = read("train-labels-idx1-ubyte.gz", 8)[: n + n // 5]
    return ((X - 72.9) / 90.0).astype(np.float32), y.astype(np.int64), n


def series(n):
    """Noisy waves of length 1000 whose frequency tells the class."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, n + n // 5)
    t = np.linspace(0, 1, 1000) + rng.uniform(size=(len(y), 1))
    X = np.sin(2 * np.pi * (5 + 3 * y[:, None]) * t) + 0.3 * rng.normal(size=t.shape)
    return X[:, None].astype(np.float32), y, n


def table(n):
    """50 features, four classes by the signs of two of them."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n + n // 5, 50)).astype(np.float32)
    return X, (X[:, 0] > 0) + 2 * (X[:, 1] > 0).astype(np.int64), n


def load(net, options):
    n = int(options.samples * SHARE[net.data])
    if net.data == "images":
        return images(options.fashion, n)
    return series(n) if net.data == "series" else table(n)


def estimator(net, epochs, device, precision="auto", seed=0, compile=False):
    kind = WideResNetClassifier if net.wide else ResNetClassifier
    # Its name in code that change.py compares with.
    unscaled = {"scale": None} if hasattr(kind(), "scale") else {"standardize": False}
    return kind(
        depth=net.depth,
        width=net.width,
        max_epochs=epochs,
        batch_size=BATCH,
        lr=LR,
        l2=DECAY,
        layout="small",
        block=(15, 7) if net.data == "series" else "basic",
        **unscaled,
        device=device,
        precision=precision,
        compile=compile,
        random_state=seed,
    )


def network(net, X, n_classes, seed):
    """The initial network of the estimator."""
    model = estimator(net, 1, "cpu", seed=seed)
    family = FAMILIES["wide" if net.wide else "resnet"]
    spec = network_spec(
        architecture(model.get_params(deep=False), family, X.ndim - 2),
        family,
        input_shape=X.shape[1:],
        n_outputs=n_classes,
    )
    return new_network(spec, device=torch.device("cpu"), seed=model._draw_seed())


class Contiguous(nn.Module):
    """The network on images as torch lays them out by itself: channels outermost."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        net = self.module
        if net.spec.n_dims == 1:
            x = x.unsqueeze(2)
        x = net.stem(x)
        for stage in net.stages:
            x = stage(x)
        x = net.head(x)
        return net.classifier(x.flatten(2).mean(2) if x.ndim > 2 else x)


class Skorch:
    """Plain skorch."""

    def __init__(self, net, X, n_classes, epochs, device, seed):
        n_steps = epochs * -(-len(X) // BATCH)
        self.net = NeuralNetClassifier(
            Contiguous(network(net, X, n_classes, seed)),
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.SGD,
            optimizer__momentum=0.9,
            optimizer__nesterov=True,
            optimizer__weight_decay=DECAY,
            lr=LR,
            max_epochs=epochs,
            batch_size=BATCH,
            train_split=None,
            iterator_train__shuffle=True,
            verbose=0,
            device=device,
            callbacks=[
                LRScheduler(
                    torch.optim.lr_scheduler.OneCycleLR,
                    max_lr=LR,
                    total_steps=n_steps + 1,
                    cycle_momentum=False,
                    step_every="batch",
                )
            ],
        )

    def fit(self, X, y):
        self.net.fit(X, y)

    def predict(self, X):
        return self.net.predict(X)


class Loop:
    """A loop over tensors, plain or tuned."""

    def __init__(self, net, X, n_classes, epochs, device, seed, tuned=False, compile=False):
        self.device, self.epochs, self.tuned = torch.device(device), epochs, tuned
        module = network(net, X, n_classes, seed).to(device)
        self.module = module if tuned else Contiguous(module)
        self.forward = torch.compile(self.module) if compile else self.module
        macs = multiply_adds(module, X.shape[2:])
        self.bfloat16 = tuned and pays_in_bfloat16(macs, self.device)

    def logits(self, module, x):
        kind = self.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.bfloat16):
            return module(x).float()

    def fit(self, X, y):
        X, y = torch.from_numpy(X).to(self.device), torch.from_numpy(y).to(self.device)
        optimizer = torch.optim.SGD(
            self.module.parameters(),
            lr=LR,
            momentum=0.9,
            nesterov=True,
            weight_decay=DECAY,
            fused=self.tuned,
        )
        n_steps = self.epochs * -(-len(X) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, LR, n_steps + 1, cycle_momentum=False
        )
        self.module.train()
        for _ in range(self.epochs):
            for rows in torch.randperm(len(X), device=self.device).split(BATCH):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(
                    self.logits(self.forward, X[rows]), y[rows]
                )
                loss.backward()
                optimizer.step()
                schedule.step()

    @torch.inference_mode()
    def predict(self, X):
        self.module.eval()
        module = folded(self.module) if self.tuned else self.module
        parts = torch.from_numpy(X).split(BATCH)
        out = [self.logits(module, x.to(self.device)).argmax(1).cpu() for x in parts]
        return torch.cat(out).numpy()


def arms(net, X, n_classes, epochs, options, seed=0) -> dict[str, Any]:
    common = (net, X, n_classes, epochs, options.device, seed)
    ours = (net, epochs, options.device)
    made = {
        "skorch": lambda: Skorch(*common),
        "loop": lambda: Loop(*common),
        "tuned": lambda: Loop(*common, tuned=True),
        "ours": lambda: estimator(*ours, seed=seed),
        # The same weights, and predictions in bfloat16 too.
        "ours bf16": lambda: estimator(*ours, "bfloat16", seed=seed),
    }
    if options.compile:
        made["compiled"] = lambda: Loop(*common, tuned=True, compile=True)
        made["ours compiled"] = lambda: estimator(*ours, seed=seed, compile=True)
    if options.peers:
        for name, kind in PEERS.items():
            made[name] = lambda kind=kind: kind(
                Contiguous(network(net, X, n_classes, seed)),
                epochs,
                LR,
                DECAY,
                options.device,
            )
    return {name: made[name] for name in options.arms.split(",") if name in made}


def seconds_of(function, *arguments):
    started = time.perf_counter()
    result = function(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


@torch.inference_mode()
def roofline(device):
    """GFLOP/s of a product and of WRN-16-4's convolutions, GB/s of a copy, best of five."""
    large = 1 if device == "cpu" else 4  # what keeps a GPU busy
    types = [torch.float32]
    if has_fast_bfloat16(torch.device(device)):
        types.append(torch.bfloat16)
    for dtype in types:
        side = 2048 * large
        a = torch.ones(side, side, dtype=dtype, device=device)
        product = min(seconds_of(torch.mm, a, a)[0] for _ in range(5))
        work = seconds = 0.0
        for channels, size in ((64, 28), (128, 14), (256, 7)):
            layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            layer = layer.to(device, dtype)
            x = torch.ones(BATCH * large, channels, size, size, dtype=dtype, device=device)
            x = x.contiguous(memory_format=torch.channels_last)
            seconds += min(seconds_of(layer, x)[0] for _ in range(5))
            # Products with the padding count, as in the tables.
            work += layer.weight.numel() * x.numel() / channels
        print(
            f"{dtype}: product {2 * side**3 / product / 1e9:.0f} GFLOP/s, "
            f"convolutions {2 * work / seconds / 1e9:.0f}"
        )
    x = torch.ones(2**26, device=device)
    y = torch.empty_like(x)
    best = min(seconds_of(y.copy_, x)[0] for _ in range(5))
    print(f"copy: {2 * x.nbytes / best / 1e9:.1f} GB/s")


def compare(name, net, options):
    """Print the rows of one network."""
    X, y, n = load(net, options)
    n_classes = int(y.max()) + 1
    fits: dict[str, list[float]] = {}
    predictions: dict[str, list[float]] = {}
    scores: dict[str, list[float]] = {}
    few = min(n, 2 * BATCH)
    for _, make in arms(net, X[:few], n_classes, 1, options).items():
        model = make()
        model.fit(X[:few], y[:few])
        model.predict(X[:few])
    for seed in range(options.repeats):
        made = arms(net, X[:n], n_classes, options.epochs, options, seed)
        for arm, make in made.items():
            model = make()
            torch.manual_seed(seed)
            fits.setdefault(arm, []).append(seconds_of(model.fit, X[:n], y[:n])[0])
            for _ in range(3):  # they are short
                taken, predicted = seconds_of(model.predict, X[n:])
                predictions.setdefault(arm, []).append(taken)
            scores.setdefault(arm, []).append(float(np.mean(predicted == y[n:])))
    first = next(iter(fits))
    table, seeds = "peers" if options.peers else "speed", range(options.repeats)
    for arm in fits:
        measures = {
            "epochs": options.epochs,
            "fit": median_of(fits[arm]),
            "predict": median_of(predictions[arm]),
            "accuracy": mean_of(scores[arm]),
        }
        ratios = {
            "fit ratio": np.median(fits[first]) / np.median(fits[arm]),
            "predict ratio": np.median(predictions[first]) / np.median(predictions[arm]),
        }
        agree = abs(np.mean(scores[arm]) - np.mean(scores[first])) <= tolerance(
            scores[arm] + scores[first], len(X) - n
        )
        show(name, arm, measures | ratios, agree)
        if agree:
            measures |= ratios if first == "skorch" else {}
            keep(table, name, arm, measures, seeds, options)


def show(name, arm, measures, agree):
    """Print the row of one arm."""
    fit, accuracy = measures["fit"], measures["accuracy"]
    print(
        f"{name:<11}{arm:<14}{fit['median']:8.2f}{fit['low']:9.2f}-{fit['high']:<8.2f}"
        f"{measures['fit ratio']:6.2f}x{measures['predict']['median']:9.3f}"
        f"{measures['predict ratio']:6.2f}x"
        f"{accuracy['mean']:8.3f} ± {accuracy.get('spread', 0):.3f}"
        f"{'' if agree else '  void'}",
        flush=True,
    )


def keep(table, case, arm, measures, seeds, options):
    """Record the row of one arm."""
    source = origin(options.device)
    record(options.json, table, case, arm, measures, seeds=seeds, source=source)


def tolerance(accuracies, n_test):
    """Difference of two mean accuracies that seeds and the few test samples explain."""
    p = np.mean(accuracies)
    return 2 * np.sqrt(np.var(accuracies) + p * (1 - p) / n_test)


def growth(options):
    """Print ours against samples, depth, width and side of the image, one epoch each."""
    rng = np.random.default_rng(0)
    base = {"samples": 1024, "depth": 14, "width": 1, "side": 16}
    print(f"{'changed':<10}{'to':>6}{'fit s':>9}{'multiply-adds':>15}{'GFLOP/s':>9}")
    for what in base:
        for factor in (1, 2, 4):
            now = dict(base)
            # Depths of 6n + 2.
            now[what] = 2 + 12 * factor if what == "depth" else base[what] * factor
            X = rng.normal(size=(now["samples"], 3, now["side"], now["side"]))
            X, y = X.astype(np.float32), rng.integers(0, 10, now["samples"])
            model = estimator(Net("images", now["depth"], now["width"]), 1, options.device)
            model.partial_fit(X[:256], y[:256], classes=np.arange(10))
            taken = min(seconds_of(model.partial_fit, X, y)[0] for _ in range(2))
            macs = multiply_adds(model.module_, X.shape[2:])
            rate = 6 * macs * len(X) / taken / 1e9
            print(
                f"{what:<10}{now[what]:>6}{taken:9.2f}{macs / 1e6:13.1f} M{rate:9.1f}",
                flush=True,
            )
            measures = {"to": now[what], "fit": taken, "GFLOP/s": rate}
            keep("growth", what, f"x{factor}", measures, [0], options)


def profile(options):
    """Print which operations of torch the estimator's training spends its time in."""
    for name in options.nets.split(","):
        net = {**NETS, **GPU_NETS}[name]
        X, y, n = load(net, options)
        estimator(net, 1, options.device).fit(X[: 2 * BATCH], y[: 2 * BATCH])  # warms up
        model = estimator(net, options.epochs, options.device)
        with torch.profiler.profile() as recorded:
            taken, _ = seconds_of(model.fit, X[:n], y[:n])
        found = recorded.key_averages()
        found = sorted(found, key=lambda e: e.self_cpu_time_total, reverse=True)
        total = sum(e.self_cpu_time_total for e in found)
        print(f"{name}: {taken:.2f} s, {sum(e.count for e in found)} calls")
        for event in found[:10]:
            share = event.self_cpu_time_total / total
            print(f"  {share:6.1%}  {event.count:7}  {event.key}", flush=True)


def cold(options):
    """Print the first fit and the peak memory of each arm, each in a process of its own."""
    print(f"{'net':<11}{'arm':<14}{'fit s':>8}{'predict s':>11}{'score':>8}{'MiB':>7}")
    for name in options.nets.split(","):
        skorch = None
        for arm in options.arms.split(","):
            command = [sys.executable, __file__, *sys.argv[1:], "--in-process"]
            command += ["--nets", name, "--arms", arm]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            if not done.stdout:
                continue
            measures = json.loads(done.stdout)
            skorch = measures["fit"] if arm == "skorch" else skorch
            if skorch:
                measures["fit ratio"] = skorch / measures["fit"]
            print(
                f"{name:<11}{arm:<14}{measures['fit']:8.1f}{measures['predict']:11.2f}"
                f"{measures['accuracy']:8.3f}{measures['MiB']:7.0f}",
                flush=True,
            )
            # One epoch is a table; longer fits stand beside the warm ones.
            table, case = (
                ("cold", name) if options.epochs == 1 else ("speed", f"{name}, cold")
            )
            keep(table, case, arm, measures, [0], options)


def in_process(options):
    """Print what one arm takes in this process, as a line of JSON."""
    net = {**NETS, **GPU_NETS}[options.nets]
    X, y, n = load(net, options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = arms(net, X[:n], int(y.max()) + 1, options.epochs, options)
    if not made:
        return
    model = made[options.arms]()
    fit, _ = seconds_of(model.fit, X[:n], y[:n])
    predict, predicted = seconds_of(model.predict, X[n:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    measures = {"epochs": options.epochs, "fit": fit, "predict": predict}
    measures |= {"accuracy": float(np.mean(predicted == y[n:])), "MiB": peak / 1024}
    print(json.dumps(measures))


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", default=",".join(NETS), help="by comma")
    parser.add_argument("--samples", type=int, default=2560)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fashion", default=FASHION, help="folder of its files")
    parser.add_argument("--compile", action="store_true", help="add compiled arms")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--profile", action="store_true", help="operations of ours")
    parser.add_argument("--peers", action="store_true", help="add other libraries")
    parser.add_argument("--arms", default=ARMS, help="by comma")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    add_option(parser, __file__)
    options = parser.parse_args()
    if options.in_process:
        in_process(options)
        return
    print(
        f"{processor(options.device)}, torch {torch.__version__}, load "
        f"{os.getloadavg()[0]:.1f}, {options.samples} samples, {options.epochs} epochs, "
        f"{options.repeats} repeats"
    )
    if options.growth:
        growth(options)
        return
    if options.profile:
        profile(options)
        return
    if options.cold:
        cold(options)
        return
    roofline(options.device)
    print(
        f"{'net':<11}{'arm':<14}{'fit s':>8}{'range':^18}{'ratio':>7}"
        f"{'predict':>9}{'ratio':>7}{'score':>9}"
    )
    for name in options.nets.split(","):
        compare(name, {**NETS, **GPU_NETS}[name], options)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
