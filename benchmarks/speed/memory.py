"""What is saved by memory that stays in the process within fits and predictions, on Linux.

    python benchmarks/speed/memory.py
    python benchmarks/speed/memory.py --nets ResNet-20,WRN-16-4 --threads 2 --repeats 3

kept     sk_resnet as it is
without  nothing is set: sk_resnet leaves glibc alone where GLIBC_TUNABLES is set

The arms take turns. Each runs in a process of its own, because the first call of mallopt
ends glibc's own adjustments for good. It fits once, then predicts 32 and 512 samples five
times each. Seconds are the median of the repeats, with their range; a ratio is an arm's
median over that of "without", so below 1 the arm saves time. Page faults and the kernel's
time say where the difference comes from.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from run import BATCH, FASHION, NETS, estimator, load

sys.path.append(str(Path(__file__).parents[1]))
from results import add_option, median_of, processor, record

WALL, CPU, KERNEL, FAULTS = range(4)  # places in what is measured
ARMS = {"without": {"GLIBC_TUNABLES": ""}, "kept": {}}
# --samples and epochs of a net: each fit takes some seconds on one Zen 5 core.
WORK = {
    "dense-8": (2560, 10),
    "series": (2560, 6),
    "ResNet-20": (2560, 2),
    "WRN-16-4": (1280, 1),
}


def spent():
    """Wall time, processor time, the kernel's part of it, and page faults so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = time.perf_counter(), used.ru_utime + used.ru_stime, used.ru_stime
    return np.array([*seconds, used.ru_minflt])


def measure(name, options):
    """Print what one fit and the predictions after it spend, as a line of JSON."""
    torch.set_num_threads(options.threads)
    net, (options.samples, epochs) = NETS[name], WORK[name]
    X, y, n = load(net, options)
    settings = (net, epochs, "cpu", options.precision)
    estimator(*settings).fit(X[: 2 * BATCH], y[: 2 * BATCH])  # warms up
    model = estimator(*settings)
    started = spent()
    model.fit(X[:n], y[:n])
    rows = {"fit": (spent() - started).tolist()}
    for size in (32, 512):
        model.predict(X[:size])
        started = spent()
        for _ in range(5):
            model.predict(X[:size])
        rows[f"predict {size}"] = ((spent() - started) / 5).tolist()
    print(json.dumps(rows))


def in_process(name, arm):
    """The same, measured in a new process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--nets", name, "--in-process"]
    environment = {**os.environ, **ARMS[arm]}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def compare(name, options):
    """Print the rows of one network."""
    found = {arm: [] for arm in ARMS}
    for _ in range(options.repeats):
        for arm in ARMS:
            found[arm].append(in_process(name, arm))
    measures = {arm: {} for arm in ARMS}
    for what in found["without"][0]:
        rows = {arm: np.array([row[what] for row in found[arm]]) for arm in ARMS}
        show(name, what, rows)
        for arm, values in rows.items():
            seconds = median_of(values[:, CPU])
            measures[arm][what] = seconds
            ratio = seconds["median"] / np.median(rows["without"][:, CPU])
            measures[arm][f"{what} ratio"] = ratio
    changes = [options.precision] * (options.precision != "auto")
    changes += [f"{options.threads} threads"] * (options.threads > 1)
    case = ", ".join([name, *changes])
    for arm in ARMS:
        record(options.json, "memory", case, arm, measures[arm], seeds=[0])


def show(name, what, rows):
    """Print a line for each arm."""
    first = np.median(rows["without"], axis=0)
    for arm, values in rows.items():
        middle, low, high = np.median(values, 0), values.min(0), values.max(0)
        text = f"{name:<11}{what:<13}{arm:<10}"
        for j in (WALL, CPU):
            span = f"{low[j]:.3f}-{high[j]:.3f}"
            text += f"{middle[j]:9.3f} {span:<14}{middle[j] / first[j]:6.3f}"
        print(f"{text}{middle[KERNEL]:10.3f}{middle[FAULTS]:10.0f}", flush=True)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", default=",".join(WORK), help="by comma")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="auto", help="float32 or bfloat16")
    parser.add_argument("--fashion", default=FASHION, help="folder of its files")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    add_option(parser, __file__)
    options = parser.parse_args()
    if options.in_process:
        measure(options.nets, options)
        return
    torch.set_num_threads(options.threads)
    print(
        f"{processor()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}, "
        f"{options.repeats} repeats"
    )
    print(
        f"{'net':<11}{'work':<13}{'memory':<10}{'wall s':>9} {'range':<14}{'ratio':>6}"
        f"{'cpu s':>9} {'range':<14}{'ratio':>6}{'kernel s':>10}{'faults':>10}"
    )
    for name in options.nets.split(","):
        compare(name, options)


if __name__ == "__main__":
    main()
