import numpy as np
import pandas as pd
import pytest
from joblib import Parallel, delayed, parallel_config
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

import sk_resnet._fused as fused
import sk_resnet._path as path_module
from sk_resnet import (
    EarlyStopping,
    ResNetClassifier,
    ResNetRegressor,
    WideResNetClassifier,
    WideResNetRegressor,
    regularization_path,
)

ROWS = {"depth": 4, "max_epochs": 5, "batch_size": 16, "random_state": 0}
ROWS |= {"n_estimators": 1}
L1S = [0.03, 1e-4, 3e-3]


@pytest.mark.parametrize("direction", ["increasing", "decreasing"])
def test_zeros_grow_and_bytes_shrink_along_the_path(rows, direction):
    X, y = rows
    model = ResNetClassifier(**ROWS)
    path = regularization_path(model, X, y, L1S, direction=direction)
    step = 1 if direction == "increasing" else -1
    np.testing.assert_allclose(path.l1s[::step], sorted(L1S))
    assert (np.diff(path.sparsities[::step]) > 0).all()
    assert (np.diff(path.n_bytes[::step]) <= 0).all()
    assert path.n_bytes.min() < 0.5 * path.n_bytes.max()
    assert [m.n_epochs_ for m in path.estimators] == [5, 10, 15]  # each goes on
    assert model.l1 == 0
    assert not hasattr(model, "net_")


def test_scores_are_those_of_the_validation_set(rows):
    X, y = rows
    path = regularization_path(
        ResNetClassifier(**ROWS), X[:40], y[:40], L1S, X_val=X[40:], y_val=y[40:]
    )
    expected = [model.score(X[40:], y[40:]) for model in path.estimators]
    np.testing.assert_array_equal(path.scores, expected)
    assert not any(model.warm_start for model in path.estimators)


@pytest.mark.parametrize(
    "estimator",
    [ResNetClassifier, WideResNetClassifier, ResNetRegressor, WideResNetRegressor],
)
def test_all_estimators_have_paths(rows, estimator):
    X, y = rows
    model = estimator(**ROWS, lr=0.01)
    path = regularization_path(model, X, y, L1S, X_val=X[40:], y_val=y[40:])
    expected = [fitted.score(X[40:], y[40:]) for fitted in path.estimators]
    np.testing.assert_array_equal(path.scores, expected)
    assert (np.diff(path.sparsities) > 0).all()
    assert path.scores[0] > 0.3


@pytest.mark.parametrize("kind", ["all different", "several numbers", "labels", "sparse"])
def test_what_is_held_out_is_stratified_for_single_labels_only(rows, kind):
    X, _ = rows
    y = X[:, :2] if kind == "several numbers" else X[:, 0]
    if kind in ("labels", "sparse"):
        y = (X > 1).astype(int)  # of sets that appear once
        y = csr_array(y) if kind == "sparse" else y
    estimator = ResNetRegressor if kind in ("all different", "several numbers") else None
    model = (estimator or ResNetClassifier)(**ROWS, lr=0.01)
    weight = np.ones(60)
    path = regularization_path(model, X, y, L1S[:1], sample_weight=weight)
    assert path.scores.shape == (1,)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        regularization_path(model, X[:-1], y, L1S)


def test_rare_classes_are_in_both_parts_of_what_is_held_out(rows):
    X, _ = rows
    y = np.repeat([0, 1], [55, 5])
    y_val = []

    class Spy(ResNetClassifier):
        def score(self, X, y, sample_weight=None):
            y_val.append(y)
            return super().score(X, y, sample_weight)

    for seed in range(5):
        model = Spy(**{**ROWS, "random_state": seed, "max_epochs": 1})
        regularization_path(model, X, y, [0.0])
    assert [part.sum() for part in y_val] == [1] * 5


def test_what_is_held_out_of_a_table_is_a_table(rows):
    X, y = rows
    X, y = pd.DataFrame(X).add_prefix("c"), pd.Series(y, index=np.arange(len(y)) + 7)
    path = regularization_path(ResNetClassifier(**ROWS), X, y, iter(L1S[:1]))
    assert list(path.estimators[0].feature_names_in_) == list(X.columns)
    expected = regularization_path(ResNetClassifier(**ROWS), *rows, L1S[:1])
    np.testing.assert_array_equal(path.scores, expected.scores)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        regularization_path(ResNetClassifier(**ROWS), X, y[:-1], L1S)


STOPS = [EarlyStopping(patience=1)]
AT_ONCE = {"X_val": [[0.0] * 5, [1.0] * 5], "y_val": [0, 1], "warm_start": False}


@pytest.fixture
def groups(monkeypatch):
    """Sizes of the groups that trained together."""
    found, groups_of = [], fused.groups_of

    def noted(trainings, n_processors):
        groups = groups_of(trainings, n_processors)
        found.extend(len(group) for group in groups)
        return groups

    monkeypatch.setattr(fused, "groups_of", noted)
    return found


