"""What GradientFlow costs: its share of an epoch of training, by processor time.

    python benchmarks/inspection/run.py --samples 100,1000,4000

Random samples, as only time is measured. Each cell is the time in the callback over that of
training, over whole fits; in brackets the epochs from one record to the next, and the share
of one record in its own epoch.
Processor time of one thread is counted, so that other programs do not disturb it; on a GPU
use wall time (--clock perf_counter).
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from sk_resnet import ResNetClassifier, WideResNetClassifier
from sk_resnet.inspection import GradientFlow

sys.path.append(str(Path(__file__).parents[1]))
from results import add_option, processor, record

NETS = {
    "rows, 8 layers": (ResNetClassifier(8), (30,)),
    "series, ResNet-20": (ResNetClassifier(20), (1, 128)),
    "images, ResNet-20": (ResNetClassifier(20), (1, 14, 14)),
    "images, ResNet-56": (ResNetClassifier(56), (1, 14, 14)),
    "images, WRN-10-4": (WideResNetClassifier(10, width=4), (1, 14, 14)),
}


class Timed(GradientFlow):
    """The same, with its share of the epochs."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.times = []

    def on_epoch_begin(self, net, **kwargs):
        self.started = getattr(time, self.clock)()

    def on_epoch_end(self, net, **kwargs):
        trained = getattr(time, self.clock)()
        super().on_epoch_end(net, **kwargs)
        ended = getattr(time, self.clock)()
        self.times.append((ended - trained, trained - self.started))


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", default="100,1000,4000", help="by comma")
    parser.add_argument("--nets", default=",".join(map(str, range(len(NETS)))))
    parser.add_argument("--records", type=int, default=4, help="in a fit")
    parser.add_argument("--clock", default="process_time")
    add_option(parser, __file__)
    options = parser.parse_args()
    sizes = [int(part) for part in options.samples.split(",")]
    print(f"{processor()}, torch {torch.__version__}, {options}")
    print(f"{'share of an epoch in %':<24}" + "".join(f"{n:>22}" for n in sizes))
    for name in [list(NETS)[int(i)] for i in options.nets.split(",")]:
        model, shape = NETS[name]
        cells = []
        for n in sizes:
            rng = np.random.default_rng(0)
            X, y = rng.normal(size=(n, *shape)).astype(np.float32), np.arange(n) % 2
            model.set_params(callbacks=[("flow", Timed(options.clock))], lr=0.001)
            model.set_params(max_epochs=1, random_state=0).fit(X, y)  # warms up
            every = dict(model.net_.callbacks_)["flow"].every_
            model.set_params(max_epochs=max(2, options.records) * every).fit(X, y)
            times = np.array(dict(model.net_.callbacks_)["flow"].times)
            whole = 100 * times[:, 0].sum() / times[:, 1].sum()
            cells.append(f"{whole:.1f} ({every}, {whole * every:.0f})")
            measures = {"share": whole, "every": every}
            record(options.json, "gradients", name, f"{n} samples", measures, seeds=[0])
        print(f"{name:<24}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
