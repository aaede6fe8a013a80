import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from numpydoc.validate import validate

import sk_resnet
from sk_resnet import inspection
from sk_resnet import search as _search  # noqa: F401 (numpydoc looks it up)

ROOT = Path(__file__).parents[1]
# Summaries, examples and See Also sections that a method need not have, the line that
# opens a docstring, and scikit-learn's way to name what is returned.
NOT_ASKED = {"ES01", "EX01", "SA01", "SA04", "GL01", "RT02", "RT03"}
METHODS = (
    "fit",
    "partial_fit",
    "predict",
    "predict_proba",
    "predict_log_proba",
    "sparsity_by_layer",
    "compact",
    "embed",
)
SEARCH = (
    "CrossValidationObjective",
    "CrossValidationObjective.best_parameters",
    "CrossValidationObjective.refit",
    "Only",
    "PruningCallback",
    "create_study",
    "retry_stale_trials",
    "search_space",
    "suggest",
)
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))


def public_names():
    for name in set(sk_resnet.__all__) - {"__version__"}:
        yield name
        if name.endswith("Classifier"):
            yield from (f"{name}.{method}" for method in METHODS)
    for name in SEARCH:
        yield f"search.{name}"
    for name in inspection.__all__:
        yield f"inspection.{name}"
        if name.endswith("Display"):
            yield f"inspection.{name}.plot"
            if name != "RegularizationPathDisplay":
                yield f"inspection.{name}.from_estimator"


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index.rst", "tutorial.rst", "search.rst"])
def test_the_blocks_of_the_pages_run(name, tmp_path):
    (tmp_path / "block.py").write_text(blocks_of_a_page(name))
    run("block.py", tmp_path)
