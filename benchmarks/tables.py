"""Write the tables of docs/benchmarks/ from the results.json files of the benchmarks.

    python benchmarks/tables.py            # write them
    python benchmarks/tables.py --check    # only say whether the pages have them

A table stands between two comments of a page, ".. begin table NAME" and ".. end table
NAME", and is described by a row of TABLES. Everything else of the pages is left alone.
"""

import argparse
import difflib
import re
import sys
from dataclasses import dataclass

from results import ROOT, read

PAGES = ROOT / "docs" / "benchmarks"
MARKED = re.compile(r"(\.\. begin table (\w+)\n).*?(\.\. end table \2\n)", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Its lines are the cases of the rows named `rows` in the folder's results.json, in their
    order. Each column is a heading and a format string over the arms and measures of a
    case: "{skorch[fit]:.2f}". A cell whose arm or measure is missing is empty.
    """

    folder: str
    rows: str
    first: str
    columns: dict[str, str]


def by_measure(measures, arms):
    """Columns of the arms side by side for each measure; keys are what the heads say."""
    return {
        ", ".join(filter(None, (head, short))): f"{{{arm}[{measure}}}"
        for head, measure in measures.items()
        for short, arm in arms.items()
    }


# Models of classification tables, by what the heads of columns say.
CLASSIFIERS = {
    "ResNet": "ResNetClassifier",
    "RealMLP": "RealMLP-TD",
    "RTDL": "RTDL ResNet",
    "MLP": "MLPClassifier",
    "HistGB": "HistGradientBoosting",
    "CatBoost": "CatBoost",
    "forest": "RandomForest",
}
REGRESSORS = {
    "ResNet": "ResNetRegressor",
    "RealMLP": "RealMLP-TD",
    "RTDL": "RTDL ResNet",
    "MLP": "MLPRegressor",
    "MLP, y scaled": "MLPRegressor on scaled y",
    "HistGB": "HistGradientBoostingRegressor",
    "CatBoost": "CatBoost",
    "forest": "RandomForestRegressor",
    "Ridge": "Ridge",
}
# Those that need an environment of their own.
PEERS = ("RealMLP", "RTDL", "CatBoost")

TABLES = {
    "accuracy": Table(
        "accuracy",
        "accuracy",
        "set",
        {
            "ResNet": "{ResNetClassifier[accuracy]:.3f}",
            "s a fit": "{ResNetClassifier[seconds]:.1f}",
            "MLP": "{MLPClassifier[accuracy]:.3f}",
            "HistGB": "{HistGradientBoosting[accuracy]:.3f}",
            "published": "{ResNetClassifier[published]}",
        },
    ),
    "images": Table(
        "accuracy",
        "images",
        "set",
        by_measure(
            {
                "accuracy": "accuracy]:.4f",
                "log-loss": "log_loss]:.3f",
                "crop": "log_loss crop]:.3f",
                "flip": "log_loss flip]:.3f",
            },
            {"1e-4": "l2 = 1e-4", "5e-4": "l2 = 5e-4"},
        ),
    ),
    "series": Table(
        "accuracy",
        "series",
        "set",
        by_measure(
            {
                "accuracy": "accuracy]:.3f",
                "log-loss": "log_loss]:.3f",
                "s a fit": "seconds]:.1f",
            },
            {"strides": "strides (15, 7)", "": "default"},
        ),
    ),
    "tried": Table(
        "accuracy",
        "tried",
        "change of the default",
        {
            "accuracy": "{fashion[accuracy]:.4f}",
            "log-loss": "{fashion[log_loss]:.3f}",
            "accuracy, crop": "{fashion[accuracy crop]:.4f}",
            "log-loss, crop": "{fashion[log_loss crop]:.3f}",
            "s a fit": "{fashion[seconds]:.0f}",
        },
    ),
    **{
        f"{name}_{measure}": Table(
            "accuracy",
            rows,
            "set",
            {
                short: f"{{{arm}[{measure}]:=.3f}}"
                for short, arm in CLASSIFIERS.items()
                if not (rows == "held out" and short in PEERS)
            },
        )
        for name, rows in (("tables", "tables"), ("held_out", "held out"))
        for measure in ("accuracy", "log_loss")
    },
    **{
        f"{name}_ranks": Table(
            "accuracy",
            rows,
            "model",
            {
                "rank: accuracy": "{all[accuracy]:.2f}",
                "log-loss": "{all[log_loss]:.2f}",
                "mean log-loss": "{all[mean_log_loss]:.3f}",
                "behind": "{all[behind]}",
                "s a fit": "{all[seconds]:.1f}",
            },
        )
        for name, rows in (
            ("tables", "tables ranks"),
            ("tables_five", "tables ranks of five"),
            ("held_out", "held out ranks"),
        )
    },
    "embedding": Table(
        "accuracy",
        "embedding",
        "set",
        {
            head: f"{{{arm}[accuracy]:.3f}}, {{{arm}[log_loss]:.3f}}"
            for head, arm in {
                "None": "None",
                "periodic": "periodic",
                "piecewise_linear": "piecewise_linear",
                "robust scale": "robust scale",
                "HistGB": "HistGradientBoosting",
            }.items()
        },
    ),
    "penalty": Table(
        "accuracy",
        "penalty",
        "set",
        {
            l2: f"{{l2 {l2}[accuracy]:.3f}}, {{l2 {l2}[log_loss]:.3f}}"
            for l2 in ("5e-3", "2e-2", "5e-2", "1e-1", "2e-1")
        },
    ),
    "imbalance": Table(
        "accuracy",
        "imbalance",
        "problem",
        {
            f"{head}{short}": f"{{{arm}[{measure}]:.3f}}"
            for head, measure, n_arms in (
                ("AP: ", "average_precision", 4),
                ("balanced: ", "balanced_accuracy", 3),
            )
            for short, arm in (
                ("ResNet", "ResNetClassifier"),
                ("HistGB", "HistGradientBoosting"),
                ("logistic", "LogisticRegression"),
                ("MLP", "MLPClassifier"),
            )[:n_arms]
        },
    ),
    "small": Table(
        "accuracy",
        "small",
        "set",
        {
            f"{n}: ResNet, logistic, SVC": ", ".join(
                f"{{{arm}[log_loss {n}]:=.3f}}"
                for arm in ("ResNetClassifier", "LogisticRegression", "SVC")
            )
            for n in (40, 80, 150)
        },
    ),
    "precision": Table(
        "accuracy",
        "precision",
        "set",
        {
            "ResNet, float32": "{ResNetClassifier float32[accuracy]:.3f}",
            "ResNet, bfloat16": "{ResNetClassifier bfloat16[accuracy]:.3f}",
            "WideResNet, float32": "{WideResNetClassifier float32[accuracy]:.3f}",
            "WideResNet, bfloat16": "{WideResNetClassifier bfloat16[accuracy]:.3f}",
        },
    ),
    **{
        f"regression_{measure}": Table(
            "accuracy",
            "regression",
            "set",
            {short: f"{{{arm}[{measure}]:{form}}}" for short, arm in REGRESSORS.items()},
        )
        for measure, form in (("RMSE", "=.4g"), ("R2", "=.3f"))
    },
    "regression_ranks": Table(
        "accuracy",
        "regression ranks",
        "model",
        {"rank by RMSE": "{all[RMSE]:.2f}", "s a fit": "{all[seconds]:.1f}"},
    ),
    "size": Table(
        "regularization",
        "size",
        "l1",
        {
            "zeros": "{weight[zeros]:.3f}",
            "file, kB": "{weight[file kB]:.0f}",
            "times smaller": "{weight[smaller]:.1f}",
            "accuracy": "{weight[accuracy]:.4f}",
            "points": "{weight[points]:.2f}",
        },
    ),
    "compact": Table(
        "regularization",
        "compact",
        "l1",
        {
            "parameters left": "{channel[left]:.3f}",
            "file, times smaller": "{channel[smaller]:.1f}",
            "times faster": "{channel[faster]:.2f}",
            "accuracy": "{channel[accuracy]:.4f}",
            "points": "{channel[points]:.2f}",
        },
    ),
    "path": Table(
        "regularization",
        "path",
        "l1",
        {
            "zeros, rising": "{increasing[zeros]:.3f}",
            "accuracy, rising": "{increasing[accuracy]:.3f}",
            "zeros, falling": "{decreasing[zeros]:.3f}",
            "accuracy, falling": "{decreasing[accuracy]:.3f}",
        },
    ),
    "gap": Table(
        "regularization",
        "gap",
        "with",
        {
            "training": "{WRN-10-1[training]:.3f}",
            "test": "{WRN-10-1[test]:.3f}",
            "gap": "{WRN-10-1[gap]:.3f}",
        },
    ),
    "search": Table(
        "search",
        "search",
        "data",
        {
            "grid, s": "{grid[seconds]:.0f}",
            "fused": "{fused[ratio]}",
            "one epoch": "{one epoch[ratio]}",
            "ASHA": "{ASHA[ratio]}",
            "ours": "{ours[ratio]}",
            "points": "{grid[trials]}, {ours[trials]}",
            "best": "{grid[score]:.4f}, {ours[score]:.4f}",
        },
    ),
    "reports": Table(
        "search",
        "reports",
        "data",
        {
            name: "{seed 0[" + name + "]:.2f}"
            for name in ("first", "half", "three quarters", "nine tenths")
        },
    ),
    "fit": Table(
        "speed",
        "speed",
        "fit, seconds",
        {
            "epochs": "{ours[epochs]}",
            "skorch": "{skorch[fit]:.2f}",
            "loop": "{loop[fit]:.2f}",
            "tuned": "{tuned[fit]:.2f}",
            "ours": "{ours[fit]:.2f}",
            "ours bf16": "{ours bf16[fit]:.2f}",
            "skorch / ours": "{ours[fit ratio]:.1f} x",
        },
    ),
    "predict": Table(
        "speed",
        "speed",
        "predict, seconds",
        {
            "skorch": "{skorch[predict]:.3f}",
            "loop": "{loop[predict]:.3f}",
            "tuned": "{tuned[predict]:.3f}",
            "ours": "{ours[predict]:.3f}",
            "ours bf16": "{ours bf16[predict]:.3f}",
            "skorch / ours, / bf16": "{ours[predict ratio]:.1f} x, "
            "{ours bf16[predict ratio]:.1f} x",
        },
    ),
    "peers": Table(
        "speed",
        "peers",
        "fit, seconds",
        {
            "skorch": "{skorch[fit]:.2f}",
            "ours": "{ours[fit]:.2f}",
            "Lightning": "{lightning[fit]:.2f}",
            "Keras": "{keras[fit]:.2f}",
            "fastai": "{fastai[fit]:.2f}",
        },
    ),
    "cold": Table(
        "speed",
        "cold",
        "seconds",
        {
            "skorch": "{skorch[fit]:.1f}",
            "loop": "{loop[fit]:.1f}",
            "tuned": "{tuned[fit]:.1f}",
            "ours": "{ours[fit]:.1f}",
            "MiB, skorch and ours": "{skorch[MiB]:.0f}, {ours[MiB]:.0f}",
        },
    ),
    "growth": Table(
        "speed",
        "growth",
        "changed",
        {
            "to": "{x1[to]}, {x2[to]}, {x4[to]}",
            "seconds": "{x1[fit]:.2f}, {x2[fit]:.2f}, {x4[fit]:.2f}",
            "GFLOP/s": "{x1[GFLOP/s]:.0f}, {x2[GFLOP/s]:.0f}, {x4[GFLOP/s]:.0f}",
        },
    ),
    "memory": Table(
        "speed",
        "memory",
        "net",
        {
            "fit, s": "{kept[fit]:.2f}",
            "without": "{without[fit]:.2f}",
            "ratio": "{kept[fit ratio]:.2f}",
            "predict 32": "{kept[predict 32 ratio]:.2f}",
            "predict 512": "{kept[predict 512 ratio]:.2f}",
        },
    ),
    "wine": Table(
        "members",
        "wine",
        "search",
        {
            "alone, s": "{one after the other[cpu]:.1f}",
            "as one, s": "{as one[cpu]:.1f}",
            "trainings": "{as one[trainings]}",
            "best": "{one after the other[best]:.3f}, {as one[best]:.3f}",
            "mean scores differ by": "{as one[apart]:.3f}",
        },
    ),
    "fused": Table(
        "members",
        "fused",
        "rows, or samples",
        {
            "CPU": "{GridSearchCV[cpu]:.2f}",
            "wall": "{GridSearchCV[wall]:.2f}",
            "wall, two workers": "{GridSearchCV[loky]:.2f}",
            "mean scores differ by": "{GridSearchCV[apart]:.3f}",
        },
    ),
    "ensembles": Table(
        "members",
        "ensembles",
        "rows",
        {
            "fit": "{n_estimators=8[fit]:.2f}",
            "prediction": "{n_estimators=8[predict]:.2f}",
        },
    ),
    "long": Table(
        "speed",
        "long",
        "growth in MiB",
        {
            "1,000 fits": "{ours[fits]:.1f}",
            "largest": "{ours[largest of fits]:.1f}",
            "10,000 predictions": "{ours[predictions]:.1f}",
            "largest ": "{ours[largest of predictions]:.1f}",
        },
    ),
    "latency": Table(
        "speed",
        "latency",
        "milliseconds",
        {
            arm: f"{{{arm}[median]:.2f}} ({{{arm}[least]:.2f}})"
            for arm in ("one network", "default", "MLP", "HistGB")
        },
    ),
    "change": Table(
        "speed",
        "change",
        "net/samples",
        {
            "fit before, after, s": "{before[fit]:.2f}, {after[fit]:.2f}",
            "ratio": "{after[fit ratio]:.2f}",
            "least": "{after[fit least]:.2f}",
            "pairs": "{after[fit pairs]:.2f}",
            "predict: ratio": "{after[predict ratio]:.2f}",
            "least ": "{after[predict least]:.2f}",
            "pairs ": "{after[predict pairs]:.2f}",
            "MiB": "{before[MiB]:.0f}, {after[MiB]:.0f}",
        },
    ),
}
ERRORS = {
    "published": "{ours[published]}",
    "measured": "{ours[test error]:.2f}",
    "in training": "{ours[training error]:.2f}",
}
PARAMETERS = {"parameters": "{ours[parameters]:,}"}
TABLES |= {
    "anchors": Table("papers", "anchors", "network", ERRORS | PARAMETERS),
    "depth": Table("papers", "depth", "network", ERRORS | PARAMETERS),
    "orders": Table("papers", "orders", "order", ERRORS),
    "width": Table(
        "papers", "width", "network", ERRORS | {"s a fit": "{ours[seconds]:.0f}"}
    ),
    "dropout": Table("papers", "dropout", "network", ERRORS),
    "gradients": Table(
        "inspection",
        "gradients",
        "share in %",
        {
            name: f"{{{name}[share]:.1f}} ({{{name}[every]}})"
            for name in ("100 samples", "1000 samples", "6200 samples")
        },
    ),
}


class Measure:
    """A measure of a row, as a format string shows it: with its spread, if it has one.

    A format that begins with "=" leaves the spread out.
    """

    def __init__(self, value):
        parts = value if isinstance(value, dict) else {"mean": value}
        self.middle = parts.get("mean", parts.get("median"))
        self.spread = parts.get("spread")

    def __format__(self, form):
        spread = None if form.startswith("=") else self.spread
        form = form.removeprefix("=")
        shown = [x for x in (self.middle, spread) if x is not None]
        return " ± ".join(_shown(x, form) for x in shown)


def _shown(x, form):
    # Counts, and figures that were published without decimals, are whole numbers.
    alone = isinstance(x, str) or (isinstance(x, int) and form.endswith("f"))
    return str(x) if alone else format(x, form)


def cell(template, arms):
    """Text of a cell; empty if an arm or a measure is missing."""
    try:
        return template.format_map(arms)
    except KeyError:
        return ""


def cells(table, rows):
    """Case and texts of each line; lines without any text are left out."""
    by_case = {}
    for row in rows:
        measures = {name: Measure(value) for name, value in row["measures"].items()}
        by_case.setdefault(row["case"], {})[row["arm"]] = measures
    lines = {
        case: [cell(template, arms) for template in table.columns.values()]
        for case, arms in by_case.items()
    }
    return [[case, *texts] for case, texts in lines.items() if any(texts)]


def simple_table(head, lines):
    """A simple table of reStructuredText."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    rule = ["=" * width for width in widths]
    return "".join(
        "  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in (rule, head, rule, *lines, rule)
    )


def rows_of(table):
    """Rows of a table in the results of its script."""
    rows = read(ROOT / "benchmarks" / table.folder / "results.json")
    return [row for row in rows if row["table"] == table.rows]


def written(pages, tables):
    """The pages, by their path, with their tables written anew."""
    found = [name for page in pages.values() for _, name, _ in MARKED.findall(page)]
    wanted = [name for name, table in tables.items() if rows_of(table)]
    if sorted(found) != sorted(wanted):
        sys.exit(
            f"The pages must have each table that has rows, {sorted(wanted)}, once between "
            f"its two comments, and have {sorted(found)}: add or take away comments."
        )

    def between(match):
        table = tables[match[2]]
        text = simple_table([table.first, *table.columns], cells(table, rows_of(table)))
        return f"{match[1]}\n.. rst-class:: figures\n\n{text}\n{match[3]}"

    return {path: MARKED.sub(between, page) for path, page in pages.items()}


def difference(before, after, name):
    """Lines that a file loses and gets; none if it is as it should be."""
    lines = before.splitlines(), after.splitlines()
    return "\n".join(difflib.unified_diff(*lines, name, "results", lineterm=""))


def main():
    """Write the tables, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if stale")
    options = parser.parse_args()
    before = {path: path.read_text() for path in sorted(PAGES.glob("*.rst"))}
    after = written(before, TABLES)
    stale = {path: text for path, text in after.items() if text != before[path]}
    for path, text in stale.items():
        if options.check:
            print(difference(before[path], text, path.name))
        else:
            path.write_text(text)
    if options.check and stale:
        names = ", ".join(path.name for path in stale)
        sys.exit(f"{names} of docs/benchmarks differs from the results: run make tables")


if __name__ == "__main__":
    main()
