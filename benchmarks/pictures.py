"""Draw the pictures of docs/benchmarks/ and of the README from the results.json files.

    python benchmarks/pictures.py            # write them to docs/_static/pictures
    python benchmarks/pictures.py --check    # only say whether they are up to date

Each picture is a row of PICTURES, and is written twice, for light and for dark pages. The
files are SVG of some thousand bytes, narrow, so that they can be read on a phone. The same
results give the same bytes.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

from overlays import Attributions
from results import ROOT, read
from svg import (
    LETTER,
    LINE,
    THEMES,
    WIDTH,
    Axis,
    axis_below,
    axis_beside,
    box,
    drawing,
    legend,
    mark,
    path,
    squares,
    text,
)  # fmt: skip

FOLDER = ROOT / "docs" / "_static" / "pictures"


def by_case(folder, table):
    """Measures of the rows of a table, by their case and arm, in the order of the file."""
    cases = {}
    for row in read(ROOT / "benchmarks" / folder / "results.json"):
        if row["table"] == table:
            cases.setdefault(row["case"], {})[row["arm"]] = row["measures"]
    return cases


def number(measure):
    """Mean or median of a measure, or the number that it is; None if there is none."""
    if isinstance(measure, dict):
        return measure.get("mean", measure.get("median"))
    try:
        return float(str(measure).split()[0])
    except ValueError:  # text, or nothing
        return None


@dataclass(frozen=True)
class Dots:
    """A row for each case, with the measure of each arm; or its ratio to that of `over`.

    `arms` has the name and the measure of an arm in the results, by its name here; `row` is
    the height of a row.
    """

    title: str
    folder: str
    table: str
    arms: dict[str, tuple[str, str]]
    axis: Axis
    over: tuple[str, str] | None = None
    row: int = LINE

    def values(self):
        """Value of each arm by case and by its name here."""
        found = {}
        for case, arms in by_case(self.folder, self.table).items():
            divisor = 1.0
            if self.over:
                divisor = number(arms.get(self.over[0], {}).get(self.over[1]))
            values = {
                name: number(arms.get(arm, {}).get(measure))
                for name, (arm, measure) in self.arms.items()
            }
            known = {k: v / divisor for k, v in values.items() if divisor and v is not None}
            if known:
                found[case] = known
        return found

    def draw(self, theme):
        """Height of the picture, and its parts."""
        values = self.values()
        parts, top = legend(list(self.arms), theme)
        start = 16 + LETTER * max(map(len, values))
        end, bottom = WIDTH - 20, top + self.row * len(values)
        parts += axis_below(self.axis, start, end, top, bottom, theme)
        places = {name: place for place, name in enumerate(self.arms)}
        for i, (case, known) in enumerate(values.items()):
            y = top + self.row * (i + 0.5)
            parts.append(text(start - 10, y + 5, case, theme, anchor="end"))
            at = {name: self.axis.place(value, start, end) for name, value in known.items()}
            for name, shift in apart(at, self.row - 10).items():
                title = f"{case}, {name}: {known[name]:.3g}"
                parts.append(mark(places[name], at[name], y + shift, theme, title))
        return bottom + 48, parts


def apart(at, height):
    """How far marks of a row move up or down, so that none hides another.

    Marks that are closer than their width stand below each other, `height` apart at most.
    """
    shifts, group = {}, []
    for name in sorted(at, key=at.get):
        if group and at[name] - at[group[-1]] > 9:
            group = []
        group.append(name)
        step = min(7, height / max(len(group) - 1, 1))
        for place, one in enumerate(group):
            shifts[one] = step * (place - (len(group) - 1) / 2)
    return shifts


@dataclass(frozen=True)
class Lines:
    """A line for each arm, through points that a function reads from the results."""

    title: str
    points: Callable[[], dict[str, list[tuple[float, float]]]]
    across: Axis
    up: Axis

    def draw(self, theme):
        """Height of the picture, and its parts."""
        series = self.points()
        parts, top = legend(list(series), theme)
        start, end, top, bottom = 50, WIDTH - 20, top + 34, top + 234
        parts += axis_below(self.across, start, end, top, bottom, theme)
        parts += axis_beside(self.up, start, end, top, bottom, theme)
        for place, (name, points) in enumerate(series.items()):
            at = [
                (self.across.place(x, start, end), self.up.place(y, bottom, top))
                for x, y in points
            ]
            parts.append(path(at, theme.series[place]))
            for (x, y), (value, other) in zip(at, points, strict=True):
                title = f"{name}, {value:g}: {other:.3g}"
                parts.append(mark(place, x, y, theme, title))
        return bottom + 48, parts


@dataclass(frozen=True)
class Fits:
    """How many trainings the fits of a grid search are, and the seconds that they take."""

    title: str
    folder: str
    table: str
    note: str

    def draw(self, theme):
        """Height of the picture, and its parts."""
        (arms,) = by_case(self.folder, self.table).values()
        longest = max(number(measures["cpu"]) for measures in arms.values())
        parts, y = [], 20.0
        for place, measures in enumerate(arms.values()):
            color = theme.series[place]
            n, fits = measures["trainings"], measures["fits"]
            words = f"{fits} fits, one after the other"
            if n < fits:
                words = f"the same {fits} as {n} trainings"
            parts.append(text(6, y, words, theme, weight=600))
            parts += framed(n, fits, y + 12, color, theme)
            parts += told(number(measures["cpu"]), longest, y + 78, color, theme)
            y += 134
        parts.append(text(6, y - 16, self.note, theme))
        return y - 4, parts


def framed(n_trainings, n_fits, top, color, theme):
    """A square for each fit, in fives; a frame around those that train as one network."""
    size = -(-n_fits // n_trainings)
    if size == 1:
        width = (WIDTH - 10) / (n_fits / 5)
        corners = [(6 + width * (i // 5), top + 5 + 11 * (i % 5)) for i in range(n_fits)]
        return [squares(corners, width - 4, 7, color)]
    width = (WIDTH - 6) / n_trainings
    frames = [
        box(6 + width * i, top, width - 6, 61, theme.faint, 5) for i in range(n_trainings)
    ]
    inner = (width - 16) / -(-size // 5)
    corners = [
        (12 + width * (i // size) + inner * (i % size // 5), top + 5 + 11 * (i % size % 5))
        for i in range(n_fits)
    ]
    return [*frames, squares(corners, inner - 2, 7, color)]


def told(seconds, longest, y, color, theme):
    """A bar of so many seconds, and their number."""
    length = (WIDTH - 60) * seconds / longest
    return [
        box(6, y, length, 14, color, 3),
        text(length + 14, y + 12, f"{seconds:.0f} s", theme, weight=600),
    ]


def depths():
    """Training error of plain and of residual networks, by depth."""
    series = {"plain": [], "residual": []}
    for case, arms in by_case("papers", "depth").items():
        kind, _, depth = case.partition("-")
        series[kind].append((int(depth), number(arms["ours"]["training error"])))
    return series


def sizes():
    """Points of accuracy that are lost, by how many times smaller the file is."""
    cases = by_case("regularization", "size").values()
    measures = [arms["weight"] for arms in cases]
    points = [(number(m["smaller"]), -number(m["points"])) for m in measures]
    return {"WRN-10-2 on Fashion-MNIST, three values of l1": sorted(points)}


def penalties():
    """Points of accuracy by l2, over those at 0.05."""
    series, cases = {}, by_case("accuracy", "penalty")
    for case in ("contraceptive", "australian", "digits", "movement_libras"):
        arms = cases[case]
        own = number(arms["l2 5e-2"]["accuracy"])
        series[case] = [
            (float(arm.removeprefix("l2 ")), 100 * (number(found["accuracy"]) - own))
            for arm, found in arms.items()
        ]
    return series


def growths():
    """Seconds of an epoch by how many times larger one thing is."""
    return {
        name: [
            (n, number(arms[f"x{n}"]["fit"]) / number(arms["x1"]["fit"])) for n in (1, 2, 4)
        ]
        for name, arms in by_case("speed", "growth").items()
    }


RESNET, MLP, TREES = "ResNetClassifier", "MLPClassifier", "HistGradientBoosting"
PICTURES = {
    "fits": Fits(
        "How long 180 fits take one after the other, and as few trainings",
        "members",
        "wine",
        "36 points × 5 folds on wine; seconds of one core",
    ),
    "attributions": Attributions(
        "What speaks for a class in an image, a row and a series",
        ROOT / "benchmarks" / "inspection" / "attributions.json",
    ),
    "accuracy": Dots(
        "Accuracy of models at their defaults",
        "accuracy",
        "accuracy",
        {
            "ResNetClassifier": (RESNET, "accuracy"),
            "MLP": (MLP, "accuracy"),
            "gradient boosting": (TREES, "accuracy"),
            "published ResNet or CNN": (RESNET, "published"),
        },
        Axis("accuracy; more is better", (0.4, 0.6, 0.8, 1), 0.38, 1.01),
        row=30,
    ),
    "tables": Dots(
        "Log-loss of four models over that of ResNetClassifier",
        "accuracy",
        "tables",
        {
            "MLP": (MLP, "log_loss"),
            "gradient boosting": (TREES, "log_loss"),
            "CatBoost": ("CatBoost", "log_loss"),
            "RealMLP-TD": ("RealMLP-TD", "log_loss"),
        },
        Axis(
            "log-loss over that of ResNetClassifier; above 1 is worse",
            (0.8, 1, 1.5, 2, 3, 4, 5), 0.8, 5.6, is_log=True,
        ),
        over=(RESNET, "log_loss"),
    ),
    "held_out": Dots(
        "Log-loss of three models over that of ResNetClassifier",
        "accuracy",
        "held out",
        {
            "MLP": (MLP, "log_loss"),
            "gradient boosting": (TREES, "log_loss"),
            "random forest": ("RandomForest", "log_loss"),
        },
        Axis(
            "log-loss over that of ResNetClassifier; above 1 is worse",
            (0.5, 1, 2, 5, 10, 20), 0.4, 25, is_log=True,
        ),
        over=(RESNET, "log_loss"),
    ),
    "penalty": Lines(
        "Accuracy by the strength of the L2 penalty",
        penalties,
        Axis("l2", (0.005, 0.02, 0.05, 0.1, 0.2), 0.004, 0.25, is_log=True),
        Axis("points of accuracy over those at 0.05", (-4, -2, 0, 2), -5, 3),
    ),
    "regression": Dots(
        "RMSE of regressors at their defaults",
        "accuracy",
        "regression",
        {
            "RealMLP-TD": ("RealMLP-TD", "RMSE"),
            "CatBoost": ("CatBoost", "RMSE"),
            "gradient boosting": ("HistGradientBoostingRegressor", "RMSE"),
            "MLP on scaled y": ("MLPRegressor on scaled y", "RMSE"),
        },
        Axis(
            "RMSE over that of ResNetRegressor; above 1 is worse",
            (0.8, 1, 1.2, 1.5), 0.78, 1.75, is_log=True,
        ),
        over=("ResNetRegressor", "RMSE"),
    ),
    "size": Lines(
        "Accuracy that is lost by smaller files",
        sizes,
        Axis("times smaller than the dense file", (1, 5, 10, 15, 20, 25), 0, 27),
        Axis("points of accuracy lost", (0, 1, 2, 3), 0, 3.2),
    ),
    "speed": Dots(
        "Seconds of a fit over those of sk_resnet",
        "speed",
        "speed",
        {
            "skorch": ("skorch", "fit"),
            "plain loop": ("loop", "fit"),
            "tuned loop": ("tuned", "fit"),
        },
        Axis("seconds of a fit over ours; above 1 is slower", (1, 2, 3, 4), 0.9, 4.1),
        over=("ours", "fit"),
    ),
    "libraries": Dots(
        "Seconds of an epoch over those of sk_resnet",
        "speed",
        "peers",
        {
            "skorch": ("skorch", "fit"),
            "Lightning": ("lightning", "fit"),
            "Keras": ("keras", "fit"),
            "fastai": ("fastai", "fit"),
        },
        Axis("seconds of an epoch over ours; above 1 is slower", (1, 2, 3), 0.9, 3.4),
        over=("ours", "fit"),
    ),
    "growth": Lines(
        "How the seconds of an epoch grow",
        growths,
        Axis("times as many samples, layers, channels, pixels a side",
             (1, 2, 4), 0.95, 4.2, is_log=True),
        Axis("times as many seconds", (1, 2, 4, 8), 0.9, 10, is_log=True),
    ),
    "papers": Lines(
        "Training error of plain and of residual networks",
        depths,
        Axis("layers", (20, 32, 44, 56), 18, 58),
        Axis("error in training, %", (0, 20, 40, 60), 0, 60),
    ),
    "costs": Dots(
        "Share of the training time that records of gradients take",
        "inspection",
        "gradients",
        {
            f"{n} samples": (f"{n} samples", "share") for n in (100, 1000, 6200)
        },
        Axis("% of the training time", (0, 1, 2, 3, 4), 0, 4.2),
    ),
}  # fmt: skip


def files():
    """Text of each file, by its name."""
    return {
        f"{name}{suffix}.svg": drawing(*picture.draw(theme), picture.title)
        for name, picture in PICTURES.items()
        for suffix, theme in THEMES.items()
    }


def main():
    """Write the pictures, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if stale")
    options = parser.parse_args()
    stale = []
    for name, content in files().items():
        written = FOLDER / name
        if written.exists() and written.read_text() == content:
            continue
        stale.append(name)
        if not options.check:
            FOLDER.mkdir(parents=True, exist_ok=True)
            written.write_text(content)
    if options.check and stale:
        sys.exit(f"{', '.join(stale)} differ from the results: run make tables")


if __name__ == "__main__":
    main()