@pytest.mark.parametrize(
    ("estimator", "changes", "sizes"),
    [
        (ResNetClassifier, {}, [3]),
        (ResNetClassifier, {"n_estimators": 2}, [6]),
        (ResNetClassifier, {"finetune_epochs": 2, "l1_structure": "channel"}, [3, 3]),
        (ResNetClassifier, {"optimizer": "heavy_ball", "dropout": 0.2}, [3]),
        (ResNetClassifier, {"callbacks": STOPS, "calibrate": False}, [3]),
        (ResNetRegressor, {}, [3]),
        (WideResNetRegressor, {"l2": 0.01}, [3]),
    ],
)
@pytest.mark.parametrize("direction", ["increasing", "decreasing"])
def test_a_path_at_once_is_that_of_single_fits(
    rows, groups, estimator, changes, sizes, direction
):
    X, y = rows
    model = estimator(**{**ROWS, "max_epochs": 3, **changes}, lr=0.01)
    weight = np.linspace(0.5, 1.5, len(y))
    given = {"direction": direction, "sample_weight": weight, **AT_ONCE}
    path = regularization_path(model, X, y, L1S, **given)
    assert groups == sizes
    np.testing.assert_array_equal(path.l1s, sorted(L1S)[:: 1 - 2 * (direction[0] == "d")])
    for l1, fitted in zip(path.l1s, path.estimators, strict=True):
        alone = clone(model).set_params(l1=l1).fit(X, y, sample_weight=weight)
        assert fitted.get_params()["l1"] == l1
        assert fitted.n_epochs_ == alone.n_epochs_
        expected = alone.module_.state_dict()
        for name, w in fitted.module_.state_dict().items():
            np.testing.assert_allclose(w, expected[name], atol=1e-5, rtol=0)
        assert fitted.sparsity_ == pytest.approx(alone.sparsity_, abs=1e-3)


def test_an_error_of_one_strength_ends_a_path_at_once(rows):
    model = ResNetRegressor(**ROWS, lr=1e30)
    with pytest.raises(ValueError, match="became"):
        regularization_path(model, rows[0], rows[0][:, 0], L1S, **AT_ONCE)


def test_a_path_at_once_within_a_task_does_not_wait(rows):
    model = ResNetClassifier(**ROWS)
    given = (model, *rows, L1S)
    with parallel_config("fused", n_jobs=3):
        paths = Parallel()(
            delayed(regularization_path)(*given, **AT_ONCE) for _ in range(3)
        )
    for path in paths:
        np.testing.assert_array_equal(path.sparsities, paths[0].sparsities)


def test_processes_of_one_network_fit_in_turn(rows, groups, monkeypatch):
    monkeypatch.setattr(path_module, "rank_and_size", lambda: (0, 2))
    model = ResNetClassifier(**ROWS)
    path = regularization_path(model, *rows, L1S, **AT_ONCE)
    assert groups == []
    assert [m.n_epochs_ for m in path.estimators] == [5] * 3


@pytest.mark.parametrize(
    ("l1s", "changes", "error", "match"),
    [
        ([], {}, ValueError, "at least one strength, got none"),
        ([0.1, -1], {}, ValueError, r"at least 0, got \[-1.0, 0.1\]"),
        (["a"], {}, TypeError, r"l1s must be a sequence of numbers, got \['a'\]"),
        (None, {}, TypeError, "l1s must be a sequence of numbers, got None"),
        (0.1, {}, TypeError, "l1s must be a sequence of numbers, got 0.1"),
        (L1S, {"sample_weight": [1.0]}, ValueError, "inconsistent numbers of samples"),
        ([np.nan], {}, ValueError, "finite"),
        (L1S, {"direction": "up"}, ValueError, "direction must be .* got 'up'"),
        (L1S, {"X_val": [[1.0] * 5]}, ValueError, "must be given together"),
    ],
)
def test_bad_paths(rows, l1s, changes, error, match):
    with pytest.raises(error, match=match):
        regularization_path(ResNetClassifier(**ROWS), *rows, l1s, **changes)


def test_pipelines_are_refused(rows):
    with pytest.raises(TypeError, match="got Pipeline: take it out of its pipeline"):
        regularization_path(make_pipeline(ResNetClassifier(**ROWS)), *rows, L1S)


@pytest.mark.parametrize("warm_start", [True, False])
def test_strengths_do_not_share_the_file_of_a_checkpoint(warm_start, tmp_path):
    X, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    model = ResNetClassifier(4, n_estimators=1, max_epochs=1, random_state=0)
    model.set_params(checkpoint=tmp_path / "file")
    with pytest.raises(
        ValueError, match="checkpoint must be a folder, where each strength"
    ):
        regularization_path(model, X, y, [0.0, 1e-3], warm_start=warm_start)
    model.set_params(checkpoint=tmp_path)
    regularization_path(model, X, y, [0.0, 1e-3], warm_start=warm_start)
    assert len(list(tmp_path.iterdir())) == 2
