import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, KFold, ShuffleSplit, StratifiedKFold
from sklearn.utils import compute_class_weight
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EpochScoring,
    Freezer,
    GradientNormClipping,
    LRScheduler,
    PassthroughScoring,
    PrintLog,
    TensorBoard,
    Unfreezer,
)
from skorch.callbacks import EarlyStopping as SkorchEarlyStopping
from torch import nn

from sk_resnet import EarlyStopping, ResNetClassifier, WideResNetClassifier
from sk_resnet._network import initialize, kernels
from sk_resnet._optim import OPTIMIZERS
from sk_resnet._plan import resolve_epochs

ROWS = {"depth": 4, "max_epochs": 4, "batch_size": 16, "random_state": 0}
ROWS |= {"n_estimators": 1}
IMAGES = {**ROWS, "depth": 8}


def proba(X, y, **changes):
    return ResNetClassifier(**{**IMAGES, **changes}).fit(X, y).predict_proba(X)


# Inputs


@pytest.mark.parametrize(
    "convert",
    [
        lambda X: X.tolist(),
        lambda X: np.asfortranarray(X),
        lambda X: X[:, ::-1].copy()[:, ::-1],
        lambda X: torch.from_numpy(X),
        lambda X: X.astype(np.float64),
        lambda X: torch.from_numpy(X).double().requires_grad_(),
    ],
    ids=["list", "fortran", "negative strides", "torch", "float64", "torch with gradient"],
)
def test_layouts_and_containers_give_the_same_fit(images, convert):
    X, y = images
    np.testing.assert_allclose(proba(convert(X), y), proba(X, y), atol=1e-6)


def test_read_only_arrays_and_memmaps_give_the_same_fit(images, tmp_path):
    X, y = images
    np.save(tmp_path / "X.npy", X)
    frozen = X.copy()
    frozen.setflags(write=False)
    expected = proba(X, y)
    np.testing.assert_array_equal(proba(frozen, y), expected)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    np.testing.assert_array_equal(proba(mapped, y), expected)


def test_bfloat16_tensors_give_the_fit_of_their_values(rows):
    X, y = torch.from_numpy(rows[0]).bfloat16(), torch.from_numpy(rows[1])
    weight = torch.arange(1, 61).bfloat16()
    one = ResNetClassifier(**ROWS).fit(X, y, sample_weight=weight)
    other = ResNetClassifier(**ROWS).fit(X.float(), y, sample_weight=weight.float())
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X.float()))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_fit_within_a_mode_without_gradients_is_the_same(rows, mode):
    X, y = rows
    expected = ResNetClassifier(**ROWS).fit(X, y).partial_fit(X, y).predict_proba(X)
    with mode():
        model = ResNetClassifier(**ROWS).fit(X, y).partial_fit(X, y)
        assert not torch.is_grad_enabled()
        np.testing.assert_array_equal(model.predict_proba(X), expected)
        copies = [pickle.loads(pickle.dumps(model)), model.compact()]
    for trained in (model, *copies):
        assert trained.partial_fit(X, y).n_epochs_ == 6
        assert np.isfinite(trained.predict_proba(X)).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_another_default_dtype_changes_nothing(images, precision):
    X, y = images
    expected = proba(X, y, precision=precision)
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_array_equal(proba(X, y, precision=precision), expected)
        noisy = proba(X, y, precision=precision, dropout=0.2, augment=["crop", "flip"])
        assert np.isfinite(noisy).all()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", ["float16", "uint8", "int16", "int64", "uint16", "bool"])
def test_types_give_the_fit_of_their_values(images, dtype):
    X, y = images
    X = np.clip(np.round(20 * X + 60), 0, 200)
    X = (X > 60 if dtype == "bool" else X).astype(dtype)
    np.testing.assert_allclose(proba(X, y), proba(X.astype(np.float64), y), atol=1e-4)


