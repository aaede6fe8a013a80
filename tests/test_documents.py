import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from ast import literal_eval
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from numpydoc.validate import validate

import sk_resnet
from sk_resnet import inspection, search
from sk_resnet import worker as _worker  # noqa: F401 (numpydoc looks it up)

ROOT = Path(__file__).parents[1]
# Summaries, examples and See Also sections that a method need not have, and the line that
# opens a docstring.
NOT_ASKED = {"ES01", "EX01", "SA01", "SA04", "GL01"}
METHODS = (
    "fit",
    "partial_fit",
    "predict",
    "predict_proba",
    "predict_log_proba",
    "sparsity_by_layer",
    "compact",
    "embed",
    "network_input",
    "get_params",
    "set_params",
)
OF_OBJECTIVES = ("best_parameters", "own_parameters", "refit")
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))
DOCS = ROOT / "docs"
PAGES = sorted(
    str(path.relative_to(DOCS))
    for folder in (DOCS, DOCS / "guide", DOCS / "benchmarks")
    for path in folder.glob("*.rst")
    if path.name != "sg_execution_times.rst"  # of earlier builds
)


def public_names():
    for name in set(sk_resnet.__all__) - {"__version__"}:
        yield name
        if name.endswith(("Classifier", "Regressor")):
            kind = getattr(sk_resnet, name)
            yield from (f"{name}.{m}" for m in METHODS if hasattr(kind, m))
    yield from ("ResNetEmbedder.fit", "ResNetEmbedder.transform")
    for name in search.__all__:
        yield f"search.{name}"
    for method in OF_OBJECTIVES:
        yield f"search.CrossValidationObjective.{method}"
    for name in inspection.__all__:
        yield f"inspection.{name}"
        if name.endswith("Display"):
            yield f"inspection.{name}.plot"
            yield f"inspection.{name}.from_estimator"
    yield "inspection.RegularizationPathDisplay.from_path"
    yield "worker.main"


@pytest.mark.parametrize("name", sorted(public_names()))
def test_docstrings_are_valid_numpydoc(name):
    errors = validate(f"sk_resnet.{name}")["errors"]
    assert [error for error in errors if error[0] not in NOT_ASKED] == []


def python_blocks(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)


def run(path, folder):
    environment = {**os.environ, "MPLBACKEND": "agg"}
    command = [sys.executable, "-W", "error", str(path)]
    finished = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("code", python_blocks("README.md"))
def test_the_blocks_of_the_readme_run(code, tmp_path):
    (tmp_path / "block.py").write_text(code)
    accuracy = float(re.search(r"accuracy ([\d.]+)", run("block.py", tmp_path))[1])
    assert accuracy > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_run_and_conclude(path, tmp_path):
    assert run(path, tmp_path).strip()


