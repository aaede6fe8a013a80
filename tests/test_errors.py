"""Every error says what must hold, what was got, and what to do."""

import copy
from datetime import date
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_score
from skorch.callbacks import Callback, PrintLog

import sk_resnet
from sk_resnet import EarlyStopping, ResNetClassifier, ResNetRegressor, _base
from sk_resnet.inspection import diagnose

ROWS = {"depth": 4, "max_epochs": 2, "batch_size": 16, "random_state": 0}
ROWS |= {"n_estimators": 1}


START_ANEW = "make a new estimator, or call fit with warm_start=False"


def fit(X, y, *, fit_params=None, **changes):
    return ResNetClassifier(**{**ROWS, **changes}).fit(X, y, **(fit_params or {}))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"depth": 5}, r"depth must be 2n\+2 .*got depth=5: use 4 or 6"),
        ({"depth": 0}, "'depth' parameter .* must be an int in the range"),
        ({"width": 0}, "'width' parameter"),
        ({"block": "wide"}, "'block' parameter .*'basic'"),
        ({"block": ()}, r"tuple of kernel sizes .* got \(\)"),
        ({"block": (3, -1)}, "tuple of kernel sizes"),
        ({"order": "none"}, "'order' parameter .*full_preactivation"),
        ({"shortcut": "identity"}, "'shortcut' parameter .*zero_pad"),
        ({"layout": "cifar"}, "'layout' parameter .*small"),
        ({"dropout": 1.0}, r"'dropout' parameter .*\[0.0, 1.0\)"),
        ({"l1": -1.0}, "'l1' parameter"),
        ({"l1": 1e300}, "'l1' parameter"),
        ({"lr": 1e300}, "'lr' parameter"),
        ({"l2": -1.0}, "'l2' parameter"),
        ({"label_smoothing": 1.0}, "'label_smoothing' parameter"),
        ({"optimizer": "adam"}, "'optimizer' parameter .*adamw"),
        ({"schedule": "linear"}, "'schedule' parameter .*cosine"),
        ({"lr": 0}, "'lr' parameter"),
        ({"precision": "half"}, "'precision' parameter .*bfloat16"),
        ({"augment": "mirror"}, "augment must name some of .*got .'mirror'"),
        ({"augment": "flip"}, "augment='flip' needs series or images or volumes, but"),
        ({"augment": "shift"}, "augment='shift' needs series, but the samples are rows"),
        ({"augment": [1]}, "augment must name some of"),
        (
            {"test_time_augmentation": "mixup"},
            r"test_time_augmentation must name some of \['c",
        ),
        (
            {"test_time_augmentation": ["crop"]},
            "test_time_augmentation='crop' needs images or volumes, but .* rows: use None",
        ),
        ({"stochastic_depth": 1.0}, "'stochastic_depth' parameter"),
        ({"stochastic_depth": 0.5, "shortcut": "none"}, "drops branches, which needs shor"),
        ({"l1_structure": "row"}, "'l1_structure' parameter .*channel"),
        ({"l1_structure": "channel", "block": (3,), "depth": 3}, "use 'weight'"),
        ({"finetune_epochs": -1}, "'finetune_epochs' parameter"),
        ({"l2_on": "biases"}, "'l2_on' parameter .*kernels"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1: batch norm"),
        ({"device": "gpu"}, "device must be 'auto' or a device of torch"),
        ({"channel_axis": 0}, "channel_axis must be 'auto', 1, -1 or None, got 0"),
        ({"class_weight": "even"}, "'class_weight' parameter"),
        ({"class_weight": {0: -1.0}}, "finite weights of at least 0, got {0: -1.0}"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, "at least 2 samples of positive weight"),
        ({"class_weight": {7: 1.0}}, "The classes, .*are not in class_weight"),
        ({"validation_split": 1.0}, "'validation_split' parameter"),
        ({"validation_split": 5}, "'validation_split' parameter"),
        ({"input_shape": (2, 2)}, r"input_shape=\(2, 2\) needs 4 values a sample"),
        ({"input_shape": (-5, -1)}, "input_shape must be a tuple of positive integers"),
        ({"input_shape": ("a",)}, "input_shape must be a tuple of positive integers"),
        ({"callbacks": ["stop"]}, "callbacks must be skorch callbacks, .* got 'stop'"),
        ({"max_epochs": 0}, "'max_epochs' parameter"),
        ({"callbacks": [EarlyStopping("valid_f1")]}, "'valid_f1', which is not recorded"),
        *[
            ({"callbacks": [EarlyStopping(patience=wrong)]}, f"at least 1, got {wrong!r}")
            for wrong in (0, None, "3", float("nan"))
        ],
        *[
            ({"callbacks": [EarlyStopping(min_delta=wrong)]}, f"at least 0, got {wrong!r}")
            for wrong in (-1, "a", float("nan"))
        ],
        ({"callbacks": [EarlyStopping(monitor=None)]}, "monitor must be .*, got None"),
        (
            {"lr": 1e20, "scale": None},
            r"loss became .* in epoch \d at a learning rate",
        ),
    ],
    ids=str,
)
def test_parameters(rows, changes, match):
    with pytest.raises(ValueError, match=match):
        fit(*rows, **changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_cuda_where_there_is_none(rows):
    with pytest.raises(ValueError, match="device='cuda' .* no such device"):
        fit(*rows, device="cuda")


def spoiled(X, value):
    X = X.copy()
    X[3, 1] = value
    return X


@pytest.mark.parametrize(
    ("change_X", "match"),
    [
        (lambda X: spoiled(X, np.nan), "Input X contains NaN"),
        (lambda X: spoiled(X, np.inf), "Input X contains infinity"),
        (scipy.sparse.csr_array, "Sparse data was passed"),
        (lambda X: np.full(X.shape, "a"), "could not convert string|dtype='numeric'"),
        (lambda X: X.astype(complex), "Complex data not supported"),
        (lambda X: X[:, 0], "Expected 2D array, got 1D array"),
        (lambda X: X.reshape(60, 5, 1, 1, 1, 1), "Samples must have 1 to 4 dimensions"),
        (lambda X: X[:0], "0 sample"),
        (lambda X: X[:59], "inconsistent numbers of samples"),
    ],
)
def test_samples(rows, change_X, match):
    X, y = rows
    with pytest.raises((ValueError, TypeError), match=match):
        fit(change_X(X), y)


def test_values_beyond_the_range_of_numbers(rows):
    X, y = rows
    with pytest.raises(ValueError, match="squares are too large for float64"):
        fit(X * 1e200, y)
    with pytest.raises(ValueError, match="too large for float32: scale them down"):
        fit(X * 1e200, y, scale=None)
    with pytest.raises(ValueError, match="too large for float32: scale them down"):
        fit(X, y).predict_proba(X * 1e200)


def test_labels(rows):
    X, y = rows
    with pytest.raises(ValueError, match="at least 2 classes, got one class only: 7."):
        fit(X, np.full(60, 7))
    with pytest.raises(ValueError, match="Input y contains NaN"):
        fit(X, np.where(y == 0, np.nan, y))
    with pytest.raises(ValueError, match="Unknown label type"):
        fit(X, X[:, 0])


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (np.ones(3), "sample_weight.shape == "),
        (np.full(60, np.nan), "Input sample_weight contains NaN"),
        (np.full(60, -1.0), "Negative values in data passed to `sample_weight`"),
        (np.zeros(60), "must contain at least one non-zero"),
        (np.eye(60)[0], "at least 2 samples of positive weight, got 1"),
    ],
)
def test_weights(rows, weight, match):
    with pytest.raises(ValueError, match=match):
        fit(*rows, fit_params={"sample_weight": weight})


