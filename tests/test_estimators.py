"""The kinds of y through whole fits, and what the four classes share."""

import inspect
import re
from dataclasses import asdict
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import make_friedman1, make_multilabel_classification
from sklearn.linear_model import Ridge
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EarlyStopping as EarlyStoppingOfSkorch
from skorch.callbacks import LRScheduler

import sk_resnet
from sk_resnet import (
    EarlyStopping,
    ResNetClassifier,
    ResNetRegressor,
    WideResNetClassifier,
    WideResNetRegressor,
    inspection,
)
from sk_resnet._spec import FAMILIES
from sk_resnet.inspection import diagnose
from sk_resnet.search import PruningCallback

TINY = {"depth": 4, "width": 0.5, "batch_size": 16, "max_epochs": 4, "random_state": 0}
TINY |= {"n_estimators": 1}
CLASSIFIERS = [ResNetClassifier, WideResNetClassifier]
REGRESSORS = [ResNetRegressor, WideResNetRegressor]
ALL = [*CLASSIFIERS, *REGRESSORS]


@pytest.fixture(scope="module")
def numbers():
    X, y = make_friedman1(n_samples=120, n_features=6, random_state=0)
    return X, np.column_stack([y, 100 - 3 * y])


@pytest.fixture(scope="module")
def label_sets():
    return make_multilabel_classification(
        n_samples=150, n_features=8, n_classes=4, random_state=0
    )


# Numbers


@pytest.mark.parametrize("kind", REGRESSORS)
def test_regressors_learn_better_than_a_line(kind, numbers):
    X, y = numbers
    model = kind(depth=8, width=1, max_epochs=60, random_state=0)
    found = cross_val_score(model, X, y[:, 0], cv=3).mean()
    assert found > cross_val_score(Ridge(), X, y[:, 0], cv=3).mean()


@pytest.mark.parametrize("kind", REGRESSORS)
def test_predictions_have_the_shape_and_units_of_y(kind, numbers):
    X, y = numbers
    for given in (y, y[:, :1], y[:, 0], y[:, 0].astype(np.float16)):
        model = kind(**{**TINY, "max_epochs": 20}).fit(X, given)
        predicted = model.predict(X)
        assert predicted.shape == given.shape
        assert predicted.dtype == np.float64
        assert model.score(X, given) > 0.5


def test_shift_and_scale_of_y_change_nothing_but_units(numbers):
    X, y = numbers
    one = ResNetRegressor(**TINY).fit(X, y[:, 0]).predict(X)
    other = ResNetRegressor(**TINY).fit(X, 1e6 + 1e-3 * y[:, 0]).predict(X)
    np.testing.assert_allclose((other - 1e6) * 1e3, one, atol=2e-2)


def test_history_of_regressors_has_the_score_of_scikit_learn(numbers):
    X, y = numbers
    model = ResNetRegressor(**TINY).fit(X[:80], y[:80], X_val=X[80:], y_val=y[80:])
    last = model.history_[-1]
    assert {"train_r2", "valid_r2", "train_loss", "valid_loss"} <= set(last)
    np.testing.assert_allclose(last["valid_r2"], model.score(X[80:], y[80:]), rtol=1e-4)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_quantiles_have_their_share_of_samples_below(quantile):
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(600, 1))
    y = X[:, 0] + rng.exponential(size=600)
    model = ResNetRegressor(4, loss="quantile", quantile=quantile, random_state=0)
    below = y < model.fit(X, y).predict(X)
    assert abs(below.mean() - quantile) < 0.06


def test_outliers_move_the_square_and_not_the_others():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(300, 1))
    truth = X[:, 0]
    y = truth + np.where(rng.random(300) < 0.05, 50, 0)
    errors = {}
    for loss in ("squared_error", "absolute_error", "huber"):
        model = ResNetRegressor(4, loss=loss, random_state=0).fit(X, y)
        errors[loss] = np.abs(model.predict(X) - truth).mean()
    assert errors["absolute_error"] < errors["squared_error"] / 3
    assert errors["huber"] < errors["squared_error"]


