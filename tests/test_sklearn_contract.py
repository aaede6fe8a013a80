import pickle
import signal
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.callback import ProgressBar
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import (
    GridSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import estimator_html_repr
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback
from skrub import tabular_pipeline
from tqdm import tqdm

from sk_resnet import (
    EarlyStopping,
    ResNetClassifier,
    ResNetRegressor,
    WideResNetClassifier,
    WideResNetRegressor,
)

SAMPLE_WEIGHT = (
    "mini-batches and batch norm see a repeated sample and a weight of 2 differently, as "
    "in scikit-learn's own SGD estimators"
)
TINY = {"depth": 4, "max_epochs": 3, "batch_size": 16, "random_state": 0}
TINY |= {"n_estimators": 1}
TINY_IMAGES = {**TINY, "depth": 8}


@parametrize_with_checks(
    [
        ResNetClassifier(),
        WideResNetClassifier(),
        ResNetRegressor(),
        WideResNetRegressor(),
    ],
    expected_failed_checks=lambda estimator: {
        "check_sample_weight_equivalence_on_dense_data": SAMPLE_WEIGHT
    },
    xfail_strict=True,
)
def test_scikit_learn_check(estimator, check):
    check(estimator)


def test_weights_and_repetition_agree_on_average():
    """What stands in for the exact equivalence that mini-batches rule out.

    On pure noise the best prediction is the share of the class: 3/4 by weight, 1/2 by
    count.
    """
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 1)), np.arange(300) % 2
    weight = np.where(y == 0, 3, 1)
    repeated = np.repeat(np.arange(300), weight)
    means = []
    for seed in range(5):
        model = ResNetClassifier(depth=4, max_epochs=5, batch_size=32, lr=0.03)
        model.set_params(random_state=seed)
        weighted = clone(model).fit(X, y, sample_weight=weight)
        again = clone(model).fit(X[repeated], y[repeated])
        balanced = clone(model).set_params(class_weight={0: 3, 1: 1}).fit(X, y)
        unweighted = clone(model).fit(X, y)
        fits = weighted, again, balanced, unweighted
        means.append([fit.predict_proba(X)[:, 0].mean() for fit in fits])
    np.testing.assert_allclose(np.mean(means, axis=0), [0.75, 0.75, 0.75, 0.5], atol=0.05)


def test_grid_search_in_a_pipeline_with_two_workers_equals_one(rows):
    X, y = rows
    pipeline = make_pipeline(StandardScaler(), ResNetClassifier(**TINY))
    grid = {"resnetclassifier__depth": [4, 6], "resnetclassifier__l2": [0.0, 1e-2]}
    scores = [
        GridSearchCV(pipeline, grid, cv=2, n_jobs=n)
        .fit(X, y)
        .cv_results_["mean_test_score"]
        for n in (1, 2)
    ]
    np.testing.assert_array_equal(*scores)


def test_meta_estimators_work(rows):
    X, y = rows
    model = ResNetClassifier(**TINY)
    proba = cross_val_predict(model, X, y, cv=3, method="predict_proba")
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    calibrated = CalibratedClassifierCV(model, cv=2, ensemble=False).fit(X, y)
    assert calibrated.predict_proba(X).shape == (60, 3)


def test_clone_and_pickle_keep_the_parameters_and_callbacks(rows):
    X, y = rows
    model = ResNetClassifier(**TINY, callbacks=[EarlyStopping(patience=2)])
    assert clone(model).callbacks[0].patience == 2
    fitted = clone(model).fit(X, y)
    again = pickle.loads(pickle.dumps(fitted))
    assert again.callbacks[0].patience == 2
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


def state_of_generators():
    return np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002


@pytest.mark.parametrize("random_state", [0, None])
def test_a_fit_leaves_global_state_alone(images, random_state):
    X, y = images
    before = *state_of_generators(), torch.get_num_threads(), torch.get_default_dtype()
    settings = {**TINY_IMAGES, "random_state": random_state}
    model = ResNetClassifier(**settings, dropout=0.2, augment=["crop", "flip"])
    model.set_params(validation_split=0.2, callbacks=[EarlyStopping()])
    model.fit(X, y).predict(X)
    after = *state_of_generators(), torch.get_num_threads(), torch.get_default_dtype()
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one, other) if hasattr(one, "shape") else one == other


def probabilities(X, y):
    torch.set_num_threads(1)
    model = WideResNetClassifier(
        depth=10, width=1, max_epochs=2, dropout=0.3, random_state=0
    )
    return model.fit(X, y).predict_proba(X)