def test_channels_last_flat_rows_and_grey_images_give_the_same_fit(images):
    X, y = images
    expected = proba(X, y)
    last = np.moveaxis(X, 1, -1)
    np.testing.assert_array_equal(proba(last, y, channel_axis=-1), expected)
    flat = X.reshape(len(X), -1)
    np.testing.assert_array_equal(proba(flat, y, input_shape=(2, 6, 6)), expected)
    flat_last = last.reshape(len(X), -1)
    folded = proba(flat_last, y, input_shape=(6, 6, 2), channel_axis=-1)
    np.testing.assert_array_equal(folded, expected)
    grey = X[:, 0]
    expected = proba(X[:, :1], y)
    np.testing.assert_array_equal(proba(grey, y, input_shape=(1, 6, 6)), expected)


@pytest.mark.parametrize("shape", [(3,), (1,), (2, 7), (1, 5, 5), (1, 1, 1), (1, 3, 3, 3)])
@pytest.mark.parametrize("estimator", [ResNetClassifier, WideResNetClassifier])
def test_any_number_of_dimensions_learns(shape, estimator):
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = rng.normal(size=(40, *shape)) + 3 * y.reshape(-1, *(1,) * len(shape))
    depth = 4 if len(shape) == 1 else 10 if estimator is WideResNetClassifier else 8
    model = estimator(depth, width=1, max_epochs=10, batch_size=16, random_state=0)
    assert model.fit(X, y).score(X, y) > 0.9
    assert model.input_shape_ == shape
    assert hasattr(model, "n_features_in_") == (len(shape) == 1)


def test_two_samples_are_enough():
    model = ResNetClassifier(**ROWS).fit([[0.0], [1.0]], ["a", "b"])
    assert set(model.predict([[0.0], [1.0]])) <= {"a", "b"}


def test_a_last_batch_of_one_joins_the_batch_before(rows):
    X, y = rows
    model = ResNetClassifier(**{**ROWS, "batch_size": 59}).fit(X, y)
    assert model.net_.history[-1, "train_batch_count"] == 1


def test_a_prediction_depends_on_its_sample_alone(images):
    X, y = images
    model = ResNetClassifier(**IMAGES).fit(X, y)
    together = model.predict_proba(X)
    alone = np.vstack([model.predict_proba(X[i : i + 1]) for i in range(5)])
    np.testing.assert_array_equal(alone, together[:5])


@pytest.mark.parametrize(
    "labels",
    [
        ["cat", "dog", "eel"],
        [-3, 5, 70],
        np.array([1, 2, 3], dtype=np.uint8),
        np.array(["x", "y", "z"], dtype=object),
        [1.0, 2.0, 4.0],
    ],
)
def test_labels_come_back_as_they_were(rows, labels):
    X, codes = rows
    y = np.asarray(labels)[codes]
    model = ResNetClassifier(**{**ROWS, "max_epochs": 20}).fit(X, y)
    assert model.predict(X).dtype == y.dtype
    assert model.score(X, y) > 0.7


def test_boolean_labels(rows):
    X, y = rows
    predicted = ResNetClassifier(**ROWS).fit(X, y == 2).predict(X)
    assert predicted.dtype == bool


def test_probabilities_and_their_logarithms_agree(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS).fit(X, y)
    np.testing.assert_allclose(
        np.exp(model.predict_log_proba(X)), model.predict_proba(X), rtol=1e-5
    )
    far = model.predict_log_proba(X * 1e4)
    assert np.isfinite(far).all()


# Parameters

CHANGES = {
    "depth": 14,
    "width": 2,
    "block": (3, 1),
    "order": "full_preactivation",
    "shortcut": "zero_pad",
    "layout": "imagenet",
    "embedding": "periodic",
    "dropout": 0.5,
    "stochastic_depth": 0.5,
    "n_estimators": 2,
    "l1": 0.01,
    "l1_structure": "channel",
    "finetune_epochs": 2,
    "l2": 0.1,
    "l2_on": "all",
    "label_smoothing": 0.3,
    "class_weight": {0: 5, 1: 1, 2: 1},
    "calibrate": False,
    "augment": "crop",
    "test_time_augmentation": "crop",
    "optimizer": "adamw",
    "lr": 0.01,
    "momentum": 0.5,
    "schedule": "constant",
    "max_epochs": 5,
    "max_seconds": 1e-9,
    "batch_size": 10,
    "input_shape": (1, 12, 6),
    "channel_axis": -1,
    "scale": None,
    "validation_split": 0.3,
    "callbacks": [EarlyStopping()],
    "precision": "bfloat16",
    "random_state": 1,
}
NO_EFFECT_ON_THE_FIT = {"device", "compile", "warm_start", "verbose", "checkpoint"}