def test_validation_sets(rows):
    X, y = rows
    with pytest.raises(ValueError, match="must be given together"):
        fit(X, y, fit_params={"X_val": X})
    with pytest.raises(ValueError, match="y_val has classes .*9.* that are not in y"):
        fit(X, y, fit_params={"X_val": X, "y_val": y + 9})
    match = "validation_split must be 'auto' or None when X_val is given, got 0.1"
    with pytest.raises(ValueError, match=match):
        fit(X, y, validation_split=0.1, fit_params={"X_val": X, "y_val": y})
    match = r"X_val has samples of shape \(4,\), but this model was fitted on \(5,\)"
    for change in (np.asarray, pd.DataFrame):
        narrow = change(X[:, :4])
        with pytest.raises(ValueError, match=match):
            fit(X, y, fit_params={"X_val": narrow, "y_val": y})
    only = [(np.flatnonzero(y), np.flatnonzero(y == 0))]
    with pytest.raises(ValueError, match="leaves no training sample of class 'a'"):
        fit(X, np.array(["a", "b", "c"])[y], validation_split=only)
    with pytest.raises(ValueError, match="No sample of 3 can be held out by valid"):
        fit(X[:3], y[:3], validation_split=0.1)
    first = np.arange(60) < 45
    with pytest.raises(ValueError, match="validation set needs a sample of positive"):
        fit(X, y, validation_split=[(first, ~first)], fit_params={"sample_weight": first})
    validation = {"X_val": X[:1], "y_val": y[:1]}
    with pytest.raises(ValueError, match="validation set needs a sample of positive"):
        fit(X, y, class_weight={0: 0}, fit_params=validation)