def test_one_random_state_gives_one_result_in_threads_and_in_workers(images):
    X, y = images
    expected = probabilities(X, y)
    np.testing.assert_array_equal(probabilities(X, y), expected)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: probabilities(X, y), range(4)):
            np.testing.assert_array_equal(result, expected)
    for result in joblib.Parallel(n_jobs=2)(
        joblib.delayed(probabilities)(X, y) for _ in range(2)
    ):
        np.testing.assert_array_equal(result, expected)


def test_another_random_state_gives_another_result(rows):
    X, y = rows
    one, other = (
        ResNetClassifier(**{**TINY, "random_state": seed}).fit(X, y).predict_proba(X)
        for seed in (0, 1)
    )
    assert not np.array_equal(one, other)


class StopAfter:
    """A callback of scikit-learn that asks to stop after some tasks."""

    def __init__(self, n):
        self.n, self.seen = n, []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None, X=None):
        self.seen.append((context.task_name, fitted_estimator))
        if fitted_estimator is not None:
            fitted_estimator.predict(X)
        return context.task_name == "epoch" and len(self.seen) == self.n


def test_callbacks_of_scikit_learn_see_and_stop_epochs(rows):
    X, y = rows
    callback = StopAfter(2)
    model = ResNetClassifier(**{**TINY, "max_epochs": 9}).set_callbacks(callback).fit(X, y)
    assert model.n_epochs_ == 2
    assert [name for name, _ in callback.seen] == ["epoch", "epoch", "fit"]
    first, last = (fitted for name, fitted in callback.seen if name == "epoch")
    assert not np.array_equal(first.predict_proba(X), last.predict_proba(X))
    np.testing.assert_array_equal(last.predict_proba(X), model.predict_proba(X))
    plain = ResNetClassifier(**{**TINY, "max_epochs": 9, "schedule": "constant"})
    watched = clone(plain).set_callbacks(StopAfter(99)).fit(X, y)
    np.testing.assert_array_equal(
        watched.predict_proba(X), clone(plain).fit(X, y).predict_proba(X)
    )


def test_the_progress_bar_of_scikit_learn_nests_under_a_search(rows, capsys):
    X, y = rows
    search = GridSearchCV(ResNetClassifier(**TINY), {"l2": [0.0, 0.1]}, cv=2)
    search.set_callbacks(ProgressBar()).fit(X, y)
    assert "ResNetClassifier" in capsys.readouterr().out


def test_the_html_repr_links_to_the_documentation():
    assert "sk_resnet.ResNetClassifier.html" in estimator_html_repr(ResNetClassifier())


def test_weights_arrive_by_metadata_routing(rows):
    X, y = rows
    weight = np.where(y == 0, 5.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        model = ResNetClassifier(**TINY).set_fit_request(sample_weight=True)
        model.set_score_request(sample_weight=True)
        scale = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scale, model).fit(X, y, sample_weight=weight)
        without = make_pipeline(scale, clone(model)).fit(X, y)
        cross_validate(pipeline, X, y, params={"sample_weight": weight}, cv=2)
    assert not np.array_equal(pipeline.predict_proba(X), without.predict_proba(X))


def test_the_validation_set_passes_through_a_pipeline(rows):
    X, y = rows
    with sklearn.config_context(enable_metadata_routing=True):
        model = ResNetClassifier(**TINY).set_fit_request(X_val=True, y_val=True)
        steps = [("scale", StandardScaler(with_mean=True)), ("net", model)]
        pipeline = Pipeline(steps, transform_input=["X_val"])
        pipeline.fit(X[:40] * 100, y[:40], X_val=X[40:] * 100, y_val=y[40:])
    history = pipeline.named_steps["net"].history_
    scaled = StandardScaler().fit(X[:40] * 100)
    direct = clone(model).fit(
        scaled.transform(X[:40] * 100),
        y[:40],
        X_val=scaled.transform(X[40:] * 100),
        y_val=y[40:],
    )
    assert history[-1]["valid_loss"] == direct.history_[-1]["valid_loss"]


@pytest.mark.parametrize(
    "table", [pd.DataFrame, lambda X, columns: pl.DataFrame(X, columns)]
)
def test_tables_keep_their_column_names(rows, table):
    X, y = rows
    frame = table(X, columns=list("abcde"))
    model = ResNetClassifier(**TINY).fit(frame, y)
    assert list(model.feature_names_in_) == list("abcde")
    assert model.n_features_in_ == 5
    expected = ResNetClassifier(**TINY).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(frame), expected)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("edcba")])
    with pytest.raises(ValueError, match="feature names"):
        model.predict(table(X, columns=list("vwxyz")))


