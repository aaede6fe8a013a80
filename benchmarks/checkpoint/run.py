"""What checkpoints cost, and whether a fit that is killed ends with the same bits.

    python benchmarks/checkpoint/run.py             # cost, and 20 kills
    python benchmarks/checkpoint/run.py --kills 100

The cost is the time of a fit with a checkpoint over that of the same fit without, in turns,
which other processes disturb; and the share of its own time that a fit spends on it.
For the kills, a process fits an ensemble and gets SIGKILL at a random moment; the next one
goes on from the checkpoint, until one comes to the end.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from sklearn.datasets import load_digits, make_classification

sys.path.append(str(Path(__file__).parents[1]))
from results import add_option, mean_of, processor, record

from sk_resnet import ResNetClassifier, load
from sk_resnet._base import BaseResNet
from sk_resnet._checkpoint import Checkpoint
from sk_resnet._group import Group


def sets():
    """Samples and parameters of the fits."""
    rows = make_classification(3000, 20, random_state=0)
    digits, y = load_digits(return_X_y=True)
    return {
        "3,000 rows": (*rows, {}),
        "150 rows": (rows[0][:150], rows[1][:150], {}),
        "digits": (digits, y, {"input_shape": (1, 8, 8)}),
    }


# What a fit does for its checkpoint alone; some of it within other parts of it.
PARTS = (
    (BaseResNet, "_checkpoint"),
    (BaseResNet, "_finish"),
    (Checkpoint, "check_rows"),
    (Checkpoint, "write"),
    (Group, "write_due"),
)


@contextmanager
def spent():
    """Seconds that fits spend on checkpoints within this context."""
    seconds, is_within = [], []

    def timed(act):
        def call(*args, **kwargs):
            if is_within:
                return act(*args, **kwargs)
            is_within.append(True)
            started = time.perf_counter()
            try:
                return act(*args, **kwargs)
            finally:
                seconds.append(time.perf_counter() - started)
                is_within.clear()

        return call

    with ExitStack() as stack:
        for kind, name in PARTS:
            stack.enter_context(mock.patch.object(kind, name, timed(getattr(kind, name))))
        yield seconds


def cost(options):
    """Print the share of the time that checkpoints add."""
    import skops.io  # noqa: F401 - which takes a second, once in a process

    ResNetClassifier(max_epochs=1).fit(*sets()["150 rows"][:2])  # torch's first steps
    print(
        f"{'fit':<12} {'without':>9} {'with':>9} {'ratio':>7} {'share':>7} {'files of':>10}"
    )
    for name, (X, y, parameters) in sets().items():
        ratios, shares, seconds = [], [], {None: [], True: []}
        for i in range(options.repeats):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "fit"
                for kept in (None, True) if i % 2 else (True, None):
                    model = ResNetClassifier(
                        **parameters, random_state=i, checkpoint=path if kept else None
                    )
                    started = time.perf_counter()
                    with spent() as on_checkpoint:
                        model.fit(X, y)
                    seconds[kept].append(time.perf_counter() - started)
                    if kept:
                        shares.append(sum(on_checkpoint) / seconds[kept][-1])
                n_bytes = path.stat().st_size
            ratios.append(seconds[True][-1] / seconds[None][-1])
        without, kept = (np.median(s) for s in seconds.values())
        print(
            f"{name:<12} {without:7.2f} s {kept:7.2f} s {np.median(ratios):7.3f} "
            f"{100 * np.median(shares):5.2f} % {n_bytes / 1e6:7.2f} MB",
            flush=True,
        )
        measures = {"ratio": mean_of(ratios), "share": mean_of(shares)}
        record(
            options.json,
            "checkpoint",
            name,
            "ratio",
            measures,
            seeds=range(options.repeats),
        )


CHILD = """
import sys
import numpy as np
import torch
torch.set_num_threads(1)
from sk_resnet import EarlyStopping, ResNetClassifier, _checkpoint, save
_checkpoint.SECONDS_TO_FIRST, _checkpoint.MOST_SHARE = 0, 0.5
rng = np.random.default_rng(0)
X, y = rng.normal(size=(600, 12)), np.arange(600) % 3
model = ResNetClassifier(
    n_estimators=4, dropout=0.1, l1=1e-5, max_epochs=100, finetune_epochs=40,
    callbacks=[EarlyStopping(patience=60)], random_state=0, checkpoint=sys.argv[1],
)
print("begins", flush=True)
model.fit(X, y)
save(model, sys.argv[2])
"""


def run(folder, name, seconds):
    """Whether a process came to its end before it was killed."""
    command = [
        sys.executable,
        "-c",
        CHILD,
        f"{folder}/{name}.fit",
        f"{folder}/{name}.model",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as process:
        process.stdout.readline()
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"A fit failed with exit code {process.returncode}.")
    return process.returncode == 0


def kills(options):
    """Kill fits at random moments, and compare what they end with."""
    rng = np.random.default_rng(options.seed)
    n_killed = n_fits = 0
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run(folder, "whole", None)
        whole = time.perf_counter() - started
        expected = load(f"{folder}/whole.model").module_.state_dict()
        while n_killed < options.kills:
            while n_killed < options.kills and not run(
                folder, "killed", rng.uniform(0, whole / 3)
            ):
                n_killed += 1
            run(folder, "killed", None)
            found = load(f"{folder}/killed.model").module_.state_dict()
            if not all(torch.equal(w, found[name]) for name, w in expected.items()):
                raise SystemExit(f"After {n_killed} kills a fit ended with other bits.")
            n_fits += 1
            for name in ("killed.fit", "killed.model"):
                Path(folder, name).unlink()
    print(f"{n_killed} kills in {n_fits} fits: the same bits", flush=True)
    record(
        options.json,
        "checkpoint",
        "kills",
        "same bits",
        {"kills": n_killed},
        seeds=[options.seed],
    )


def main():
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser, __file__)
    options = parser.parse_args()
    print(f"{processor()}, torch {torch.__version__}", flush=True)
    cost(options)
    kills(options)


if __name__ == "__main__":
    main()