def with_one(values, wrong):
    values = values.astype(float)
    values.flat[0] = wrong
    return values


@pytest.mark.parametrize("kind", [ResNetClassifier, ResNetRegressor])
@pytest.mark.parametrize(
    ("change_X", "change_y", "match"),
    [
        (None, lambda y: with_one(y, np.nan), "Input y_val contains NaN"),
        (None, lambda y: ["a", *y[1:]], "y_val must hold values of one kind"),
        (lambda X: with_one(X, np.inf), None, "Input X_val contains infinity"),
        (lambda X: with_one(X, np.nan), None, "Input X_val contains NaN"),
        (lambda X: X.astype("M8[s]"), None, "X_val must hold numbers"),
        (lambda X: X[..., None], None, "X_val has samples of shape .*: resize X_val"),
    ],
)
def test_errors_of_validation_data_name_them(rows, kind, change_X, change_y, match):
    X, y = rows
    X_val, y_val = change_X(X) if change_X else X, change_y(y) if change_y else y
    with pytest.raises((TypeError, ValueError), match=match):
        kind(**ROWS).fit(X, y, X_val=X_val, y_val=y_val)
    if "infinity" in match or change_y:
        with pytest.raises((TypeError, ValueError), match=match):
            diagnose(kind(**ROWS).fit(X, y), X, y, X_val, y_val)


def test_errors_of_numbers_to_validate_on_name_them(rows):
    X, y = rows
    for wrong in (np.array([*"123"])[y], y.astype("M8[s]")):
        with pytest.raises((TypeError, ValueError), match="y_val must hold numbers, got"):
            ResNetRegressor(**ROWS).fit(X, y, X_val=X, y_val=wrong)
    with pytest.raises(ValueError, match="y_val of several columns must be"):
        ResNetClassifier(**ROWS).fit(X, y, X_val=X, y_val=np.column_stack([y, y]))


@pytest.mark.parametrize(
    ("split", "match"),
    [
        ([], "must hold one pair of index arrays"),
        ([1], "must hold one pair of index arrays"),
        ([(1, 2, 3)], "must hold one pair of index arrays"),
        ([(range(45), range(45, 61))], "must hold indices of the 60 samples"),
        ([(range(45), [0.5])], "of the 60 samples, got float64 from 0.0 to 44.0"),
        ([(range(45), [])], "No sample of 60 can be held out by validation_split=a list"),
    ],
)
def test_lists_of_rows_for_validation(rows, split, match):
    with pytest.raises(ValueError, match=match):
        fit(*rows, validation_split=split)


def masks(n):
    return [(np.arange(n) < 45, np.arange(n) >= 45)]


class Gives:
    """Splitter that gives these pairs, whatever the samples are."""

    def __init__(self, *pairs):
        self.pairs = pairs

    def get_n_splits(self, X=None, y=None, groups=None):
        return len(self.pairs)

    def split(self, X, y=None, groups=None):
        return iter(self.pairs)


@pytest.mark.parametrize(
    ("split", "match"),
    [
        (masks(59), r"masks of the 60 samples, got one of shape \(59,\)"),
        (masks(61), r"masks of the 60 samples, got one of shape \(61,\)"),
        (Gives(*masks(59)), r"masks of the 60 samples, got one of shape \(59,\)"),
        (Gives((range(50), range(50, 70))), "of the 60 samples, got int64 from 0 to 69"),
        (PredefinedSplit(np.arange(70) % 5), "folds of the 60 samples, got those of 70"),
        (PredefinedSplit(np.arange(50) % 5), "folds of the 60 samples, got those of 50"),
    ],
    ids=["short masks", "long masks", "short masks of a splitter", "rows", "long", "short"],
)
@pytest.mark.parametrize("n_estimators", [1, 3])
def test_splits_of_other_samples(rows, split, match, n_estimators):
    with pytest.raises(ValueError, match=match):
        fit(*rows, validation_split=split, n_estimators=n_estimators)


def test_folds_of_all_samples_within_a_cross_validation(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS, validation_split=PredefinedSplit(np.arange(60) % 5))
    with pytest.raises(ValueError, match="folds of the 40 samples, got those of 60"):
        cross_val_score(model, X, y, cv=3, error_score="raise")


