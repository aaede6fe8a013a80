import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_score

from sk_resnet import ResNetClassifier

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import results

    return results


@pytest.fixture
def tables(results):
    import tables

    return tables


ROW = {
    "table": "accuracy",
    "case": "iris",
    "arm": "ours",
    "measures": {"score": {"mean": 0.5, "spread": 0.25}, "epochs": 3},
    "seeds": [0, 1],
    "processor": "any",
    "torch": "2",
    "date": "2026-11-02",
    "command": "python run.py",
}


def table(tables, **columns):
    return tables.Table("accuracy", "accuracy", "set", columns)


def test_the_pages_have_the_tables_of_the_results():
    command = [sys.executable, str(BENCHMARKS / "tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pictures_are_those_of_the_results():
    command = [sys.executable, str(BENCHMARKS / "pictures.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_figure_that_was_changed_by_hand_is_found(tables, tmp_path, monkeypatch, capsys):
    for path in tables.PAGES.glob("*.rst"):
        (tmp_path / path.name).write_text(path.read_text())
    stale = tmp_path / "accuracy.rst"
    written = stale.read_text()
    stale.write_text(written.replace("0.958 ± 0.003", "0.999 ± 0.003"))
    monkeypatch.setattr(tables, "PAGES", tmp_path)
    monkeypatch.setattr(sys, "argv", ["tables.py", "--check"])
    with pytest.raises(SystemExit, match=r"^accuracy.rst of docs/benchmarks differs from"):
        tables.main()
    assert "-iris                   0.999 ± 0.003" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["tables.py"])
    tables.main()
    assert stale.read_text() == written


def test_a_table_without_comments_in_a_page_is_an_error(tables):
    pages = {path: path.read_text() for path in tables.PAGES.glob("*.rst")}
    pages = {k: page.replace(".. begin table growth\n", "") for k, page in pages.items()}
    with pytest.raises(SystemExit, match="once between its two comments"):
        tables.written(pages, tables.TABLES)


def test_every_column_has_a_figure(tables):
    for name, described in tables.TABLES.items():
        lines = tables.cells(described, tables.rows_of(described))
        for heading, *column in zip(
            described.columns, *(x[1:] for x in lines), strict=True
        ):
            assert not lines or any(column), (name, heading)


def test_cells_have_spreads_and_may_be_empty(tables):
    described = table(
        tables,
        score="{ours[score]:.2f}",
        epochs="{ours[epochs]:.1f}",
        other="{other[score]}",
    )
    assert tables.cells(described, [ROW]) == [["iris", "0.50 ± 0.25", "3", ""]]
    assert tables.cells(table(tables, other="{other[score]}"), [ROW]) == []


def test_a_new_row_takes_the_place_of_its_predecessor(results, tmp_path, monkeypatch):
    path = tmp_path / "new" / "results.json"
    monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / "speed" / "run.py")])
    scores = results.mean_of([0.25, 0.75])
    for arm, measures in (("a", {}), ("b", {}), ("a", {"score": scores, "epochs": 3})):
        results.record(path, "accuracy", "iris", arm, measures, seeds=range(2))
    first, second = results.read(path)
    assert (first["arm"], second["arm"]) == ("a", "b")
    assert first["measures"] == {"score": {"mean": 0.5, "spread": 0.25}, "epochs": 3}
    assert first["command"] == "python benchmarks/speed/run.py"
    assert set(first) == set(ROW)


def test_commands_name_no_files_of_the_machine(results):
    script = str(BENCHMARKS / "speed" / "run.py")
    arguments = [script, "--nets", "a", "--fashion", "/data/x", "--json=/tmp/y", "--cold"]
    shown = results.command(arguments)
    assert shown == "python benchmarks/speed/run.py --nets a --cold"


@pytest.mark.parametrize(
    "path", sorted(BENCHMARKS.glob("*/results.json")), ids=lambda path: path.parent.name
)
def test_rows_say_where_they_are_from(path, results):
    rows = json.loads(path.read_text())
    keys = [tuple(row[name] for name in results.KEY) for row in rows]
    assert len(set(keys)) == len(keys)
    for row in rows:
        assert set(ROW) <= set(row)
        assert "benchmarks/" in row["command"]