def test_weights_of_regressors_count(numbers):
    X, _ = numbers
    y = np.arange(120) % 2 * 1.0  # nothing of it is in X
    weight = np.where(y == 1, 3.0, 1.0)
    model = ResNetRegressor(4, max_epochs=5, lr=0.01, random_state=0)
    means = [
        clone(model).fit(X, y, sample_weight=w).predict(X).mean() for w in (weight, None)
    ]
    assert abs(means[0] - 0.75) < 0.08
    assert abs(means[1] - 0.5) < 0.08
    assert not np.allclose(
        clone(model).fit(X, y, sample_weight=weight).predict(X),
        clone(model).fit(X, y).predict(X),
    )


def test_mixup_mixes_numbers():
    rng = np.random.default_rng(0)
    X = rng.choice([-1.0, 1.0], size=(200, 1))
    y = 5 * X[:, 0]
    settings = {**TINY, "max_epochs": 30, "lr": 0.02}
    mixed = ResNetRegressor(**settings, augment="mixup").fit(X, y)
    plain = ResNetRegressor(**settings).fit(X, y)
    between = np.linspace(-0.8, 0.8, 9)[:, None]  # where only mixed samples are
    errors = [np.abs(m.predict(between) - 5 * between[:, 0]).mean() for m in (mixed, plain)]
    assert errors[0] < 0.5
    assert errors[0] < errors[1]


def test_partial_fit_of_regressors_goes_on(numbers):
    X, y = numbers
    model = ResNetRegressor(**TINY, lr=0.01)
    scores = [model.partial_fit(X, y).score(X, y) for _ in range(15)]
    assert model.n_epochs_ == 15
    assert scores[-1] > max(scores[0], 0.5)
    with pytest.raises(ValueError, match="y has 1 numbers a sample, .* fitted on 2"):
        model.partial_fit(X, y[:, 0])


@pytest.mark.parametrize("kind", REGRESSORS)
def test_regressors_stop_early_cut_and_embed(kind, numbers, tmp_path):
    X, y = numbers
    stop = EarlyStopping("valid_r2", patience=3)
    settings = {**TINY, "block": (3, 3), "l1": 3e-2, "l1_structure": "channel"}
    model = kind(**{**settings, "max_epochs": 30}, callbacks=[stop]).fit(X, y)
    scores = [row["valid_r2"] for row in model.history_]
    assert model.best_epoch_ == 1 + int(np.argmax(scores))
    small = model.compact()
    np.testing.assert_allclose(small.predict(X), model.predict(X), rtol=1e-3, atol=1e-3)
    assert small.n_parameters_ <= model.n_parameters_
    outputs = model.embed(X) @ model.module_.classifier.weight.detach().numpy().T
    outputs += model.module_.classifier.bias.detach().numpy()
    expected = outputs * y_scale(model) + model.net_.target.mean
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-3, atol=1e-3)
    joblib.dump(model, tmp_path / "model")
    sk_resnet.save(model, tmp_path / "model.skr")
    for again in (joblib.load(tmp_path / "model"), sk_resnet.load(tmp_path / "model.skr")):
        np.testing.assert_array_equal(again.predict(X), model.predict(X))
        again.partial_fit(X, y)


def y_scale(model):
    return model.net_.target.scale


def test_images_have_numbers_too(images):
    X, y = images
    model = ResNetRegressor(8, width=0.5, max_epochs=20, channel_axis=1, random_state=0)
    assert model.fit(X, y.astype(float)).score(X, y) > 0.8


@pytest.mark.parametrize(
    ("y", "error"),
    [
        (np.full(120, np.nan), "NaN"),
        (np.array(["a"] * 120), "must hold numbers"),
        (np.zeros((120, 2, 2)), "n_samples, n_outputs|dim"),
        (np.linspace(-1, 1, 120) * 1e200, "too large"),
    ],
)
def test_y_that_no_regressor_takes(numbers, y, error):
    with pytest.raises(ValueError, match=error):
        ResNetRegressor(**TINY).fit(numbers[0], y)