@pytest.fixture
def ctrl_c_handler():
    """Python's own handler: a shell's background jobs start with Ctrl-C ignored."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, earlier)


@pytest.mark.usefixtures("ctrl_c_handler")
def test_ctrl_c_gets_out_of_cross_validation(rows):
    X, y = rows
    X, y = np.repeat(X, 50, axis=0), np.repeat(y, 50)
    model = ResNetClassifier(depth=20, max_epochs=2000, random_state=0)
    timer = threading.Timer(1.0, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        cross_val_score(model, X, y, cv=2)
    timer.join()


class CtrlCAtEpoch2(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            signal.raise_signal(signal.SIGINT)


class LostCtrlCAtEpoch2(Callback):
    """Python drops what is raised by the callback of a weak reference."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            target = Callback()
            weakref.finalize(target, signal.raise_signal, signal.SIGINT)
            del target


class StopAtEpoch2(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("callback", [CtrlCAtEpoch2, LostCtrlCAtEpoch2])
def test_ctrl_c_keeps_the_epochs_that_are_done(rows, callback, ctrl_c_handler):
    model = ResNetClassifier(**TINY).set_params(max_epochs=9, callbacks=[callback])
    with pytest.raises(KeyboardInterrupt):
        model.fit(*rows)
    assert model.n_epochs_ == 2
    assert signal.getsignal(signal.SIGINT) is ctrl_c_handler


def test_a_callback_stops_without_an_error(rows):
    model = ResNetClassifier(**TINY).set_params(max_epochs=9, callbacks=[StopAtEpoch2])
    assert model.fit(*rows).n_epochs_ == 2


class FailsAtEpoch2(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            raise RuntimeError("as asked")


# How a fit ends early, and the parameters that make it end so.
ENDS = {
    "error": (RuntimeError, {"callbacks": [FailsAtEpoch2]}),
    "Ctrl-C": (KeyboardInterrupt, {"callbacks": [CtrlCAtEpoch2]}),
    "divergence": (ValueError, {"lr": 1e20, "scale": None}),
    "bad parameter": (ValueError, {"callbacks": [EarlyStopping(patience=0)]}),
}
every_end = pytest.mark.parametrize(("error", "settings"), ENDS.values(), ids=ENDS)


@pytest.mark.usefixtures("ctrl_c_handler")
@every_end
def test_no_bar_of_verbose_stays_open(rows, error, settings):
    model = ResNetClassifier(**{**TINY, **settings}, verbose=1)
    with pytest.raises(error):
        model.fit(*rows)
    assert not list(tqdm._instances)


class Counts(StopAfter):
    """Counts the fits that it was set up for, and that it was told the end of."""

    def __init__(self):
        super().__init__(99)
        self.n_begun = self.n_ended = 0

    def setup(self, estimator, context):
        self.n_begun += 1

    def teardown(self, estimator, context):
        self.n_ended += 1


@pytest.mark.usefixtures("ctrl_c_handler")
@every_end
@pytest.mark.parametrize("fitted", [False, True])
def test_callbacks_of_scikit_learn_are_ended(rows, error, settings, fitted):
    model, callback = ResNetClassifier(**TINY), Counts()
    if fitted:
        model.fit(*rows)
    model.set_params(**settings).set_callbacks(callback)
    with pytest.raises(error):
        model.fit(*rows)
    assert callback.n_begun == callback.n_ended == 1
    assert {name for name in vars(model) if "callback" in name} == {
        "callbacks",
        "_skl_callbacks",
    }


def mixed_table(n=120):
    """Numbers, categories, dates and missing values; y is 1 where the size is above 0."""
    rng = np.random.default_rng(0)
    size = rng.normal(size=n)
    table = {
        "size": size,
        "colour": rng.choice(["red", "green", "blue"], n),
        "day": pd.date_range("2024-01-01", periods=n),
        "weight": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
        "same": np.ones(n),
    }
    return pd.DataFrame(table), (size > 0).astype(int)


@pytest.mark.filterwarnings("ignore:Found unknown categories")
@pytest.mark.parametrize("library", ["skrub", "scikit-learn"])
def test_mixed_tables_are_learned_in_a_pipeline(library):
    X, y = mixed_table()
    model = ResNetClassifier(4, max_epochs=20, n_estimators=2, random_state=0)
    if library == "skrub":
        pipeline = tabular_pipeline(model)
    else:
        encode = make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["colour"]),
            (SimpleImputer(add_indicator=True), ["size", "weight", "same"]),
        )
        pipeline = make_pipeline(encode, model)
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.8
    # Of categories that the fit did not see, and of other values that are missing.
    other = X.assign(colour="black", size=np.where(y, np.nan, X["size"]))
    assert pipeline.fit(X, y).predict_proba(other).shape == (120, 2)