def test_splitters_may_give_masks(rows):
    model = fit(*rows, validation_split=Gives(*masks(60)))
    np.testing.assert_array_equal(
        model.predict_proba(rows[0]),
        fit(*rows, validation_split=masks(60)).predict_proba(rows[0]),
    )


def test_shapes_at_prediction(images):
    X, y = images
    model = fit(X, y, depth=8)
    expected = r"samples of shape \(2, 5, 6\), but .* \(2, 6, 6\): resize X or refit"
    with pytest.raises(ValueError, match=expected):
        model.predict(X[:, :, 1:])
    with pytest.raises(ValueError, match="resize X or refit"):
        model.predict(X.reshape(len(X), -1))
    with pytest.raises(ValueError, match="resize X or refit"):
        model.partial_fit(X[:, :, 1:], y)


@pytest.mark.parametrize("method", ["compact", "sparsity_by_layer"])
def test_methods_before_fit(method):
    with pytest.raises(NotFittedError):
        getattr(ResNetClassifier(), method)()


def test_prediction_before_fit(rows):
    for method in ("predict", "predict_proba", "predict_log_proba"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(ResNetClassifier(), method)(rows[0])
    with pytest.raises(NotFittedError):
        ResNetClassifier().module_  # noqa: B018


def test_partial_fit(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(X, y)
    with pytest.raises(ValueError, match=r"labels .*2.* that are not in classes"):
        model.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="at least 2 samples"):
        model.partial_fit(X[:1], y[:1], classes=[0, 1, 2])
    with pytest.raises(ValueError, match="'balanced' needs all labels at once"):
        ResNetClassifier(**ROWS, class_weight="balanced").partial_fit(
            X, y, classes=[0, 1, 2]
        )


def test_warm_start_with_other_classes(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS, warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="warm_start needs the classes of the earlier fit"):
        model.fit(X, y + 1)


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 6},
        {"order": "full_preactivation"},
        {"dropout": 0.5},
        {"scale": None},
        {"input_shape": (1, 5)},
        {"channel_axis": -1},
    ],
    ids=str,
)
def test_training_on_with_another_architecture(rows, change):
    X, y = rows
    model = ResNetClassifier(**ROWS, warm_start=True).fit(X, y).set_params(**change)
    for train_on in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=f"network of the earlier .*, or {START_ANEW}"):
            train_on(X, y)


def test_training_on_with_another_kind_of_labels(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS, warm_start=True).fit(X, np.eye(3, dtype=int)[y])
    for train_on in (model.fit, model.partial_fit):
        for labels in (y, np.eye(4, dtype=int)[y]):
            with pytest.raises(ValueError, match=f"y (must|has) .*: {START_ANEW}"):
                train_on(X, labels)


def test_a_failed_refit_leaves_the_model_that_was_there(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="got depth=5"):
        model.set_params(depth=5).fit(X[:, :3], y == 1)
    with pytest.raises(ValueError, match="lower lr"):
        model.set_params(depth=4, lr=1e20, scale=None).fit(X[:, :3], y == 1)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.n_features_in_ == X.shape[1]


@pytest.mark.parametrize("grows", [{"lr": 1e20}, {"l2": 1e30, "lr": 1e10}])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_training_on_that_diverges_changes_nothing(rows, method, grows):
    X, y = rows
    model = ResNetClassifier(**ROWS, warm_start=True).fit(X, y)
    before, epochs = model.predict_proba(X), model.n_epochs_
    with pytest.raises(ValueError, match="infinite|nan|inf"):
        getattr(model.set_params(**grows), method)(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert model.n_epochs_ == epochs == len(model.history_)
    model.set_params(lr=0.01, l2=0.0).partial_fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("fails", [{"lr": 1e20}, {"lr": 1e20, "optimizer": "heavy_ball"}])
def test_training_that_diverged_leaves_the_momentum(rows, optimizer, fails):
    X, y = rows
    model = ResNetClassifier(**ROWS, optimizer=optimizer, warm_start=True).fit(X, y)
    expected = moments(model)
    assert any(expected)
    with pytest.raises(ValueError, match="infinite|nan|inf"):
        model.set_params(**fails).partial_fit(X, y)
    with pytest.raises(ValueError, match="patience"):
        model.set_params(callbacks=[EarlyStopping(patience=0)]).fit(X, y)
    torch.testing.assert_close(moments(model), expected, rtol=0, atol=0)
    parameters = list(model.module_.parameters())
    groups = model.net_.optimizer_.param_groups
    assert {id(w) for group in groups for w in group["params"]} == set(map(id, parameters))
    model.set_params(lr=1e-9, callbacks=None, optimizer=optimizer)
    model.partial_fit(X[:2], y[:2])
    kept = zip(moments(model), expected, strict=True)
    assert all(one.keys() == other.keys() for one, other in kept)


def moments(model):
    """What the optimizer keeps for each parameter, as copies."""
    state = model.net_.optimizer_.state
    return [copy.deepcopy(dict(state.get(w, {}))) for w in model.module_.parameters()]


def test_values_too_large_for_float32_change_nothing(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS, scale=None).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="too large for float32"):
        model.partial_fit(X * 1e300, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)