# Sets of labels


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_indicators_come_back_as_indicators(kind, form, label_sets):
    X, y = label_sets
    model = kind(**TINY).fit(X, form(y))
    reference = MLPClassifier(solver="lbfgs", alpha=1.0, max_iter=5000, random_state=0)
    reference.fit(StandardScaler().fit_transform(X), sparse.csr_matrix(y))
    predicted = model.predict(X)
    assert sparse.issparse(predicted) == (form is not np.asarray)
    predicted = predicted.toarray() if sparse.issparse(predicted) else predicted
    assert set(np.unique(predicted)) <= {0, 1}
    np.testing.assert_array_equal(model.classes_, reference.classes_)
    p = model.predict_proba(X)
    assert p.shape == reference.predict_proba(X).shape
    np.testing.assert_array_equal(predicted, p > 0.5)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), p)
    assert model.score(X, form(y)) == (predicted == y).all(axis=1).mean()


def test_multilabel_is_as_good_as_scikit_learns_network(label_sets):
    X, y = label_sets
    ours = ResNetClassifier(depth=8, max_epochs=40, random_state=0)
    mlp = make_pipeline(StandardScaler(), MLPClassifier(max_iter=2000, random_state=0))
    f1_samples = make_scorer(f1_score, average="samples", zero_division=0.0)
    scores = [
        cross_val_score(m, X, y, cv=3, scoring=f1_samples).mean() for m in (ours, mlp)
    ]
    assert scores[0] > scores[1] - 0.03


def test_class_weights_of_label_sets_raise_recall(label_sets):
    X, y = label_sets
    rare = np.argmin(y.mean(axis=0))
    plain = ResNetClassifier(**TINY).fit(X, y).predict_proba(X)[:, rare].mean()
    for weight in ({int(rare): 10.0}, "balanced"):
        model = ResNetClassifier(**TINY, class_weight=weight).fit(X, y)
        assert model.predict_proba(X)[:, rare].mean() > plain + 0.02


def test_label_sets_take_part_in_everything(label_sets, tmp_path):
    X, y = label_sets
    model = ResNetClassifier(
        **TINY, augment="mixup", label_smoothing=0.1, callbacks=[EarlyStopping()]
    ).fit(X, y, sample_weight=np.arange(150))
    assert "valid_accuracy" in model.history_[-1]
    assert f1_score(y, model.predict(X), average="samples", zero_division=0) > 0.3
    sk_resnet.save(model, tmp_path / "model.skr")
    again = sk_resnet.load(tmp_path / "model.skr")
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    again.partial_fit(X, y)
    with pytest.raises(ValueError, match="one label a sample or a multilabel"):
        again.partial_fit(X, y[:, 0])
    with pytest.raises(ValueError, match="y has 3 columns|not in classes"):
        again.partial_fit(X, y[:, :3])


def test_label_sets_to_validate_on_have_the_same_columns(label_sets):
    X, y = label_sets
    for wrong in (y[:, :3], y[:, 0]):
        with pytest.raises(ValueError, match=r"y_val must have the layout of y .* 4\)"):
            ResNetClassifier(**TINY).fit(X, y, X_val=X, y_val=wrong)


def test_numbers_far_from_those_of_the_first_call_are_a_warning(rows):
    X, _ = rows
    near, far = np.linspace(0, 500, 60), np.linspace(0, 5000, 60)
    settings = {**TINY, "lr": 1e-9, "warm_start": True}
    model = ResNetRegressor(**settings).partial_fit(X, np.full(60, 7.0))
    model.partial_fit(X, near)  # no warning
    match = r"4993 standard deviations .* of the first fit \(1 where that y was constant\)"
    for train_on in (model.partial_fit, model.fit):
        with pytest.warns(UserWarning, match=match):
            train_on(X, far)
    ResNetRegressor(**settings).partial_fit(X, near).partial_fit(X, far)


