"""The picture of attributions, drawn over an image, beside a row and along a series."""

import json
from dataclasses import dataclass
from pathlib import Path

from svg import WIDTH, Axis, box, line, path, text


@dataclass(frozen=True)
class Attributions:
    """What speaks for a class, and what against it: in an image, a row and a series."""

    title: str
    file: Path

    def draw(self, theme):
        """Height of the picture, and its parts."""
        found = json.loads(self.file.read_text())
        parts = []
        for x, sign, words in (
            (6, 0, "speaks for the class"),
            (200, 1, "speaks against it"),
        ):
            parts.append(box(x, 4, 12, 12, theme.signs[sign]))
            parts.append(text(x + 20, 15, words, theme))
        parts.append(text(6, 46, "image of a 3", theme, weight=600))
        parts += pixels(found["image"], 6, 56, theme)
        parts.append(text(200, 46, "row of a wine of class 0", theme, weight=600))
        parts += bars(found["row"], 200, 56, theme)
        parts.append(text(6, 246, "series of the class “up”", theme, weight=600))
        parts += colored(found["series"], 254, theme)
        return 344, parts


def strengths(attributions):
    """Sign, 0 or 1, and share of the largest attribution, of each of them."""
    largest = max(map(abs, attributions))
    return [(int(a < 0), abs(a) / largest) for a in attributions]


def pixels(found, left, top, theme):
    """Pixels of an image in grey, and their attributions over them."""
    side = len(found["values"])
    size = 160 / side
    values, parts = (
        [v for row in found[key] for v in row] for key in ("values", "attributions")
    )
    drawn = []
    for i, (value, (sign, share)) in enumerate(zip(values, strengths(parts), strict=True)):
        corner = (left + size * (i % side), top + size * (i // side), size - 1, size - 1)
        drawn.append(box(*corner, theme.ink, opacity=0.08 + 0.4 * value / max(values)))
        if share > 0.05:
            drawn.append(box(*corner, theme.signs[sign], opacity=share))
    return drawn


def bars(found, left, top, theme):
    """Six features of a row with the largest attributions, and bars of these."""
    rows = zip(found["names"], found["attributions"], strict=True)
    rows = sorted(rows, key=lambda row: -abs(row[1]))[:6]
    low, high = min(0, *(a for _, a in rows)), max(0, *(a for _, a in rows))
    scale = (WIDTH - 6 - left - 130) / (high - low)
    zero = left + 130 - scale * low
    drawn = [line(zero, top, zero, top + 160, theme.faint)]
    for i, (name, a) in enumerate(rows):
        y, length = top + 26.5 * i + 5, scale * abs(a)
        short = name if len(name) < 16 else f"{name[:14]}…"
        drawn.append(text(left, y + 13, short, theme))
        drawn.append(box(zero - length * (a < 0), y, length, 17, theme.signs[int(a < 0)]))
    return drawn


def colored(found, top, theme):
    """A series in grey, and its steps in the colours of their attributions."""
    values = found["values"]
    across = Axis("", (), 0, len(values) - 1)
    up = Axis("", (), min(values), max(values))
    at = [
        (across.place(i, 6, WIDTH - 6), up.place(v, top + 80, top + 4))
        for i, v in enumerate(values)
    ]
    drawn = [path(at, theme.faint)]
    for i, (sign, share) in enumerate(strengths(found["attributions"])):
        if share > 0.05:
            drawn.append(path(at[max(i - 1, 0) : i + 1], theme.signs[sign], opacity=share))
    return drawn
