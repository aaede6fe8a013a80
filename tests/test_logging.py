"""The examples that write to loggers and registries, and what these then hold."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from skorch.callbacks import TensorBoard

import sk_resnet
from sk_resnet import ResNetClassifier

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script, folder, *options):
    """Standard output of a script that runs in a folder, on one thread."""
    environment = {**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, *options, str(script)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def curves(folder):
    """Values of each tag of a run of TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()["scalars"]
    return {tag: [point.value for point in events.Scalars(tag)] for tag in tags}


@pytest.mark.slow
def test_tensorboard_has_the_curves_of_every_fit_of_a_search(tmp_path):
    pytest.importorskip("tensorboard")
    out = run(EXAMPLES / "log_with_tensorboard.py", tmp_path, "-W", "error")
    best = float(re.search(r"best: l2=([\d.]+)", out)[1])
    candidates = sorted((tmp_path / "runs").glob("l2=*"))
    fits = {folder.name: sorted(folder.glob("fit-*")) for folder in candidates}
    expected = {f"l2={l2}": 3 + (l2 == best) for l2 in (1e-3, 1e-2, 1e-1)}
    assert {name: len(found) for name, found in fits.items()} == expected
    found = [curves(fit) for fit in fits[f"l2={best}"]]
    assert all(len(fit["Loss/valid_loss"]) == 10 for fit in found)
    # One of them is the fit on all rows.
    alone = ResNetClassifier(
        4, n_estimators=1, max_epochs=10, validation_split=0.2, random_state=0, l2=best
    ).fit(*load_wine(return_X_y=True))
    for tag, column in (
        ("Loss/train_loss", "train_loss"),
        ("Loss/valid_accuracy", "valid_accuracy"),
    ):
        history = pytest.approx([row[column] for row in alone.history_])
        assert history in [fit[tag] for fit in found]
    scores = [curves(folder)["mean score"] for folder in candidates]
    assert max(scores) == scores[sorted(expected).index(f"l2={best}")]


def test_a_writer_can_neither_be_cloned_nor_pickled(tmp_path):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        model = ResNetClassifier(callbacks=[TensorBoard(writer)])
        with pytest.raises(TypeError, match="cannot pickle"):
            clone(model)


@pytest.mark.slow
def test_a_model_card_says_how_to_load_the_model(tmp_path):
    pytest.importorskip("skops")
    run(EXAMPLES / "log_model_card.py", tmp_path, "-W", "error")
    folder = tmp_path / "card"
    card = (folder / "README.md").read_text()
    model = sk_resnet.load(folder / "tumours.skops")
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    _, X, _, y = train_test_split(X, y, random_state=0, stratify=y)
    shown = float(re.search(r"\| accuracy \| ([\d.]+) \|", card)[1])
    assert shown == round(accuracy_score(y, model.predict(X)), 3)
    rows = dict(re.findall(r"^\| +(\w+) +\| +(\S+) +\|$", card, re.MULTILINE))
    parameters = {name: str(value) for name, value in model.get_params().items()}
    assert {name: rows[name] for name in parameters} == parameters
    for picture in re.findall(r"!\[\w+\]\(([^)]+)\)", card):
        assert (folder / picture).stat().st_size > 5_000
    (folder / "use.py").write_text(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1])
    assert str(model.classes_) in run("use.py", folder, "-W", "error")


@pytest.mark.slow
def test_mlflow_has_the_search_its_curves_and_its_model(tmp_path):
    pytest.importorskip("mlflow")
    import skops.io

    # Warnings of mlflow are its own.
    out = run(EXAMPLES / "log_with_mlflow.py", tmp_path)
    assert "candidates: 3\nthe registered model predicts the same\n" in out
    assert "epochs of the curve: 10" in out
    # Written by skops, not by pickle.
    (path,) = tmp_path.glob("mlruns/**/model.skops")
    model = skops.io.load(path, trusted=sk_resnet.trusted_types())
    best = float(re.search(r"best l2: ([\d.]+)", out)[1])
    assert model[-1].l2 == best