def test_regression_is_measured_and_recorded(results, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS / "accuracy")
    import regression

    path = tmp_path / "results.json"
    regression.table(["diabetes"], ["HistGradientBoostingRegressor", "Ridge"], 1, path)
    _, ridge, *ranks = results.read(path)
    R2, error = (ridge["measures"][name]["mean"] for name in ("R2", "RMSE"))
    assert 0.4 < R2 < 0.55
    y = load_diabetes(return_X_y=True)[1]
    assert error == pytest.approx(y.std() * (1 - R2) ** 0.5, rel=0.02)
    assert f"{R2:.3f} ± 0.000" in capsys.readouterr().out
    assert {row["table"] for row in ranks} == {"regression ranks"}
    assert [row["measures"]["RMSE"] for row in ranks] == [2, 1]


def test_penalties_of_images_are_measured_and_recorded(results, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS / "accuracy")
    monkeypatch.delitem(sys.modules, "run", raising=False)  # of another folder
    import images

    X, y = load_digits(n_class=3, return_X_y=True)
    X, y = X[:90].reshape(-1, 1, 8, 8), y[:90]
    folds = [(X[:60], y[:60], X[60:], y[60:])]
    small = {"max_epochs": 2, "depth": 8}
    monkeypatch.setattr(images, "splits", lambda *given: (folds, small))
    path = tmp_path / "results.json"
    given = ["images.py", "--only", "digits", "--arms", "l2 = 5e-4", "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", [*given, "--json", str(path)])
    images.main()
    (row,) = results.read(path)
    assert (row["table"], row["case"], row["arm"]) == ("images", "digits", "l2 = 5e-4")
    model = images.ResNetClassifier(random_state=0, l2=5e-4, lr=0.1, **small)
    model.fit(*folds[0][:2])
    expected = log_loss(y[60:], model.predict_proba(X[60:]))
    measures = {name: found["mean"] for name, found in row["measures"].items()}
    assert measures["log_loss"] == pytest.approx(expected, rel=1e-4)
    assert measures["accuracy"] == pytest.approx(model.score(X[60:], y[60:]), rel=1e-4)
    model.set_params(test_time_augmentation="flip")
    expected = log_loss(y[60:], model.predict_proba(X[60:]))
    assert measures["log_loss flip"] == pytest.approx(expected, rel=1e-4)


def test_layouts_of_series_are_measured_and_recorded(results, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS / "accuracy")
    monkeypatch.delitem(sys.modules, "run", raising=False)  # of another folder
    import series

    X = np.random.default_rng(0).normal(size=(40, 1, 12)).astype(np.float32)
    X, y = X + (np.arange(40) % 2)[:, None, None], np.arange(40) % 2
    monkeypatch.setattr(series.run, "series", lambda name: (X, y, None, None))
    small = {"max_epochs": 1, "width": 0.25, "n_estimators": 1}
    monkeypatch.setattr(series, "ARMS", {"default": small})
    path = tmp_path / "results.json"
    monkeypatch.setattr(
        sys, "argv", ["series.py", "--only", "GunPoint", "--json", str(path)]
    )
    series.main()
    (row,) = results.read(path)
    assert (row["table"], row["case"], row["arm"]) == ("series", "GunPoint", "default")
    model = ResNetClassifier(random_state=0, **small)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    for measure, scoring in (("accuracy", "accuracy"), ("log_loss", "neg_log_loss")):
        expected = abs(cross_val_score(model, X, y, cv=folds, scoring=scoring).mean())
        assert row["measures"][measure]["mean"] == pytest.approx(expected, rel=1e-4)


def test_tables_are_measured_recorded_and_ranked(results, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS / "accuracy")
    import tabular
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression

    models = {
        "dummy": lambda seed: DummyClassifier(),
        "logistic": lambda seed: LogisticRegression(max_iter=5000),
    }
    monkeypatch.setattr(tabular, "MODELS", models)
    path = tmp_path / "results.json"
    tabular.table(["iris"], list(models), 1, path)
    rows = results.read(path)
    dummy, logistic, of_dummy, of_logistic = (row["measures"] for row in rows)
    assert dummy["accuracy"]["mean"] == pytest.approx(1 / 3)
    assert dummy["log_loss"]["mean"] == pytest.approx(1.0986, abs=1e-4)
    assert logistic["accuracy"]["mean"] > 0.9
    ranks = {
        line[:8].strip(): line.split()[1:3] for line in capsys.readouterr().out.splitlines()
    }
    assert ranks["dummy"] == ["2.000", "2.000"]
    assert ranks["logistic"] == ["1.000", "1.000"]
    assert [row["table"] for row in rows[2:]] == ["tables ranks"] * 2
    assert of_dummy["accuracy"] == 2
    assert of_dummy["behind"] == "1 of 1"
    assert of_logistic["log_loss"] == 1
    assert of_logistic["mean_log_loss"] == pytest.approx(logistic["log_loss"]["mean"])