def test_every_parameter_is_listed_here():
    names = set(ResNetClassifier().get_params(deep=False))
    assert names == set(CHANGES) | NO_EFFECT_ON_THE_FIT
    assert names == set(ResNetClassifier._parameter_constraints)


@pytest.mark.parametrize("name", CHANGES)
def test_every_parameter_changes_the_fit(images, name):
    X, y = images
    base = {**IMAGES, "lr": 0.03}
    if name == "embedding":
        X, base["depth"] = X.reshape(len(X), -1), 4
    extra = {"depth": 18} if name == "layout" else {}
    changed = {**base, **extra, name: CHANGES[name]}
    if name == "l1_structure":
        base["l1"] = changed["l1"] = 0.01
    if name == "calibrate":
        base["validation_split"] = changed["validation_split"] = 0.3
    if name == "block":
        changed["depth"] = 8
    one = ResNetClassifier(**base).fit(X, y).predict_proba(X)
    other = ResNetClassifier(**changed).fit(X, y).predict_proba(X)
    assert not np.array_equal(one, other)


def test_numbers_of_numpy_are_numbers(images):
    X, y = images
    settings = {"max_epochs": 2, "finetune_epochs": 1, "l1": 0.01, "width": 2}
    settings = {**IMAGES, **settings, "channel_axis": 1, "lr": 0.125}
    as_arrays = {
        name: np.array(value)[()] if isinstance(value, (int, float)) else value
        for name, value in settings.items()
    }
    model = ResNetClassifier(**as_arrays).fit(X, y)
    expected = ResNetClassifier(**settings).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(X))
    saved = model.__getstate__()["_saved"]
    assert repr(saved["network"]) == repr(expected.__getstate__()["_saved"]["network"])
    assert type(saved["input"]["channel_axis"]) is int


def test_predictions_are_not_padded_beyond_the_training_set(rows):
    model = ResNetClassifier(**{**ROWS, "batch_size": 10**9}).fit(*rows)
    assert model.batch_size_ == 60
    assert model.predict(rows[0]).shape == (60,)


def test_verbose_1_shows_a_bar_and_0_prints_nothing(rows, capfd):
    X, y = rows
    ResNetClassifier(**ROWS).fit(X, y)
    assert capfd.readouterr() == ("", "")
    ResNetClassifier(**ROWS, verbose=1).fit(X, y)
    out, err = capfd.readouterr()
    assert out == ""
    assert "4/4" in err
    assert "train_loss" in err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compile_gives_nearly_the_same_fit(rows):
    X, y = rows
    compiled = ResNetClassifier(**ROWS, compile=True).fit(X, y).predict_proba(X)
    plain = ResNetClassifier(**ROWS).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(compiled, plain, atol=1e-2)


def test_l1_makes_exact_zeros(images):
    X, y = images
    assert ResNetClassifier(**IMAGES).fit(X, y).sparsity_ == 0
    assert 0.2 < ResNetClassifier(**IMAGES, l1=0.01).fit(X, y).sparsity_ < 1


def test_dropout_does_not_change_prediction(images):
    X, y = images
    model = ResNetClassifier(**IMAGES, dropout=0.5).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X))


def test_standardization_makes_shift_and_scale_irrelevant(images):
    X, y = images
    X = X.astype(np.float64)
    moved = X * np.array([1e3, 1e-3])[:, None, None] + np.array([1e5, -7])[:, None, None]
    np.testing.assert_allclose(proba(moved, y), proba(X, y), atol=1e-3)


# Validation and history


def test_history_is_a_table(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS, validation_split=0.2).fit(X, y)
    table = pd.DataFrame(model.history_)
    assert {
        "epoch", "train_loss", "valid_loss", "valid_accuracy", "lr", "seconds"
    } <= set(table.columns)  # fmt: skip
    assert table.epoch.tolist() == [1, 2, 3, 4]
    assert model.n_epochs_ == 4
    assert model.best_epoch_ == table.epoch[table.valid_loss.idxmin()]
    assert "valid_loss" not in ResNetClassifier(**ROWS).fit(X, y).history_[0]