@pytest.mark.slow
def test_the_demo_runs(tmp_path):
    out = run(ROOT / "examples" / "demo.py", tmp_path)
    assert "the same to the bit" in out
    assert (tmp_path / "demo_output" / "training_curve.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_search_demo_runs(tmp_path):
    out = run(ROOT / "examples" / "demo_search.py", tmp_path)
    assert "accuracy on the test part" in out


def blocks_of_a_page(name):
    """Python blocks of a page, as one script, without those of other libraries."""
    return "\n".join(code for library, code in _blocks(name) if library == "sk_resnet")


def _blocks(name):
    """Library, which the caption may name, and code of each Python block of a page."""
    lines = (DOCS / name).read_text().splitlines()
    for i, line in enumerate(lines):
        if line.endswith(".. code-block:: python"):
            block = textwrap.dedent("\n".join(_below(lines, i))) + "\n"
            options, _, code = (
                block.partition("\n\n") if block[0] == ":" else ("", "", block)
            )
            caption = re.search(r":caption: (\S+)", options)
            yield caption[1] if caption else "sk_resnet", code


def _below(lines, i):
    """Lines below one that are indented more than it, or empty."""
    indent = len(lines[i]) - len(lines[i].lstrip())
    for line in lines[i + 1 :]:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            return
        yield line


def test_no_page_takes_the_place_of_one_that_sphinx_makes():
    assert not {"search.rst", "genindex.rst", "py-modindex.rst"} & set(PAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", [page for page in PAGES if blocks_of_a_page(page)])
def test_the_blocks_of_the_pages_run(name, tmp_path):
    (tmp_path / "block.py").write_text(blocks_of_a_page(name))
    run("block.py", tmp_path)


def test_code_of_other_libraries_can_be_read_and_that_of_skorch_runs(tmp_path):
    page = _blocks("coming_from.rst")
    blocks = [code for library, code in page if library != "sk_resnet"]
    assert len(blocks) == 4
    for code in blocks:
        compile(code, "block", "exec")
    data = "import sklearn.datasets as d\nX, y = d.load_breast_cancer(return_X_y=True)\n"
    code = blocks[0].replace('"cuda"', '"cpu"').replace("max_epochs=20", "max_epochs=1")
    (tmp_path / "block.py").write_text(data + code)
    assert "valid_acc" in run("block.py", tmp_path)


def texts():
    """Everything that is written for people: README, pages, examples and docstrings."""
    paths = [ROOT / name for name in ("README.md", "RELEASING.md", "CONTRIBUTING.rst")]
    paths += [DOCS / "llms.txt", *(DOCS / page for page in PAGES)]
    paths += [*(ROOT / "examples").glob("*.*"), *(ROOT / "sk_resnet").rglob("*.py")]
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


@pytest.mark.parametrize("name", sorted(texts()))
def test_links_are_well_formed_and_lead_somewhere(name):
    # Offline: addresses by their form, arXiv's by its numbers, files by being there.
    text, folder = texts()[name], (ROOT / name).parent
    for address in re.findall(r"https?:[^\s)>\"'`]*", text):
        parts = urlsplit(address.rstrip(".,;:"))
        assert parts.scheme == "https", address
        assert re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", parts.netloc), address
    for number in re.findall(r"arXiv:(\S*\d)", text):
        year, month = int(number[:2]), int(number[2:4])
        assert re.fullmatch(r"\d{4}\.\d{4,5}", number), number
        assert 7 <= year <= 40, number
        assert 1 <= month <= 12, number
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text if ".md" in name else ""):
        assert (folder / target).exists(), target
    for picture in re.findall(r'(?:src|srcset|img-top:|image::)[ =]"?([^" \n]+)', text):
        assert (folder / picture).exists(), picture
    for target in re.findall(r":doc:`(?:[^`<]*<)?([^`>]+)>?`", text):
        made = target.startswith("auto_examples/")
        assert made or (folder / f"{target}.rst").exists(), target


@pytest.mark.parametrize("name", sorted(n for n in texts() if n.endswith((".md", ".rst"))))
def test_commands_of_the_pages_exist(name):
    text, makefile = texts()[name], (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^ *|``|`)make ([a-z-]+)", text, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for path in re.findall(r"(?:benchmarks|examples|tests)/[\w/]+\.py", text):
        assert (ROOT / path).exists(), path


def test_the_api_pages_have_every_public_name():
    listed = re.findall(r"^   ([\w.]+)$", (ROOT / "docs" / "api.rst").read_text(), re.M)
    public = set(sk_resnet.__all__) - {"__version__"}
    public |= {f"inspection.{name}" for name in inspection.__all__}
    public |= {f"search.{name}" for name in search.__all__}
    assert sorted(listed) == sorted(public)


def test_the_api_pages_have_the_options_of_the_worker():
    command = [sys.executable, "-m", "sk_resnet.worker", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "api.rst").read_text()
    for option in re.findall(r"--[a-z-]+", shown):
        assert option in page


def test_every_picture_of_a_page_says_what_it_shows():
    for page in PAGES:
        text = (DOCS / page).read_text()
        shown = re.findall(r"^( *)\.\. image:: (.*)\n((?:\1   :.*\n)*)", text, re.M)
        for _, picture, options in shown:
            assert re.search(r":alt: .{20}", options), (page, picture)
        names = {
            light: [n for _, n, o in shown if light in o] for light in ("light", "dark")
        }
        dark = [name.replace(".svg", "-dark.svg") for name in names["light"]]
        assert dark == names["dark"], page


def test_llms_txt_leads_to_every_page():
    made = {"auto_examples/index.html"}
    linked = re.findall(r"\]\(([^)]+)\)", (DOCS / "llms.txt").read_text())
    pages = {page.replace(".rst", ".html") for page in PAGES} - {"index.html"}
    assert sorted(linked) == sorted(pages | made)


def test_the_page_of_parameters_has_all_of_them_in_their_order():
    rows = re.findall(r"^``(\w+)`` +(\S+)", (DOCS / "parameters.rst").read_text(), re.M)
    listed = {name: literal_eval(default.strip("`")) for name, default in rows}
    found = {}
    for kind in (sk_resnet.ResNetClassifier, sk_resnet.ResNetRegressor):
        parameters = inspect.signature(kind).parameters
        own = {name: parameter.default for name, parameter in parameters.items()}
        assert own == {name: listed.get(name, "missing") for name in own}
        assert list(own) == [name for name in listed if name in own]
        found |= own
    assert found.keys() == listed.keys()


def rows(folder):
    """Measures in the results of a benchmark, by table, case and arm."""
    found = json.loads((ROOT / "benchmarks" / folder / "results.json").read_text())
    return {(row["table"], row["case"], row["arm"]): row["measures"] for row in found}


def middle(measure):
    """Mean or median of a measure."""
    return measure.get("mean", measure.get("median"))


def ranks(table):
    """Mean ranks and seconds of the models of a table of tables, and its number of sets."""
    found = {
        case: measures
        for (name, case, _), measures in rows("accuracy").items()
        if name == f"{table} ranks"
    }
    return found, found["ResNetClassifier"]["behind"].rpartition(" ")[2]


def figures():
    """Figures of the README, as the results have them."""
    accuracy, speed = rows("accuracy"), rows("speed")
    alone, fused = (
        rows("members")["wine", "wine, 180 fits", arm]
        for arm in ("one after the other", "as one")
    )
    chosen, n_chosen = ranks("tables")
    others, n_others = ranks("held out")
    size = rows("regularization")["size", "0.001", "weight"]
    ratios = [
        middle(found["fit"]) / middle(speed["speed", case, "ours"]["fit"])
        for (table, case, arm), found in speed.items()
        if (table, arm) == ("speed", "skorch")
    ]
    leads = [
        100 * (middle(found["accuracy"]) - middle(accuracy[table, case, ours]["accuracy"]))
        for (table, case, arm), found in accuracy.items()
        for ours in ("ResNetClassifier",)
        if (table, arm) == ("held out", "RandomForest")
    ]
    ridge, ours = (
        middle(accuracy["regression", "diabetes", arm]["R2"])
        for arm in ("Ridge", "ResNetRegressor")
    )
    slower = [
        middle(accuracy["regression", case, "ResNetRegressor"]["seconds"])
        / middle(accuracy["regression", case, "HistGradientBoostingRegressor"]["seconds"])
        for case in ("diabetes", "friedman1", "friedman2", "friedman3", "diamonds")
    ]
    return [
        f"{fused['fits']} fits becomes {fused['trainings']} trainings",
        f"{middle(fused['cpu']):.0f} seconds of one core in place of "
        f"{middle(alone['cpu']):.0f}",
        f"On {n_others} tables that no default was chosen on",
        "mean rank of log-loss of four models "
        f"({others['ResNetClassifier']['log_loss']:.2f}; "
        f"MLP {others['MLPClassifier']['log_loss']:.2f}, gradient boosting "
        f"{others['HistGradientBoosting']['log_loss']:.2f})",
        f"{middle(size['smaller']):.1f} times smaller for {-middle(size['points']):.2f} "
        "points",
        f"{min(ratios):.1f} to {max(ratios):.1f} times as fast as with plain skorch",
        f"{chosen['RandomForest']['seconds']:.1f} seconds a fit in the mean of "
        f"{n_chosen} tables, ours {chosen['ResNetClassifier']['seconds']:.1f}",
        f"on {sum(lead > 0.5 for lead in leads)} of {n_others} others it was more accurate "
        f"by more than half a point, at most by {max(leads):.1f}",
        f"Ridge has R² {ridge:.3f} and `ResNetRegressor` {ours:.3f}",
        f"{min(slower):.0f} to {max(slower):.0f} times as fast",
    ]


def what_the_first_picture_shows():
    """Text in place of the picture of a search whose fits train as one."""
    alone, fused = (
        rows("members")["wine", "wine, 180 fits", arm]
        for arm in ("one after the other", "as one")
    )
    return (
        f"{alone['fits']} fits one after the other take {middle(alone['cpu']):.0f} "
        f"seconds, and as {fused['trainings']} trainings {middle(fused['cpu']):.0f}"
    )


def figures_for_choosing():
    """Figures of the page about depth, width and penalties, as the results have them."""
    papers, gaps = rows("papers"), rows("regularization")
    errors = {case: found["test error"] for (_, case, _), found in papers.items()}
    seconds = {case: found.get("seconds") for (_, case, _), found in papers.items()}
    arrows, gestures = (
        rows("accuracy")["accuracy", case, "ResNetClassifier"]
        for case in ("ArrowHead", "PickupGestureWiimoteZ")
    )
    own = [
        middle(rows("accuracy")["tables", case, "ResNetClassifier"]["accuracy"])
        for case in ("iris", "wine", "breast_cancer")
    ]
    deep, many = (
        middle(rows("accuracy")[table, "breast_cancer", "ResNetClassifier"]["accuracy"])
        for table in ("accuracy", "tables")
    )
    shallow, wide, narrow = (errors[n] for n in ("residual-20", "WRN-16-1.8", "WRN-40-1"))
    dense = gaps["gap", "none", "WRN-10-1"]
    tests = {
        case: found["test"] for (table, case, _), found in gaps.items() if table == "gap"
    }
    closed = {
        case: middle(dense["gap"]) - middle(found["gap"])
        for (table, case, _), found in gaps.items()
        if table == "gap"
    }
    return [
        f"{middle(arrows['accuracy']):.3f} against {arrows['published']}",
        f"{middle(gestures['accuracy']):.3f} against {gestures['published']}",
        f"the default of ``ResNetClassifier`` {own[0]:.3f}, {own[1]:.3f} and {own[2]:.3f}",
        f"({deep:.3f} against {many:.3f})",
        f"{middle(shallow):.2f} ± {shallow['spread']:.2f} %",
        f"56 layers at {middle(errors['residual-56']):.2f} %",
        f"{middle(wide):.2f} % error after {seconds['WRN-16-1.8']:.0f} seconds",
        f"{middle(narrow):.2f} % after {seconds['WRN-40-1']:.0f}",
        *(
            f"{case} {tests[case]['mean']:.3f} ± {tests[case]['spread']:.3f} {gain}"
            for case, gain in {
                "random erasing": f"{closed['random erasing']:.3f}",
                "l2 = 5e-4": f"{closed['l2 = 5e-4']:.3f}",
                "dropout = 0.3": f"{closed['dropout = 0.3']:.3f}",
                "label smoothing": "none",
                "crop and flip": f"{closed['crop and flip']:.3f}",
            }.items()
        ),
    ]


@pytest.mark.parametrize(
    ("page", "figure"),
    [("README.md", figure) for figure in figures()]
    + [("docs/choosing.rst", figure) for figure in figures_for_choosing()]
    + [(page, what_the_first_picture_shows()) for page in ("README.md", "docs/index.rst")],
)
def test_figures_in_prose_are_those_of_the_results(page, figure):
    assert figure in re.sub(r"\s+", " ", (ROOT / page).read_text())


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {sk_resnet.__version__}\n" in citation
