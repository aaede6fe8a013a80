"""Rows of results in JSON files beside the scripts, from which docs/benchmarks is made.

A file has one row a line. A row is what one arm reached in one case of one table, and where
that comes from:

    {"table": "accuracy", "case": "iris", "arm": "ResNetClassifier",
     "measures": {"accuracy": {"mean": 0.958, "spread": 0.003}, "seconds": {"mean": 3.2}},
     "seeds": [0, 1, 2], "processor": "...", "torch": "2.13.0", "date": "2026-11-02",
     "command": "python benchmarks/accuracy/run.py"}

A measure is a mean with the standard deviation over the seeds, a median with its range, or
a number or a text alone. A new row takes the place of the one of the same table, case and
arm; the others stay.
"""

import datetime
import json
import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
KEY = ("table", "case", "arm")


def add_option(parser, script):
    """Add the option `--json` to a script's parser."""
    default = Path(script).resolve().parent / "results.json"
    parser.add_argument(
        "--json", type=Path, default=default, metavar="FILE",
        help="file that gets the rows; default: results.json beside the script",
    )  # fmt: skip


def read(path):
    """Rows of a file; none if there is no such file."""
    return json.loads(path.read_text()) if path.exists() else []


def write(path, rows):
    """Write rows one a line, so that a change of one is a change of a line."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[\n{lines}\n]\n")


def merged(rows, row):
    """The rows with a new one, which takes the place of the one with its key."""
    keys = [[old[name] for name in KEY] for old in rows]
    key = [row[name] for name in KEY]
    if key not in keys:
        return [*rows, row]
    return [row if old == key else before for old, before in zip(keys, rows, strict=True)]


def record(path, table, case, arm, measures, *, seeds, source=None):
    """Put one row into a file; `source` is where it is from if that is not here and now."""
    row = {
        "table": table,
        "case": case,
        "arm": arm,
        "measures": {name: _short(value) for name, value in measures.items()},
        "seeds": list(seeds),
        **(source or origin()),
    }
    write(path, merged(read(path), row))


def record_seeds(path, table, case, arm, by_seed):
    """Print and record the means over the seeds of what was measured with each of them."""
    found = {key: mean_of([row[key] for row in by_seed]) for key in by_seed[0]}
    shown = ", ".join(f"{key} {of['mean']:.4f}" for key, of in found.items())
    print(f"{case}, {arm}: {shown}", flush=True)
    record(path, table, case, arm, found, seeds=range(len(by_seed)))


def origin(device="cpu"):
    """Where, when and by which command something is measured."""
    return {
        "processor": processor(device),
        "torch": torch.__version__.partition("+")[0],
        "date": datetime.date.today().isoformat(),
        "command": command(sys.argv),
    }


def mean_of(values):
    """Mean and standard deviation, as a measure; one value has no deviation."""
    measure = {"mean": np.mean(values)}
    return measure | ({"spread": np.std(values)} if len(values) > 1 else {})


def median_of(values):
    """Median and range, as a measure."""
    return {"median": np.median(values), "low": min(values), "high": max(values)}


def _short(value):
    if isinstance(value, dict):
        return {name: _short(part) for name, part in value.items()}
    return value if isinstance(value, int | str) else float(f"{value:.6g}")


def processor(device="cpu"):
    """Name of the processor or GPU, and the number of threads."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    found = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.*)$", text, re.M))
    name = found.get("model name", "processor of unknown name")
    if "cpu family" in found:  # cloud machines have names that say little
        name += f" (family {found['cpu family']}, model {found['model']})"
    bfloat16 = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in text]
    n = torch.get_num_threads()
    return ", ".join([name, *bfloat16, f"{n} thread{'s' * (n > 1)}"])


def command(arguments):
    """A command line, without the options that name files of this machine."""
    script, *rest = arguments
    kept = []
    for argument in rest:
        if os.sep not in argument:
            kept.append(argument)
        elif not argument.startswith("--") and kept[-1:] and kept[-1].startswith("--"):
            kept.pop()
    script = Path(script).resolve()
    name = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name
    return shlex.join(["python", str(name), *kept])