def test_the_recorded_validation_is_that_of_the_final_network(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS, calibrate=False)
    model.fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    log_proba = model.predict_log_proba(X[40:])
    loss = -log_proba[np.arange(20), y[40:]].mean()
    assert model.history_[-1]["valid_loss"] == pytest.approx(loss, rel=1e-5)
    assert model.history_[-1]["valid_accuracy"] == pytest.approx(
        model.score(X[40:], y[40:])
    )


def test_the_training_loss_is_the_weighted_mean(rows):
    X, y = rows
    weight = np.random.default_rng(0).uniform(0.1, 3, size=len(y))
    model = ResNetClassifier(**{**ROWS, "batch_size": 60, "lr": 1e-9, "max_epochs": 1})
    model.fit(X, y, sample_weight=weight)
    x = torch.from_numpy(model.net_.input_spec.transform(X))
    with torch.no_grad():
        log_proba = model.module_.train()(x).log_softmax(1).numpy()
    loss = -np.average(log_proba[np.arange(60), y], weights=weight)
    assert model.history_[0]["train_loss"] == pytest.approx(loss, rel=1e-4)


def test_samples_of_no_weight_do_not_matter(rows):
    X, y = rows
    X_more = np.vstack([X, np.full((7, 5), 1e6)])
    y_more, weight = np.r_[y, np.zeros(7, int)], np.r_[np.ones(60), np.zeros(7)]
    one = ResNetClassifier(**ROWS).fit(X, y).predict_proba(X)
    other = ResNetClassifier(**ROWS).fit(X_more, y_more, sample_weight=weight)
    np.testing.assert_array_equal(other.predict_proba(X), one)


def test_samples_of_a_class_of_no_weight_do_not_matter(rows):
    X, y = rows
    X = np.where(y[:, None] == 2, 1e6, X)
    model = ResNetClassifier(**ROWS, class_weight={2: 0}).fit(X, y)
    assert model.net_.input_spec.mean.max() < 10
    assert (model.predict(X[y < 2]) < 2).all()


def test_validation_is_held_out_only_where_it_is_asked_for(rows):
    X, y = rows
    monitored = ResNetClassifier(**ROWS, callbacks=[("stop", EarlyStopping())]).fit(X, y)
    assert "valid_loss" in monitored.history_[0]
    training = ResNetClassifier(**ROWS, callbacks=[EarlyStopping("train_loss")]).fit(X, y)
    assert "valid_loss" not in training.history_[0]


@pytest.mark.parametrize(
    "split",
    [
        StratifiedKFold(4),
        [(np.arange(45), np.arange(45, 60))],
        [(np.arange(60) < 45, np.arange(60) >= 45)],
        GroupKFold(3),
        0.25,
    ],
)
def test_a_splitter_and_groups_are_respected(rows, split):
    X, y = rows
    groups = None if isinstance(split, StratifiedKFold) else np.arange(60) // 5
    seen = []

    class KeepsRows(Callback):
        def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
            seen[:] = dataset_train.rows, dataset_valid.rows

    model = ResNetClassifier(**ROWS, validation_split=split, callbacks=[KeepsRows()])
    model.fit(X, y, groups=groups)
    assert "valid_loss" in model.history_[0]
    assert sorted(np.concatenate(seen)) == list(range(60))
    if groups is None:
        assert np.bincount(y[seen[1]]).tolist() == [5, 5, 5]
    else:
        assert not set(groups[seen[0]]) & set(groups[seen[1]])


def test_balanced_class_weights_are_those_of_scikit_learn(rows):
    X, y = rows[0][:40], np.repeat([0, 1, 2], [24, 10, 6])
    weights = compute_class_weight("balanced", classes=np.arange(3), y=y)
    balanced = ResNetClassifier(**ROWS, class_weight="balanced").fit(X, y)
    named = ResNetClassifier(**ROWS, class_weight=dict(enumerate(weights))).fit(X, y)
    np.testing.assert_array_equal(balanced.predict_proba(X), named.predict_proba(X))
    plain = ResNetClassifier(**ROWS).fit(X, y)
    assert not np.array_equal(balanced.predict_proba(X), plain.predict_proba(X))


