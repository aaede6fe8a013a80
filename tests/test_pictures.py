import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.model_selection import ParameterGrid

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SVG = "{http://www.w3.org/2000/svg}"
PAGE_COLORS = {"": "#ffffff", "-dark": "#14181e"}


@pytest.fixture
def svg(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import svg

    return svg


@pytest.fixture
def pictures(svg):
    import pictures

    return pictures


def parsed(pictures, name):
    return ElementTree.fromstring(pictures.files()[name])


def contrast(color, other):
    """Contrast of two colours as WCAG 2 defines it."""

    def luminance(code):
        c = np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(c <= 0.03928, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted([luminance(color), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("suffix", PAGE_COLORS)
def test_text_and_marks_can_be_read_on_their_page(svg, suffix):
    theme = svg.THEMES[suffix]
    assert contrast(theme.ink, PAGE_COLORS[suffix]) > 7
    for color in theme.series + theme.signs:
        assert contrast(color, PAGE_COLORS[suffix]) > 3


def test_dark_pictures_are_light_ones_in_other_colours(pictures):
    files = pictures.files()
    plain = {name: re.sub(r"#[0-9a-f]{6}", "", text) for name, text in files.items()}
    for name in pictures.PICTURES:
        assert plain[f"{name}.svg"] == plain[f"{name}-dark.svg"]
        assert files[f"{name}.svg"] != files[f"{name}-dark.svg"]


def test_places_on_an_axis_are_proportional_or_logarithmic(svg):
    straight = svg.Axis("", (), 1, 5)
    assert [straight.place(x, 100, 300) for x in (1, 2, 5)] == [100, 150, 300]
    log = svg.Axis("", (), 1, 16, is_log=True)
    found = [log.place(x, 0, 4) for x in (1, 2, 4, 16)]
    assert found == pytest.approx([0, 1, 2, 4])
    assert straight.place(9, 100, 300) == 300
    assert straight.place(0, 300, 100) == 300


def test_values_are_those_of_the_results_or_ratios_of_them(pictures, monkeypatch):
    rows = [
        {"table": "speed", "case": "a", "arm": "x", "measures": {"fit": {"median": 6}}},
        {"table": "speed", "case": "a", "arm": "ours", "measures": {"fit": {"median": 2}}},
        {"table": "other", "case": "b", "arm": "x", "measures": {"fit": {"median": 1}}},
        {"table": "speed", "case": "c", "arm": "x", "measures": {"fit": 4}},
    ]
    monkeypatch.setattr(pictures, "read", lambda path: rows)
    parts = ("", "speed", "speed", {"X": ("x", "fit"), "Y": ("y", "fit")}, None)
    assert pictures.Dots(*parts).values() == {"a": {"X": 6}, "c": {"X": 4}}
    assert pictures.Dots(*parts, over=("ours", "fit")).values() == {"a": {"X": 3}}


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        ({"mean": 0.5, "spread": 1}, 0.5),
        ({"median": 2.0, "low": 1}, 2.0),
        (3, 3.0),
        ("0.94 (CNN), 0.96 (human)", 0.94),
        ("not reached", None),
        (None, None),
    ],
)
def test_numbers_of_measures(pictures, measure, value):
    assert pictures.number(measure) == value


def test_all_text_and_marks_are_within_the_picture(pictures, svg):
    for name, text in pictures.files().items():
        root = ElementTree.fromstring(text)
        width, height = float(root.get("width")), float(root.get("height"))
        for part in root.iter(f"{SVG}text"):
            length = svg.LETTER * len(part.text) * float(part.get("font-size")) / 14
            share = {"start": 0, "middle": 0.5, "end": 1}[part.get("text-anchor")]
            left = float(part.get("x")) - share * length
            assert left > -8, (name, part.text)
            assert left + length < width + 8, (name, part.text)
            assert float(part.get("y")) < height, (name, part.text)
        for part in root.iter(f"{SVG}path"):
            if moved := re.match(
                r"translate\(([\d.]+) ([\d.]+)\)", part.get("transform", "")
            ):
                assert 0 < float(moved[1]) < width
                assert 0 < float(moved[2]) < height


def test_a_picture_of_fits_has_a_square_for_each_and_a_frame_for_each_training(pictures):
    root = parsed(pictures, "fits.svg")
    squares = [part.get("d").count("M") for part in root.iter(f"{SVG}path")]
    assert squares == [180, 180]
    frames = [part for part in root.iter(f"{SVG}rect") if part.get("height") == "61.0"]
    assert len(frames) == 8
    long, short = (
        float(part.get("width"))
        for part in root.iter(f"{SVG}rect")
        if part.get("height") == "14.0"
    )
    shown = pictures.by_case("members", "wine")["wine, 180 fits"]
    alone, fused = (pictures.number(arm["cpu"]) for arm in shown.values())
    assert short / long == pytest.approx(fused / alone, abs=1e-3)


def test_marks_stand_where_the_results_say(pictures):
    root = parsed(pictures, "papers.svg")
    marks = [
        (part, part.find(f"{SVG}title").text)
        for part in root.iter(f"{SVG}path")
        if part.find(f"{SVG}title") is not None
    ]
    heights = {
        title: float(re.search(r"([\d.]+)\)", part.get("transform"))[1])
        for part, title in marks
        if title
    }
    # From 0 to 60 % the axis is 200 high.
    per_cent = 200 / 60
    low, high = heights["plain, 20: 8.9"], heights["plain, 56: 54.2"]
    assert low - high == pytest.approx((54.25 - 8.9) * per_cent, abs=0.2)


def test_bars_of_a_row_are_its_largest_attributions(pictures, svg):
    from overlays import bars

    found = {"names": list("abcdefgh"), "attributions": [1, -4, 2, 0.5, 0.1, -3, 2.5, 0]}
    drawn = bars(found, 0, 0, svg.THEMES[""])
    names = [
        ElementTree.fromstring(part).text for part in drawn if part.startswith("<text")
    ]
    widths = [
        float(ElementTree.fromstring(part).get("width"))
        for part in drawn
        if part.startswith("<rect")
    ]
    assert names == list("bfgcad")
    assert np.divide(widths, widths[0]) == pytest.approx(
        [1, 0.75, 0.625, 0.5, 0.25, 0.125], abs=1e-3
    )


def test_marks_that_would_hide_each_other_move_apart(pictures):
    shifts = pictures.apart({"a": 50.0, "b": 52.0, "c": 90.0, "d": 45.0}, 12)
    assert shifts == {"d": -6, "a": 0, "b": 6, "c": 0}
    assert pictures.apart({"a": 10, "b": 10}, 12) == {"a": -3.5, "b": 3.5}


def test_words_of_narrow_letters_are_shorter_than_those_of_wide_ones(svg):
    assert svg.length("ill") < svg.length("abc") < svg.length("MWm")


def test_a_picture_that_is_old_or_missing_is_found_and_drawn(
    pictures, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(pictures, "FOLDER", tmp_path / "new")
    monkeypatch.setattr(sys, "argv", ["pictures.py"])
    pictures.main()
    monkeypatch.setattr(sys, "argv", ["pictures.py", "--check"])
    pictures.main()
    (tmp_path / "new" / "size.svg").write_text("old")
    (tmp_path / "new" / "speed.svg").unlink()
    with pytest.raises(SystemExit, match=r"^size.svg, speed.svg differ from the results"):
        pictures.main()


def test_the_search_on_wine_counts_its_trainings(svg, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS / "members")
    import wine

    from sk_resnet import _fused

    monkeypatch.setattr(_fused, "groups_of", _fused.groups_of)  # put back at the end
    monkeypatch.setattr(wine, "N_EPOCHS", 1)
    counts = []
    wine.counted_groups(counts)
    grid = {"l2": [1e-3, 1e-2], "lr": [0.05]}
    *_, alone = wine.searched("sequential", 1, grid)
    assert counts == []
    wall, cpu, fused = wine.searched("fused", 180, grid)
    assert sum(counts) == 10
    assert len(counts) < 10
    assert min(wall, cpu) > 0
    assert np.abs(alone - fused).max() < 0.05
    assert len(list(ParameterGrid(wine.GRID))) * wine.N_FOLDS == 180