@pytest.mark.parametrize("kind", REGRESSORS)
def test_numbers_to_validate_on_have_the_same_columns(kind, numbers):
    X, y = numbers
    one, two = y[:, 0], y[:, :2]
    model = kind(**TINY).fit(X, one)
    for use in (
        lambda: kind(**TINY).fit(X, one, X_val=X, y_val=two),
        lambda: model.set_params(warm_start=True).fit(X, one, X_val=X, y_val=two),
        lambda: diagnose(model, X, one, X, two),
    ):
        with pytest.raises(ValueError, match="y_val has 2 numbers a sample") as found:
            use()
        assert "warm_start" not in str(found.value)
    match = r"\by has 2 numbers .* new estimator, or call fit with warm_start=False"
    for use in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=match):
            use(X, two)


def test_diagnosed_y_is_named_as_the_user_names_it(rows):
    X, y = rows
    model = ResNetClassifier(**TINY).fit(X, y)
    for name, one, other in (("y", y + 7, y), ("y_val", y, y + 7)):
        with pytest.raises(ValueError, match=rf"^{name} has classes .* that are not in y"):
            diagnose(model, X, one, X, other)


def test_partial_fit_of_label_sets_needs_no_classes(label_sets):
    X, y = label_sets
    model = ResNetClassifier(**TINY).partial_fit(X, y)
    assert model.partial_fit(X, y).predict(X).shape == y.shape
    with pytest.raises(ValueError, match="classes of multilabel y are its columns"):
        ResNetClassifier(**TINY).partial_fit(X, y, classes=[1, 2, 3, 4])


def test_columns_of_classes_are_refused(label_sets):
    X, y = label_sets
    with pytest.raises(ValueError, match="must be a multilabel indicator of 0 and 1"):
        ResNetClassifier(**TINY).fit(X, 2 * y)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix, sparse.coo_array])
@pytest.mark.parametrize("values", [(-1, 1), (0, 2), (0, 1, 3)])
def test_only_indicators_are_sets_of_labels(make, values):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 4)), rng.choice(values, size=(30, 3))
    right = rng.integers(2, size=(30, 3))
    model = ResNetClassifier(4, n_estimators=1, max_epochs=1, random_state=0)
    for fit in (
        lambda: model.fit(X, make(y)),
        lambda: model.partial_fit(X, make(y)),
        lambda: model.fit(X, make(right), X_val=X, y_val=make(y)),
    ):
        with pytest.raises(
            ValueError, match="must be a multilabel indicator of 0 and 1, got"
        ):
            fit()
        assert not hasattr(model, "net_")


def test_what_stands_twice_at_a_place_of_sparse_y_is_added_up():
    rows, columns = np.array([0, 1, 2, 2, *range(3, 30)]), np.array([0, 1, 2, 2, *[0] * 27])
    starts = np.searchsorted(rows, np.arange(31))
    X = np.random.default_rng(0).normal(size=(30, 4))
    for twice in (
        sparse.coo_array((np.ones(31), (rows, columns)), shape=(30, 3)),
        sparse.csr_array((np.ones(31), columns, starts), shape=(30, 3)),
    ):
        model = ResNetClassifier(4, n_estimators=1, max_epochs=1, random_state=0)
        with pytest.raises(ValueError, match="got values such as 2.0"):
            model.fit(X, twice)
        assert twice.nnz == 31  # that of the caller


# What the classes share


def test_auto_is_what_the_family_says(numbers):
    X, y = numbers
    for kind in REGRESSORS:
        settings = {"max_epochs": 2, "random_state": 0}
        own = asdict(FAMILIES[kind._family].rows)
        own["l2"] = min(own["l2"], own.pop("l2_in_all") / len(X))
        own["lr"] = 0.1 * own.pop("lr_factor")
        auto, explicit = kind(**settings).fit(X, y), kind(**settings, **own).fit(X, y)
        assert auto.module_.spec == explicit.module_.spec
        assert (auto.predict(X) == explicit.predict(X)).all()


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        (ResNetClassifier, (0.1, 0.1, 0.2, 0.2)),
        (WideResNetClassifier, (0.1, 0.1, 0.1, 0.1)),
        (ResNetRegressor, (0.05, 0.05, 0.05, 0.05)),
        (WideResNetRegressor, (0.03, 0.03, 0.03, 0.03)),
    ],
)
def test_the_rate_of_auto_depends_on_the_kind_of_samples(kind, rates):
    rng, y = np.random.default_rng(0), np.arange(8) % 2
    model = kind(10, width=0.25, n_estimators=1, max_epochs=1, schedule="constant")
    for n_dims, rate in enumerate(rates):
        X = rng.normal(size=(8, *((5,) if n_dims == 0 else (1, *[6] * n_dims))))
        depth = 8 if "Wide" not in kind.__name__ else 10
        model.set_params(depth=depth).fit(X, y)
        assert model.history_[0]["lr"] == pytest.approx(rate)