def test_statistics_come_from_the_training_part_alone(rows):
    X, y = rows
    X = X.copy()
    X[45:] += 1000
    split = [(np.arange(45), np.arange(45, 60))]
    model = ResNetClassifier(**ROWS, validation_split=split).fit(X, y)
    np.testing.assert_allclose(model.net_.input_spec.mean, X[:45].mean(axis=0))
    np.testing.assert_allclose(model.net_.input_spec.scale, X[:45].std(axis=0))


def test_early_stopping_restores_the_best_epoch(rows):
    X, y = rows
    y = np.random.default_rng(0).permutation(y)
    settings = {**ROWS, "max_epochs": 40, "schedule": "constant", "calibrate": False}
    stop = EarlyStopping(patience=3)
    model = ResNetClassifier(**settings, callbacks=[stop])
    model.fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    losses = [row["valid_loss"] for row in model.history_]
    assert model.n_epochs_ < 40
    assert model.best_epoch_ == np.argmin(losses) + 1 == model.n_epochs_ - 3
    log_proba = model.predict_log_proba(X[40:])
    assert -log_proba[np.arange(20), y[40:]].mean() == pytest.approx(min(losses), rel=1e-5)
    assert not hasattr(stop, "best_epoch_")  # a copy took part


def test_early_stopping_restores_after_the_last_epoch_too(rows):
    X, y = rows
    y = np.random.default_rng(0).permutation(y)
    model = ResNetClassifier(
        **{**ROWS, "max_epochs": 8, "calibrate": False},
        callbacks=[EarlyStopping(patience=99)],
    )
    model.fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    assert model.n_epochs_ == 8
    best = min(row["valid_loss"] for row in model.history_)
    log_proba = model.predict_log_proba(X[40:])
    assert -log_proba[np.arange(20), y[40:]].mean() == pytest.approx(best, rel=1e-5)


def test_callbacks_of_skorch_work_beside_ours(rows):
    X, y = rows
    callbacks = [
        EpochScoring("f1_macro", name="f1", lower_is_better=False),
        SkorchEarlyStopping(monitor="valid_loss", patience=2, threshold=1e9),
    ]
    settings = {**ROWS, "max_epochs": 9}
    model = ResNetClassifier(**settings, callbacks=callbacks, validation_split=0.3).fit(
        X, y
    )
    assert 1 < model.n_epochs_ < 9
    assert 0 <= model.history_[-1]["f1"] <= 1


def test_more_callbacks_of_skorch_work(rows, tmp_path, capsys):
    X, y = rows
    callbacks = [
        Checkpoint(dirname=str(tmp_path), monitor="valid_loss_best"),
        LRScheduler("StepLR", step_size=1),
        GradientNormClipping(1.0),
        PrintLog(),
        EarlyStopping,
    ]
    settings = {**ROWS, "schedule": "constant", "verbose": 1}
    model = ResNetClassifier(**settings, callbacks=callbacks).fit(X, y)
    assert (tmp_path / "params.pt").exists()
    np.testing.assert_allclose(
        [row["lr"] for row in model.history_], [0.1, 0.01, 0.001, 1e-4]
    )
    assert "valid_loss" in capsys.readouterr().out


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_l1_leaves_frozen_weights_alone(rows, optimizer):
    X, y = rows
    settings = {**ROWS, "l1": 0.1, "optimizer": optimizer, "callbacks": [Freezer("stem*")]}
    model = ResNetClassifier(**settings).fit(X, y)
    assert (model.module_.stem.conv1.weight != 0).all()
    assert (model.module_.stages[0][0].branch.conv1.weight == 0).any()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_can_be_thawed_in_training(rows, optimizer):
    X, y = rows
    callbacks = [Freezer("stem*"), Unfreezer("stem*", at=3)]
    model = ResNetClassifier(**{**ROWS, "optimizer": optimizer, "callbacks": callbacks})
    weights = []
    for n in (1, 2, 3):
        weights.append(model.set_params(max_epochs=n).fit(X, y).module_.stem.conv1.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


class FrozenStem(Callback):
    """Freezes the stem in training alone."""

    def on_train_begin(self, net, **kwargs):
        net.module_.stem.requires_grad_(False)

    def on_train_end(self, net, **kwargs):
        net.module_.stem.requires_grad_(True)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_l1_leaves_weights_alone_that_were_frozen_in_training(rows, optimizer):
    X, y = rows
    settings = {**ROWS, "l1": 0.1, "optimizer": optimizer, "callbacks": [FrozenStem()]}
    model = ResNetClassifier(**settings).fit(X, y)
    assert (model.module_.stem.conv1.weight != 0).all()
    assert (model.module_.stages[0][0].branch.conv1.weight == 0).any()


def test_callbacks_on_batches_do_not_change_the_training(rows):
    X, y = rows
    scoring = EpochScoring("accuracy", name="again", lower_is_better=False)
    model = ResNetClassifier(**ROWS, validation_split=0.3, callbacks=[scoring]).fit(X, y)
    plain = ResNetClassifier(**ROWS, validation_split=0.3).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), plain.predict_proba(X))
    for row, expected in zip(model.history_, plain.history_, strict=True):
        assert row["again"] == pytest.approx(row["valid_accuracy"])
        assert row["train_loss"] == expected["train_loss"]