class FailsInEpoch(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise RuntimeError("as asked")


def test_an_error_of_a_callback_keeps_the_epochs_that_are_done(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS, callbacks=[FailsInEpoch(2)])
    with pytest.raises(RuntimeError, match="as asked"):
        model.fit(X, y)
    assert model.n_epochs_ == 2
    same = ResNetClassifier(**ROWS).fit(X, y)
    assert model.history_[1]["train_loss"] == same.history_[1]["train_loss"]
    assert model.predict(X).shape == y.shape


def test_a_network_that_the_last_step_destroys_is_no_model(rows):
    model = ResNetClassifier(4, l2=1e30, max_epochs=1, batch_size=60, random_state=0)
    with pytest.raises(ValueError, match="infinite or NaN in the last step"):
        model.fit(*rows)
    with pytest.raises(NotFittedError):
        model.predict(rows[0])


@pytest.mark.parametrize("wrong", [None, float("nan"), 3])
def test_labels_of_mixed_kinds(rows, wrong):
    X, y = rows
    y = np.array([*"abc"])[y].astype(object)
    y[5] = wrong
    with pytest.raises((TypeError, ValueError), match="one kind|NaN|missing"):
        ResNetClassifier(**ROWS).fit(X, y)


def test_dates_are_no_numbers(rows):
    X, y = rows
    with pytest.raises(TypeError, match="X must hold numbers, got values of type datetime"):
        ResNetClassifier(**ROWS).fit(X.astype("datetime64[s]"), y)


@pytest.mark.parametrize(
    "change",
    [{"width": 1e9}, {"width": 1e300}, {"depth": 2 * 10**9}, {"n_estimators": 10**12}],
    ids=str,
)
def test_networks_that_no_machine_holds(rows, change):
    with pytest.raises(ValueError, match="that are allowed: lower"):
        ResNetClassifier(**{**ROWS, **change}).fit(*rows)


def test_half_precision_that_overflows_is_no_warning(rows):
    X, y = rows
    X = np.full(X.shape, 6e4, dtype=np.float16)
    X[::2] *= -1
    ResNetClassifier(**ROWS).fit(X, y).predict(X)
    X[0, 0] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        ResNetClassifier(**ROWS).fit(X, y)


def test_a_callback_without_a_name_has_no_parameters_to_set():
    model = ResNetClassifier(callbacks=[EarlyStopping()])
    with pytest.raises(ValueError, match=r"names no callback.*\('stop', EarlyStopping"):
        model.set_params(callbacks__stop__patience=3)


def test_a_failed_fit_leaves_no_half_trained_model(rows):
    model = ResNetClassifier(**{**ROWS, "lr": 1e20, "scale": None})
    with pytest.raises(ValueError, match="lower lr"):
        model.fit(*rows)
    with pytest.raises(NotFittedError):
        model.predict(rows[0])


class Stops(Callback):
    """Stops as callbacks of skorch do, in one hook of one epoch."""

    def __init__(self, hook, epoch):
        self.hook, self.epoch = hook, epoch

    def _stop(self, hook, net):
        if hook == self.hook and len(net.history) == self.epoch:
            raise KeyboardInterrupt

    def on_epoch_begin(self, net, **kwargs):
        self._stop("on_epoch_begin", net)

    def on_batch_begin(self, net, **kwargs):
        self._stop("on_batch_begin", net)

    def on_grad_computed(self, net, named_parameters, **kwargs):
        self._stop("on_grad_computed", net)

    def on_batch_end(self, net, **kwargs):
        self._stop("on_batch_end", net)


HOOKS = ("on_epoch_begin", "on_batch_begin", "on_grad_computed", "on_batch_end")


@pytest.mark.parametrize("hook", HOOKS)
def test_a_callback_that_stops_before_an_epoch_is_done_loses_no_model(rows, hook):
    X, y = rows
    model = ResNetClassifier(**ROWS).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(callbacks=[Stops(hook, 1)]).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert model.n_epochs_ == 2
    first = ResNetClassifier(**ROWS, callbacks=[Stops(hook, 1)])
    with pytest.raises(KeyboardInterrupt):
        first.fit(X, y)
    with pytest.raises(NotFittedError):
        first.predict(X)


@pytest.mark.parametrize("hook", HOOKS)
def test_an_epoch_that_was_broken_off_counts_nowhere(rows, hook):
    X, y = rows
    settings = {**ROWS, "max_epochs": 5, "warm_start": True}
    model = ResNetClassifier(**settings, callbacks=[Stops(hook, 3)]).fit(X, y)
    assert model.n_epochs_ == model.best_epoch_ == len(model.net_.history) == 2
    model.set_params(callbacks=None).partial_fit(X, y)
    assert [row["epoch"] for row in model.history_] == [1, 2, 3]
    assert model.best_epoch_ == 3


class Destroys(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            for parameter in net.module_.parameters():
                parameter.data.fill_(float("nan"))
            raise RuntimeError("as asked")


def test_an_error_after_the_network_was_destroyed_leaves_no_such_model(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(RuntimeError, match="as asked"):
        model.set_params(callbacks=[Destroys()]).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)


@pytest.mark.parametrize("other", [1, True, float("nan"), None])
def test_lists_of_mixed_labels(rows, other):
    X, _ = rows
    y = ["a", other] * 30
    for given in (y, tuple(y), np.array(y, dtype=object)):
        with pytest.raises(TypeError, match="of one kind"):
            ResNetClassifier(**ROWS).fit(X, given)
    with pytest.raises(TypeError, match="classes must hold values of one kind"):
        ResNetClassifier(**ROWS).partial_fit(X, ["a"] * 60, classes=["a", other])


@pytest.mark.parametrize(
    ("kind", "given", "pair", "plain"),
    [
        (ResNetClassifier, "list", ["a", np.str_("b")], ["a", "b"]),
        (ResNetClassifier, "objects", ["a", np.str_("b")], ["a", "b"]),
        (ResNetClassifier, "list", [True, np.bool_(False)], [True, False]),
        (ResNetClassifier, "list", [True, 0], [1, 0]),
        (ResNetClassifier, "list", [1, np.uint8(2)], [1, 2]),
        (ResNetRegressor, "list", [Decimal("1.5"), 2], [1.5, 2]),
        (ResNetRegressor, "objects", [Decimal("1.5"), 2], [1.5, 2]),
        (ResNetRegressor, "list", [Fraction(1, 2), np.float32(2)], [0.5, 2]),
        (ResNetRegressor, "list", [np.bool_(True), 2.5], [1, 2.5]),
    ],
    ids=str,
)
def test_values_of_one_kind_may_be_of_several_types(
    rows, tmp_path, kind, given, pair, plain
):
    X, _ = rows
    y = pair * 30 if given == "list" else np.array(pair * 30, dtype=object)
    model = kind(**ROWS).fit(X, y)
    expected = kind(**ROWS).fit(X, np.array(plain * 30)).predict(X)
    np.testing.assert_array_equal(model.predict(X), expected)
    sk_resnet.save(model, tmp_path / "model.skr")
    loaded = sk_resnet.load(tmp_path / "model.skr")
    np.testing.assert_array_equal(loaded.predict(X), expected)


@pytest.mark.parametrize(
    "pair",
    [
        ["a", b"b"],
        [np.str_("a"), np.bool_(True)],
        ["a", Decimal(1)],
        [1, date(2020, 1, 1)],
        [1, np.timedelta64(1, "s")],
    ],
    ids=str,
)
def test_values_of_two_kinds_are_refused(rows, pair):
    for kind in (ResNetClassifier, ResNetRegressor):
        with pytest.raises(TypeError, match="of one kind, strings or numbers, got"):
            kind(**ROWS).fit(rows[0], pair * 30)


@pytest.mark.parametrize(
    "labels",
    [[["a"], ["a", "b"], []], [("a",), ("b", "a"), ()], [{"a"}, {"b"}, set()]],
    ids=["lists", "tuples", "sets"],
)
def test_lists_of_labels_need_a_binarizer(rows, labels):
    X, y = rows
    labels = labels * 20
    match = "must hold one value a sample, .*MultiLabelBinarizer"
    model = ResNetClassifier(**ROWS)
    for given in (labels, pd.Series(labels)):
        for use in (model.fit, model.partial_fit, ResNetRegressor(**ROWS).fit):
            with pytest.raises(ValueError, match=f"^y {match}"):
                use(X, given)
    with pytest.raises(ValueError, match=f"^y_val {match}"):
        model.fit(X, y, X_val=X, y_val=labels)


@pytest.mark.parametrize("value", [{"a": 1}, date(2020, 1, 1), 1j], ids=str)
def test_objects_are_no_numbers_to_learn(rows, value):
    match = f"y must hold numbers, got values of type {type(value).__name__}: turn"
    for use in (ResNetRegressor(**ROWS).fit, ResNetRegressor(**ROWS).partial_fit):
        with pytest.raises(TypeError, match=match):
            use(rows[0], np.array([value] * 60, dtype=object))


@pytest.mark.parametrize(
    ("value", "name"),
    [(Decimal(1), "Decimal"), (date(2020, 1, 1), "date"), (2**70, "int"), (1.0, "float")],
    ids=str,
)
def test_objects_are_no_labels(rows, value, name):
    X, y = rows
    labels = np.array([value] * 60, dtype=object)
    match = f" must be an array of strings, integers or booleans, got one of .* {name}:"
    model = ResNetClassifier(**ROWS)
    for given in (labels, labels.reshape(-1, 1), pd.Series(labels)):
        with pytest.raises(TypeError, match=f"y{match}"):
            model.fit(X, given)
    with pytest.raises(TypeError, match=f"y_val{match}"):
        model.fit(X, y, X_val=X, y_val=labels)
    with pytest.raises(TypeError, match=f"classes{match}"):
        model.partial_fit(X, y, classes=labels)


def test_records_are_no_labels(rows):
    X, y = rows
    records = np.array(list(zip(y, y, strict=True)), dtype=[("event", int), ("time", int)])
    with pytest.raises(TypeError, match="y must be an array of strings, .* of type void"):
        ResNetClassifier(**ROWS).fit(X, records)


def test_missing_labels_of_pandas(rows):
    X, _ = rows
    y = pd.Series(["a", pd.NA, "b"] * 20, dtype="string")
    for kind in (ResNetClassifier, ResNetRegressor):
        with pytest.raises(TypeError, match="got NAType, str"):
            kind(**ROWS).fit(X, y)


def test_classes_without_nan(rows):
    X, y = rows
    with pytest.raises(ValueError, match="classes must not hold NaN"):
        ResNetClassifier(**ROWS).partial_fit(X, y, classes=[0, 1, 2, np.nan])


@pytest.mark.parametrize("kind", ["M8[D]", "m8[s]"])
def test_dates_are_no_numbers_to_learn(rows, kind):
    X, y = rows
    with pytest.raises(TypeError, match="y must hold numbers, got dates"):
        ResNetRegressor(**ROWS).fit(X, y.astype(kind))


DIGITS = np.array(["1", "2.5", "3"])[np.arange(60) % 3]


@pytest.mark.parametrize(
    "y",
    [
        DIGITS,
        DIGITS.tolist(),
        DIGITS.astype(object),
        DIGITS.astype(bytes),
        pd.Series(DIGITS, dtype="string"),
        np.column_stack([DIGITS, DIGITS]),
    ],
    ids=["array", "list", "objects", "bytes", "pandas", "columns"],
)
def test_strings_of_digits_are_no_numbers_to_learn(rows, y):
    X, numbers = rows
    for use in (ResNetRegressor(**ROWS).fit, ResNetRegressor(**ROWS).partial_fit):
        with pytest.raises(ValueError, match=r"y must hold numbers, got strings: convert"):
            use(X, y)
    with pytest.raises(ValueError, match="y_val must hold numbers, got strings"):
        ResNetRegressor(**ROWS).fit(X, numbers, X_val=X, y_val=y)


@pytest.mark.parametrize("kind", ["M8[D]", "m8[s]"])
def test_dates_and_durations_are_labels_as_in_scikit_learn(rows, kind, tmp_path):
    X, y = rows
    y = y.astype(kind)
    model = ResNetClassifier(**ROWS).fit(X, y)
    peer = LogisticRegression().fit(X, y)
    assert model.predict(X).dtype == peer.predict(X).dtype == y.dtype
    np.testing.assert_array_equal(model.classes_, peer.classes_)
    assert model.partial_fit(X, y).score(X, y) > 0.5
    sk_resnet.save(model, tmp_path / "model.skr")
    again = sk_resnet.load(tmp_path / "model.skr")
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize("large", [1e39, 1e300])
def test_numbers_too_large_beside_those_of_the_training(rows, large):
    X, y = rows
    y = y + np.linspace(0, 1, 60)
    with pytest.raises(ValueError, match="y has values that are too large for float32"):
        ResNetRegressor(**ROWS).fit(X, y, X_val=X[:3], y_val=np.full(3, large))
    model = ResNetRegressor(**ROWS, warm_start=True).fit(X, y)
    before = model.predict(X)
    with pytest.raises(ValueError, match="y has values that are too large for float32"):
        model.fit(X, y * large)
    np.testing.assert_array_equal(model.predict(X), before)


@pytest.mark.parametrize("kind", [ResNetClassifier, ResNetRegressor])
@pytest.mark.parametrize("n_estimators", [1, 2])
def test_predictions_are_finite_or_an_error(kind, n_estimators, rows):
    X, y = rows
    model = kind(4, n_estimators=n_estimators, max_epochs=1, random_state=0).fit(X, y)
    for predict in (model.predict, model.embed):
        with pytest.raises(
            ValueError, match="outputs for some samples of X are not finite"
        ):
            predict(X * 1e38)
        assert np.isfinite(predict(X * 1e3)).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_infinities_of_both_signs_are_no_warning(rows, dtype):
    X, y = rows
    model = ResNetClassifier(**ROWS).fit(X, y)
    X = X.astype(dtype)
    X[0, 0], X[1, 0] = np.inf, -np.inf
    for use in (lambda: model.predict(X), lambda: ResNetClassifier(**ROWS).fit(X, y)):
        with pytest.raises(ValueError, match="infinity"):
            use()


@pytest.mark.filterwarnings("ignore:A column-vector y")
def test_a_column_of_labels_needs_its_classes_too(rows):
    X, y = rows
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        ResNetClassifier(**ROWS).partial_fit(X, y[:, None])


def test_callbacks_of_one_name_cannot_be_set(rows):
    pair = [("a", EarlyStopping(patience=1)), ("a", EarlyStopping(patience=2))]
    model = ResNetClassifier(**ROWS, callbacks=pair)
    match = r"names of their own, got \['a'\] twice: rename one"
    with pytest.raises(ValueError, match=match):
        model.set_params(callbacks__a__patience=3)
    with pytest.raises(ValueError, match=match):
        model.fit(*rows)


@pytest.mark.parametrize("given", [3, int, None, "stop"])
def test_what_is_no_callback_has_no_parameters_to_set(given):
    model = ResNetClassifier(callbacks=[("a", given)])
    match = f"callbacks__a__b needs a callback of skorch .*, got {given!r}: leave"
    with pytest.raises(ValueError, match=match):
        model.set_params(callbacks__a__b=1)
    model = ResNetClassifier(callbacks=[("a", EarlyStopping())])
    with pytest.raises(ValueError, match=match):
        model.set_params(callbacks__a=given, callbacks__a__b=1)


@pytest.mark.parametrize(
    "wrong", [{"callbacks__b__patience": 3}, {"callbacks__a__unknown": 3}], ids=str
)
def test_a_failed_setting_of_callbacks_sets_nothing_else(wrong):
    model = ResNetClassifier(callbacks=[("a", EarlyStopping())])
    before = model.get_params()
    with pytest.raises(ValueError, match="names no callback|Invalid parameter"):
        model.set_params(lr=0.5, callbacks__a__patience=7, **wrong)
    with pytest.raises(ValueError, match="names no callback"):
        model.set_params(callbacks=None, **wrong)
    assert model.get_params() == before


@pytest.mark.parametrize("name", ["early__stop", "", None, 1, EarlyStopping()])
def test_names_of_callbacks_that_could_not_be_set(rows, name):
    model = ResNetClassifier(**ROWS, callbacks=[("a", EarlyStopping()), (name, PrintLog)])
    match = "name of a callback must be a string without '__', such as 'stop', got"
    with pytest.raises(ValueError, match=match):
        model.fit(*rows)
    for key in ("callbacks__a__patience", f"callbacks__{name}__sink"):
        with pytest.raises(ValueError, match=match):
            model.set_params(**{key: 3})


def test_a_callback_is_switched_off_by_none():
    model = ResNetClassifier(callbacks=[("a", EarlyStopping()), EarlyStopping()])
    assert len(model.set_params(callbacks__a=None).callbacks) == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"),
    ],
    ids=["Python", "GPU", "CPU"],
)
def test_too_little_memory_names_a_batch_size(rows, monkeypatch, error):
    def fails(trainings):
        raise error

    monkeypatch.setattr(_base, "train", fails)
    model = ResNetClassifier(4, batch_size=48)
    with pytest.raises(MemoryError, match="set batch_size=24"):
        model.fit(*rows)
    assert not hasattr(model, "net_")
    monkeypatch.setattr(_base, "train", lambda trainings: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.fit(*rows)