def test_many_samples_need_a_weaker_penalty_each():
    rows = FAMILIES["resnet_of_numbers"].rows
    assert [rows.l2_for(n) for n in (10, 200, 600, 6000)] == [0.3, 0.3, 0.1, 0.01]
    rows = FAMILIES["resnet"].rows
    assert [rows.l2_for(n) for n in (10, 1200, 6000)] == [0.05, 0.05, 0.01]
    assert FAMILIES["resnet"].images.l2_for(10**6) == 5e-4


def test_classes_of_one_signature_have_one_init():
    for pair in (CLASSIFIERS, REGRESSORS):
        assert pair[0].__init__ is pair[1].__init__
    one, other = (inspect.signature(k).parameters for k in (ALL[0], ALL[2]))
    own = {"label_smoothing", "class_weight", "calibrate"}, {"loss", "quantile"}
    assert set(one) - own[0] == set(other) - own[1]
    shared = {name: p.default for name, p in one.items() if name not in own[0]}
    assert shared == {n: p.default for n, p in other.items() if n not in own[1]}


def section(thing, name):
    """Text of a section of a docstring."""
    text = inspect.getdoc(thing).split(f"{name}\n{'-' * len(name)}\n")[1]
    return re.split(r"\n\n[A-Z][\w ]+\n---", text)[0]


def described(thing, name="Parameters"):
    return dict(re.findall(r"(?m)^(\w+) :(.*(?:\n .*)*)", section(thing, name)))


# What the text of a parameter may differ in: by family, and by the kind of y.
OF_FAMILY = {"depth", "width", "block", "order", "layout", "n_estimators", "l2", "lr"}
OF_TARGET = {"label_smoothing", "class_weight", "calibrate", "loss", "quantile"}
OF_TARGET |= {"validation_split"}


def test_text_that_is_repeated_stays_equal():
    texts = [described(kind) for kind in ALL]
    for kind, text in zip(ALL, texts, strict=True):
        assert list(text) == list(inspect.signature(kind).parameters)
    for name in set(texts[0]) & set(texts[2]):
        found = {text[name] for text in texts}
        if name in OF_FAMILY:
            assert len(found) > 1
            if name in ("width", "block", "layout"):
                assert texts[0][name] == texts[2][name]
                assert texts[1][name] == texts[3][name]
        elif name in OF_TARGET:
            assert texts[0][name] == texts[1][name]
            assert texts[2][name] == texts[3][name]
        else:
            assert len(found) == 1, name
    attributes = [described(kind, "Attributes") for kind in ALL]
    for name in set(attributes[0]) & set(attributes[2]):
        found = [text[name] for text in attributes]
        if name == "history_":
            assert found[0] == found[1] != found[2] == found[3]
        else:
            assert len(set(found)) == 1, name
    references = [
        set(re.split(r"\.\. \[\d\] ", section(kind, "References"))) for kind in ALL
    ]
    assert references[0] == references[1]
    assert references[2] == references[3]
    one, other = (inspect.getdoc(kind.partial_fit) for kind in (ALL[0], ALL[2]))
    neither = [
        re.search(r"Neither .*?\n\n", text, re.S).group().split() for text in (one, other)
    ]
    assert neither[0] == neither[1]


DISPLAYS = [getattr(inspection, n) for n in inspection.__all__ if n.endswith("Display")]
# Whose axes are as many as the network has stages, or as samples are drawn.
OF_MANY_AXES = {inspection.WeightDisplay, inspection.AttributionDisplay}


