"""Parts of a drawing in SVG: text, lines, marks, axes and legends, for light and dark.

Not matplotlib's: its files differ between its versions, and a test compares the pictures
in the repository with those of the stored results, byte by byte.
"""

import math
from dataclasses import dataclass
from html import escape

WIDTH = 480
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
# Height of a line of text; width of a letter, of which no font needs more in the mean.
LINE, LETTER = 22, 8.4
# Letters that are narrower or wider than others, by their width in a wide font.
WIDTHS = dict.fromkeys("ijl.,;:'|", 4.0) | dict.fromkeys("frt -()", 5.0)
WIDTHS |= dict.fromkeys("ABCDEGHNOPQRSTUVXY%", 9.6) | dict.fromkeys("mwMW", 12.5)
# Outlines of marks around (0, 0), so that colours are not all that tells arms apart.
SHAPES = (
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z",
    "M-4.5,-4.5h9v9h-9z",
    "M0,-5.5L5.5,4.5L-5.5,4.5z",
    "M0,-6L6,0L0,6L-6,0z",
)


@dataclass(frozen=True)
class Theme:
    """Colours on one background.

    `series` are in the order of a picture's arms, `signs` are of what speaks for something
    and against it.
    """

    ink: str
    faint: str
    series: tuple[str, ...]
    signs: tuple[str, str]


THEMES = {
    "": Theme(
        "#24292f",
        "#d0d7de",
        ("#0a6ebd", "#d9690f", "#57853b", "#8a63c9"),
        ("#c9202e", "#1b6cb5"),
    ),
    "-dark": Theme(
        "#e6edf3",
        "#444c56",
        ("#58b0f5", "#f79a52", "#8fc46c", "#b99af0"),
        ("#ff6b6b", "#58b0f5"),
    ),
}


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`, with lines at `ticks`, perhaps in logarithms."""

    title: str
    ticks: tuple[float, ...]
    low: float
    high: float
    is_log: bool = False

    def place(self, x, start, end):
        """Where a value lies between two ends; a value outside lies at an end."""
        held = (self.low, min(max(x, self.low), self.high), self.high)
        low, x, high = map(math.log, held) if self.is_log else held
        return start + (end - start) * (x - low) / (high - low)


def length(words):
    """About how long a line of text is, so that gaps between words look equal."""
    return sum(WIDTHS.get(letter, 8.4) for letter in words)


def text(x, y, words, theme, *, anchor="start", size=14, weight=400, color=None):
    """A line of text, with its baseline at y."""
    fill = color or theme.ink
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}" fill="{fill}">{escape(words)}</text>'
    )


def line(x1, y1, x2, y2, color, width=1):
    """A straight line."""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{color}" stroke-width="{width}"/>'
    )


def box(x, y, width, height, color, radius=0, *, opacity=1.0):
    """A filled rectangle."""
    seen = "" if opacity == 1 else f' fill-opacity="{opacity:.2f}"'
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'rx="{radius}" fill="{color}"{seen}/>'
    )


def squares(corners, width, height, color):
    """Filled rectangles of one size, by their corners at the top left."""
    outline = f"h{width:.1f}v{height:.1f}h-{width:.1f}z"
    outlines = "".join(f"M{x:.1f},{y:.1f}{outline}" for x, y in corners)
    return f'<path d="{outlines}" fill="{color}"/>'


def path(points, color, *, opacity=1.0):
    """A line through points."""
    through = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    seen = "" if opacity == 1 else f' stroke-opacity="{opacity:.2f}"'
    return (
        f'<polyline points="{through}" fill="none" stroke="{color}" '
        f'stroke-width="2"{seen}/>'
    )


def mark(place, x, y, theme, title=""):
    """The mark of an arm, by its place among the arms."""
    return (
        f'<path transform="translate({x:.1f} {y:.1f})" d="{SHAPES[place]}" '
        f'fill="{theme.series[place]}"><title>{escape(title)}</title></path>'
    )


def legend(names, theme):
    """Names of the arms behind their marks, in rows, and the height that they take."""
    parts, x, y = [], 10.0, 14.0
    for place, name in enumerate(names):
        if x > 10 and x + 12 + LETTER * len(name) > WIDTH:
            x, y = 10.0, y + LINE
        parts += [mark(place, x, y, theme), text(x + 12, y + 5, name, theme)]
        x += 34 + length(name)
    return parts, y + 16


def axis_below(axis, start, end, top, bottom, theme):
    """Lines at the ticks of an axis, their values, and its title below."""
    parts = []
    for tick in axis.ticks:
        x = axis.place(tick, start, end)
        parts.append(line(x, top, x, bottom, theme.faint))
        parts.append(text(x, bottom + 17, f"{tick:g}", theme, anchor="middle", size=13))
    middle = (start + end) / 2
    # Long titles stay within the picture.
    half = LETTER * len(axis.title) / 2
    middle = min(max(middle, half + 4), WIDTH - half - 4)
    return [*parts, text(middle, bottom + 38, axis.title, theme, anchor="middle")]


def axis_beside(axis, start, end, top, bottom, theme):
    """Lines at the ticks of an axis, their values on the left, and its title above."""
    parts = [text(6, top - 14, axis.title, theme)]
    for tick in axis.ticks:
        y = axis.place(tick, bottom, top)
        parts.append(line(start, y, end, y, theme.faint))
        parts.append(text(start - 8, y + 4, f"{tick:g}", theme, anchor="end", size=13))
    return parts


def drawing(height, parts, title):
    """The file of a picture."""
    inside = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}" font-family="{FONT}" role="img">\n'
        f"<title>{escape(title)}</title>\n{inside}\n</svg>\n"
    )