# Going on


def test_partial_fit_is_one_pass(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS, lr=0.03).partial_fit(X, y, classes=[0, 1, 2, 3])
    assert model.n_epochs_ == 1
    assert model.net_.history[-1, "train_batch_count"] == 4
    for _ in range(15):
        model.partial_fit(X[::2], y[::2])
    assert model.n_epochs_ == 16
    assert model.predict_proba(X).shape == (60, 4)
    assert model.score(X, y) > 0.8


def test_warm_start_goes_on(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS, warm_start=True).fit(X, y)
    first = model.history_[-1]["train_loss"]
    model.fit(X, y)
    assert model.n_epochs_ == 8
    assert model.history_[4]["train_loss"] < model.history_[0]["train_loss"]
    assert model.history_[-1]["train_loss"] < first
    assert model.set_params(warm_start=False).fit(X, y).n_epochs_ == 4


def test_training_on_takes_another_batch_size(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS, warm_start=True).fit(X, y)
    for train_on in (model.fit, model.partial_fit):
        model.set_params(batch_size=30)
        assert train_on(X, y).net_.history[-1, "train_batch_count"] == 2
        model.set_params(batch_size=10)
        assert train_on(X, y).net_.history[-1, "train_batch_count"] == 6


def test_a_refit_is_the_same_as_a_first_fit(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS)
    first = model.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), first)
    np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), first)


def test_a_trained_wide_network_has_the_parameters_of_the_paper():
    X = np.random.default_rng(0).normal(size=(4, 3, 8, 8))
    model = WideResNetClassifier(10, width=1, max_epochs=1, layout="small")
    model.partial_fit(X, [0, 1, 2, 3], classes=range(10))
    assert model.n_parameters_ == 77_850


@pytest.mark.parametrize(
    ("n", "batch_size", "expected"),
    [(50, 16, 125), (1000, 10, 30), (1000, 64, 32), (4, 4, 200)],
)
def test_small_sets_get_more_epochs_by_default(n, batch_size, expected):
    assert resolve_epochs("auto", n, batch_size) == expected
    assert resolve_epochs(7, n, batch_size) == 7


def test_the_default_number_of_epochs_is_trained(rows):
    X, y = rows
    model = ResNetClassifier(depth=4, batch_size=6, n_estimators=1, random_state=0)
    model.fit(X, y)
    assert model.n_epochs_ == 50


