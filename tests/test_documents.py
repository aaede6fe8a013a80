import os
import re
import subprocess
import sys
import textwrap
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
PAGES = sorted(
    str(path.relative_to(ROOT / "docs"))
    for path in [*(ROOT / "docs").glob("*.rst"), *(ROOT / "docs" / "guide").glob("*.rst")]
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
    """Python blocks of a page, as one script."""
    text = (ROOT / "docs" / name).read_text()
    blocks = re.findall(r"code-block:: python\n\n((?:   .*\n|\n)+)", text)
    return "\n".join(textwrap.dedent(block) for block in blocks)


def test_no_page_takes_the_place_of_one_that_sphinx_makes():
    assert not {"search.rst", "genindex.rst", "py-modindex.rst"} & set(PAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", [page for page in PAGES if blocks_of_a_page(page)])
def test_the_blocks_of_the_pages_run(name, tmp_path):
    (tmp_path / "block.py").write_text(blocks_of_a_page(name))
    run("block.py", tmp_path)


def texts():
    """Everything that is written for people: README, pages, examples and docstrings."""
    paths = [ROOT / name for name in ("README.md", "RELEASING.md", "CONTRIBUTING.rst")]
    paths += [ROOT / "docs" / page for page in PAGES]
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


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {sk_resnet.__version__}\n" in citation