def test_text_that_displays_repeat_stays_equal():
    figures = {described(kind, "Attributes")["figure_"] for kind in DISPLAYS}
    axes, estimators = set(), set()
    for kind in DISPLAYS:
        makers = [
            kind.from_estimator,
            *([kind.from_path] if hasattr(kind, "from_path") else []),
        ]
        for method, what in [(kind.plot, "Itself."), *((m, "Drawn.") for m in makers)]:
            assert section(method, "Returns") == f"{kind.__name__}\n    {what}"
            text = described(method)["ax"]
            axes |= set() if kind in OF_MANY_AXES else {re.sub(r"array of \d ", "", text)}
        estimators.add(described(kind.from_estimator)["estimator"].partition("\n")[0])
    assert len(figures) == len(axes) == len(estimators) == 1


def test_text_that_callbacks_repeat_stays_equal():
    net = SimpleNamespace(history=[{"epoch": 1, "train_loss": 1.0}])
    errors = set()
    for kind, callback in (
        (EarlyStopping, EarlyStopping("no column")),
        (PruningCallback, PruningCallback(None, "no column")),
    ):
        with pytest.raises(ValueError, match="which is not recorded") as found:
            callback.on_epoch_end(net)
        errors.add(str(found.value).removeprefix(kind.__name__))
        assert re.search(
            r"default=.*\n +Column of ``history_``", described(kind)["monitor"]
        )
    assert len(errors) == 1


@pytest.mark.parametrize("kind", ALL)
def test_the_network_is_handed_out_for_evaluation(kind, rows):
    X, y = rows
    model = kind(**TINY).fit(X, y)
    for again in (model, clone(model).fit(X, y), model.compact()):
        assert not again.module_.training
        x = torch.from_numpy(again.network_input(X))
        before = again.predict(X)
        with torch.no_grad():
            outputs = again.module_(x).numpy()
        np.testing.assert_array_equal(again.predict(X), before)
        expected = again.net_.target.decode(outputs)
        np.testing.assert_allclose(before, expected, rtol=1e-4, atol=1e-5)


# Callbacks


def test_parameters_of_named_callbacks_are_searched(rows):
    X, y = rows
    stop = EarlyStopping(patience=2)
    model = ResNetClassifier(**TINY, callbacks=[("stop", stop)])
    assert model.get_params()["callbacks__stop__patience"] == 2
    search = GridSearchCV(model, {"callbacks__stop__patience": [1, 50]}, cv=2).fit(X, y)
    assert stop.patience == 2
    found = search.best_estimator_.net_.callbacks_[0][1].patience
    assert found == search.best_params_["callbacks__stop__patience"]
    model.set_params(callbacks__stop=EarlyStopping(patience=9))
    assert model.get_params()["callbacks__stop__patience"] == 9


def test_a_schedule_of_skorch_takes_the_place_of_ours(rows):
    X, y = rows
    halving = LRScheduler("StepLR", step_size=1, gamma=0.5)
    model = ResNetClassifier(**TINY, lr=0.08, callbacks=[halving]).fit(X, y)
    rates = [row["lr"] for row in model.history_]
    np.testing.assert_allclose(rates, [0.08, 0.04, 0.02, 0.01])


def test_the_best_epoch_is_the_one_that_the_network_holds(rows):
    X, y = rows
    y = np.random.default_rng(0).permutation(y)
    validation = {"X_val": X[40:], "y_val": y[40:]}
    ours = EarlyStopping(patience=99)
    other = EarlyStopping("train_loss", patience=99)
    of_skorch = EarlyStoppingOfSkorch(
        "valid_accuracy", lower_is_better=False, load_best=True, patience=99
    )
    settings = {**TINY, "max_epochs": 12, "lr": 0.3}
    for callbacks in ([], [ours], [of_skorch], [ours, other], [other, ours]):
        model = ResNetClassifier(**settings, callbacks=callbacks)
        model.fit(X[:40], y[:40], **validation)
        held = model.history_[model.best_epoch_ - 1]
        assert model.score(X[40:], y[40:]) == pytest.approx(held["valid_accuracy"])
    assert model.best_epoch_ < model.n_epochs_