def test_label_smoothing_is_the_cross_entropy_with_smoothed_labels(rows):
    X, y = rows
    settings = {**ROWS, "max_epochs": 1, "batch_size": 60, "label_smoothing": 0.3}
    losses = {}
    for smoothing in (0.0, 0.3):
        settings["label_smoothing"] = smoothing
        model = ResNetClassifier(**settings, l2=0.0).fit(X, y)
        losses[smoothing] = model.history_[0]["train_loss"]
    # The loss of the first step is that of the initial network, in training mode.
    module = copy.deepcopy(model.module_)
    initialize(module, torch.Generator().manual_seed(model._seed))
    x = torch.from_numpy(model.net_.input_spec.transform(X))
    log_p = module.train()(x).log_softmax(1).detach()
    target = torch.full((60, 3), 0.1)
    target[torch.arange(60), torch.from_numpy(y)] = 0.8
    assert losses[0.3] == pytest.approx(float(-(target * log_p).sum(1).mean()), rel=1e-5)
    hard = float(-log_p[torch.arange(60), torch.from_numpy(y)].mean())
    assert losses[0.0] == pytest.approx(hard, rel=1e-5)


def test_l2_on_all_shrinks_norms_and_biases(rows):
    X, y = rows
    settings = {**ROWS, "l2": 0.5, "max_epochs": 10}
    norms = {}
    for where in ("kernels", "all"):
        module = ResNetClassifier(**settings, l2_on=where).fit(X, y).module_
        scales = [p for name, p in module.named_parameters() if "norm" in name]
        norms[where] = sum(float(p.detach().norm()) for p in scales if p.ndim == 1)
    assert norms["all"] < 0.5 * norms["kernels"]


@pytest.mark.parametrize("shape", [(1, 3, 3, 3), (1, 1, 1), (1, 6, 2), (1, 2)])
def test_bfloat16_is_not_used_where_its_gradients_are_wrong(shape):
    X, y = np.random.default_rng(0).normal(size=(20, *shape)), np.arange(20) % 2
    settings = {**IMAGES, "layout": "small", "max_epochs": 1}
    with pytest.warns(UserWarning, match="gradients in bfloat16 are wrong"):
        model = ResNetClassifier(**settings, precision="bfloat16").fit(X, y)
    assert model.precision_ == "float32"
    expected = ResNetClassifier(**settings, precision="float32").fit(X, y)
    np.testing.assert_array_equal(
        model.set_params(precision="float32").predict_proba(X), expected.predict_proba(X)
    )


@pytest.mark.parametrize("shape", [(5,), (2, 3, 3), (2, 7, 4), (2, 3), (2, 40)])
def test_gradients_in_bfloat16_are_right_where_it_is_used(shape):
    X, y = np.random.default_rng(0).normal(size=(20, *shape)), np.arange(20) % 2
    model = ResNetClassifier(**IMAGES, precision="bfloat16").fit(X, y)
    assert model.precision_ == "bfloat16"
    module = model.module_.eval()
    x = torch.from_numpy(X).float()
    gradients = []
    for enabled in (False, True):
        module.zero_grad()
        # The allocator hands this memory out again: what is never written shows up.
        junk = [torch.full((2**k,), 1e30) for k in range(6, 18)]
        del junk
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            nn.functional.cross_entropy(module(x).float(), torch.from_numpy(y)).backward()
        gradients.append([w.grad.clone() for w in kernels(module).values()])
    for one, other in zip(*gradients, strict=True):
        assert (one - other).norm() < 0.5 * one.norm() + 1e-3


def test_skorch_passes_scores_of_ours_through(rows):
    X, y = rows
    scoring = PassthroughScoring("train_loss", on_train=True)
    settings = {"depth": 4, "max_epochs": 1, "n_estimators": 1}
    model = ResNetClassifier(**settings, callbacks=[scoring]).fit(X, y)
    assert model.history_[0]["train_loss"] > 0


def test_the_tensorboard_logger_of_skorch_gets_the_history(rows):
    class Writer:
        def __init__(self):
            self.scalars = {}

        def add_scalar(self, tag, scalar_value, global_step):
            self.scalars.setdefault(tag, {})[global_step] = scalar_value

    X, y = rows
    writer = Writer()
    settings = {**ROWS, "max_epochs": 3, "validation_split": 0.2}
    model = ResNetClassifier(
        **settings, callbacks=[TensorBoard(writer, close_after_train=False)]
    )
    model.fit(X, y)
    for tag, column in (
        ("Loss/train_loss", "train_loss"),
        ("Loss/valid_loss", "valid_loss"),
    ):
        assert list(writer.scalars[tag].values()) == [row[column] for row in model.history_]


def test_a_warm_start_may_validate_for_the_first_time(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS, warm_start=True).fit(X, y)
    model.set_params(validation_split=0.2).fit(X, y)
    assert [("valid_loss" in row) for row in model.history_] == [False] * 4 + [True] * 4
    assert model.history_[4]["valid_loss"] > 0


class Held(Callback):
    """Notes which samples are held out."""

    def __init__(self, found):
        self.found = found  # which copies share

    def on_train_begin(self, net, X, y, **kwargs):
        self.found.append(set(range(60)) - set(X.rows.tolist()))


SPLITS = {
    "fraction": {"validation_split": 0.2},
    "groups": {"validation_split": 0.2},
    "splitter": {"validation_split": ShuffleSplit(1, test_size=0.2)},
    "drawing splitter": {
        "validation_split": ShuffleSplit(
            1, test_size=0.2, random_state=np.random.RandomState(0)
        )
    },
    "folds": {"validation_split": KFold(5, shuffle=True)},
    "monitored": {"callbacks": [EarlyStopping(patience=99)]},
    "ensemble": {"n_estimators": 3},
}


@pytest.mark.parametrize("random_state", [None, 0, "drawing"])
@pytest.mark.parametrize("name", SPLITS)
def test_one_network_is_never_trained_on_what_it_was_validated_on(
    rows, name, random_state, tmp_path
):
    X, y = rows
    drawing = np.random.RandomState(1)
    random_state = drawing if random_state == "drawing" else random_state
    settings = {**ROWS, "max_epochs": 1, "random_state": random_state, **SPLITS[name]}
    found, before = [], np.random.get_state()[1].tolist()  # noqa: NPY002
    callbacks = [*settings.pop("callbacks", []), Held(found)]
    model = ResNetClassifier(**settings, warm_start=True, callbacks=callbacks)
    given = {"groups": np.arange(60) // 3} if name == "groups" else {}
    for _ in range(2):
        model.fit(X, y, **given)
    again = copy.deepcopy(model.set_params(callbacks=None))
    again.set_params(callbacks=callbacks).fit(X, y, **given)
    n = settings["n_estimators"]
    assert len(found) == 3 * n
    assert all(found[:n])
    assert found[:n] == found[n : 2 * n] == found[2 * n :]
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_two_networks_hold_other_samples_out(rows):
    found = []
    settings = {**ROWS, "max_epochs": 1, "random_state": None}
    for split in (0.2, ShuffleSplit(1, test_size=0.2)):
        model = ResNetClassifier(
            **settings, validation_split=split, callbacks=[Held(found)]
        )
        model.fit(*rows).fit(*rows)
        assert found[-1] != found[-2]


def test_a_small_part_does_not_make_later_passes_small(rows):
    X, y = rows
    model = ResNetClassifier(**{**ROWS, "batch_size": 32}).partial_fit(X, y, np.unique(y))
    assert model.partial_fit(X[:4], y[:4]).batch_size_ == 32
    model.set_params(batch_size=8)
    assert model.partial_fit(X, y).batch_size_ == 8


def test_a_refused_warm_start_leaves_the_model_as_it_was(rows):
    X, y = rows
    model = ResNetClassifier(**ROWS, warm_start=True).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="changed: set it back"):
        model.set_params(depth=6, batch_size=7).fit(X, y)
    assert model.batch_size_ == 16
    np.testing.assert_array_equal(model.predict_proba(X), before)
    model.set_params(depth=4, l1=0.1, l1_structure="channel", block=(3,))
    with pytest.raises(ValueError, match="with one convolution"):
        model.fit(X, y)


def test_backward_hooks_work_on_the_fitted_network(images):
    X, y = images
    module = ResNetClassifier(**{**IMAGES, "max_epochs": 1}).fit(X, y).module_
    seen = []
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_full_backward_hook(lambda *gradients: seen.append(gradients))
    module(torch.from_numpy(X)).sum().backward()
    assert len(seen) > 5
