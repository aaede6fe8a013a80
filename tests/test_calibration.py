"""Temperature, and the folds that the networks of an ensemble are validated on."""

import numpy as np
import pytest
from scipy import special
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import PredefinedSplit, StratifiedKFold, train_test_split

import sk_resnet
from sk_resnet import EarlyStopping, ResNetClassifier, ResNetRegressor
from sk_resnet._batches import ArrayDataset
from sk_resnet._calibration import calibrated_loss, fitted_temperature, of_average
from sk_resnet._data import FOLDS, fold_rows, training_data
from sk_resnet._input import input_spec
from sk_resnet._target import Labels, LabelSets


def noisy(n=240, seed=0):
    """A table whose labels are often wrong, so that networks are too sure."""
    return make_classification(n, 6, n_classes=2, flip_y=0.4, random_state=seed)


def model(**changes):
    return ResNetClassifier(**{"depth": 4, "max_epochs": 20, "random_state": 0} | changes)


def validation_set(y):
    X = np.zeros((len(y), 1))
    spec = input_spec(X, input_shape=None, channel_axis="auto")
    return ArrayDataset(X, spec, y)


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_the_temperature_is_that_by_which_outputs_are_too_sure(factor):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3))
    y = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    outputs = (factor * logits).astype(np.float32)
    target = Labels(np.arange(3))
    found = fitted_temperature([outputs], [validation_set(y)], target)
    assert found == pytest.approx(factor, rel=0.05)


def test_the_temperature_of_labels_that_are_not_exclusive():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 2))
    y = (rng.random(logits.shape) < special.expit(logits)).astype(np.float32)
    target = LabelSets(np.arange(2))
    outputs = (2 * logits).astype(np.float32)
    found = fitted_temperature([outputs], [validation_set(y)], target)
    assert found == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("make", [Labels, LabelSets])
def test_rounding_moves_no_temperature(make):
    rng = np.random.default_rng(0)
    outputs = 2 * rng.normal(size=(200, 2)).astype(np.float32)
    y = rng.integers(0, 2, 200 if make is Labels else (200, 2))
    y = y if make is Labels else y.astype(np.float32)
    target = make(np.arange(2))
    rounded = [outputs, *(np.nextafter(outputs, x) for x in (-np.inf, np.inf))]
    found = [fitted_temperature([x], [validation_set(y)], target) for x in rounded]
    np.testing.assert_allclose(found, found[0], rtol=1e-6)


def test_folds_stop_short_of_what_a_common_set_tells():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8_000, 2))
    y = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    outputs, target = (3 * logits).astype(np.float32), Labels(np.arange(2))
    common = validation_set(y)
    assert fitted_temperature([outputs] * 2, [common] * 2, target) == pytest.approx(
        3, rel=0.05
    )
    halves = [validation_set(y[:4000]), validation_set(y[4000:])]
    parts = [outputs[:4000], outputs[4000:]]
    assert fitted_temperature(parts, halves, target) == pytest.approx(2 + 1 / 3, rel=0.05)


def test_an_average_needs_less_temperature_and_in_the_end_as_much():
    assert of_average(1.0) == 1
    assert of_average(0.7) == 0.7  # what is not sure enough alone is not so together
    T = np.linspace(1.1, 20, 50)
    of_mean = np.array([of_average(t) for t in T])
    assert (np.diff(of_mean) > 0).all()
    assert ((of_mean > 1) & (of_mean < T)).all()
    assert of_mean[0] - 1 < 0.1 * (T[0] - 1)
    assert of_mean[-1] > 0.95 * T[-1]


def test_noise_that_members_share_stays_in_their_average():
    # Logits that carry as much noise as signal: own noise of each member, or one for all.
    rng = np.random.default_rng(0)
    n, members = 4_000, 8
    signal = rng.normal(size=(n, 1)) * [[0, 1]]
    y = (signal + rng.gumbel(size=signal.shape)).argmax(1)

    def best(noise, seen):
        outputs = (signal + noise).astype(np.float32)
        return fitted_temperature(list(outputs[:seen]), [validation_set(y)] * seen, target)

    target = Labels(np.arange(2))
    own = rng.normal(size=(members, n, 2)) * 2
    shared = np.repeat(own[:1], members, axis=0)
    alone = best(shared, 1)
    assert best(shared, members) == pytest.approx(alone)
    assert best(own, members) < of_average(alone) < alone


def test_a_few_samples_that_are_all_right_do_not_make_it_sure():
    outputs = np.array([[4.0, 0], [0, 4], [4, 0]], dtype=np.float32)
    y = np.array([0, 1, 0])
    assert fitted_temperature([outputs], [validation_set(y)], Labels(np.arange(2))) > 0.8


def test_it_is_that_of_scikit_learn():
    X, y = noisy(600)
    a, b, c, d = train_test_split(X, y, test_size=300, random_state=0)
    ours = model(n_estimators=1).fit(a, c, X_val=b, y_val=d)
    raw = model(n_estimators=1, calibrate=False).fit(a, c, X_val=b, y_val=d)
    theirs = CalibratedClassifierCV(FrozenEstimator(raw), method="temperature").fit(b, d)
    assert ours.temperature_ > 1.2
    # It has no prior, which is worth less than a sample.
    best = log_loss(d, theirs.predict_proba(b))
    assert best <= log_loss(d, ours.predict_proba(b)) < best + 1 / 300
    logits = special.logit(raw.predict_proba(b)[:, 1]) / ours.temperature_
    np.testing.assert_allclose(
        ours.predict_proba(b)[:, 1], special.expit(logits), atol=1e-5
    )
    np.testing.assert_array_equal(ours.predict(b), raw.predict(b))


def test_probabilities_of_an_ensemble_are_better_for_it():
    X, y = noisy(800)
    a, b, c, d = train_test_split(X, y, test_size=400, random_state=0)
    settings = {"n_estimators": 3, "max_epochs": 40, "l2": 0.0}  # which overfits
    sure = model(**settings, calibrate=False).fit(a, c)
    ours = model(**settings).fit(a, c)
    assert sure.temperature_ == 1
    gained = log_loss(d, sure.predict_proba(b)) - log_loss(d, ours.predict_proba(b))
    assert gained > 0.05


def test_files_and_later_training_keep_it(tmp_path):
    X, y = noisy()
    fitted = model(n_estimators=2).fit(X, y)
    sk_resnet.save(fitted, tmp_path / "model")
    loaded = sk_resnet.load(tmp_path / "model")
    assert loaded.temperature_ == fitted.temperature_ != 1
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    loaded.partial_fit(X, y)
    assert loaded.temperature_ == fitted.temperature_
    assert log_loss(y, loaded.predict_proba(X)) < np.log(2)


def test_without_validation_nothing_is_divided():
    X, y = noisy()
    assert model(n_estimators=1).fit(X, y).temperature_ == 1
    assert model(n_estimators=2, validation_split=None).fit(X, y).temperature_ == 1
    assert model().partial_fit(X, y, classes=[0, 1]).temperature_ == 1
    assert "valid_loss" not in ResNetRegressor(4, max_epochs=1).fit(X, y).history_[0]


# Folds


def test_every_sample_is_held_out_once():
    strata = np.repeat([0, 1, 2], [50, 23, 1])
    rows = np.arange(74) + 100
    folds = fold_rows(rows, strata, None, most=4, seed=0)
    assert len(folds) == 4
    held_out = np.concatenate([valid for _, valid in folds])
    # That of which there is one stays in every training part.
    np.testing.assert_array_equal(np.sort(held_out), rows[:-1])
    for train, valid in folds:
        np.testing.assert_array_equal(np.sort([*train, *valid]), rows)
        for stratum, n in ((0, 50), (1, 23)):
            assert abs((strata[valid - 100] == stratum).sum() - n / 4) < 1


def test_folds_do_not_tear_groups_apart():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 12, 100)
    for train, valid in fold_rows(
        np.arange(100), np.arange(100) % 2, groups, most=3, seed=0
    ):
        assert set(groups[train]).isdisjoint(groups[valid])


def test_few_samples_make_fewer_folds():
    y = np.array([0, 0, 0, 1, 1])
    folds = fold_rows(np.arange(5), y, None, most=8, seed=0)
    assert [len(valid) for _, valid in folds] == [2, 1, 1, 1]
    for train, _ in folds:
        assert set(y[train]) == {0, 1}
    X = np.random.default_rng(0).normal(size=(5, 2))
    assert model(n_estimators=8).fit(X, y).temperature_ != 1


@pytest.mark.parametrize("y", [[0, 1], [0, 1, 2]])
def test_classes_of_one_sample_are_never_held_out(y):
    X = np.random.default_rng(0).normal(size=(len(y), 2))
    assert model(n_estimators=2).fit(X, y).temperature_ == 1
    with pytest.raises(ValueError, match="valid"):
        model(n_estimators=2, callbacks=[EarlyStopping()]).fit(X, y)


def data_of(split, n_members, sample_weight=None):
    X, y = noisy(60)
    return training_data(
        X,
        y,
        sample_weight=sample_weight,
        target=Labels(np.unique(y)),
        spec=input_spec(X, input_shape=None, channel_axis="auto"),
        scale="standard",
        split=split,
        n_members=n_members,
    )


def test_samples_of_weight_0_are_in_no_part():
    weight = np.ones(60)
    weight[::3] = 0
    for own in data_of(FOLDS, 4, weight):
        assert np.flatnonzero(weight).tolist() == sorted(
            [*own.training.rows, *own.validation.rows]
        )


def test_each_network_gets_another_split_of_a_splitter():
    splitter = StratifiedKFold(3)
    expected = [valid.tolist() for _, valid in splitter.split(*noisy(60))]
    found = [own.validation.rows.tolist() for own in data_of(splitter, 4)]
    assert found == [*expected, expected[0]]
    single = PredefinedSplit(np.repeat([0, -1], 30))
    assert len({id(own) for own in data_of(single, 4)}) == 1


def test_networks_stop_early_by_their_own_folds():
    X, y = noisy()
    stopped = model(n_estimators=3, callbacks=[EarlyStopping(patience=2)]).fit(X, y)
    assert len(stopped.best_epoch_) == 3
    assert {"valid_loss", "valid_accuracy"} <= stopped.history_[0].keys()


def test_the_default_is_an_ensemble_for_rows_and_one_network_for_images(images, rows):
    fitted = ResNetClassifier(max_epochs=1, random_state=0).fit(*rows)
    assert len(fitted.nets_) == fitted.module_.spec.members == 8
    assert fitted.member_probabilities(rows[0]).shape == (8, 60, 3)
    assert len(ResNetClassifier(8, max_epochs=1).fit(*images).nets_) == 1


def test_the_calibrated_loss_is_that_at_the_temperature_and_the_same_for_every_scale():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2000, 3))
    y = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    target = Labels(np.arange(3))
    at_one = log_loss(y, special.softmax(logits, axis=1))
    for factor in (0.3, 1.0, 5.0):
        outputs = (factor * logits).astype(np.float32)
        found = calibrated_loss(outputs, validation_set(y), target)
        temperature = fitted_temperature([outputs], [validation_set(y)], target)
        expected = log_loss(y, special.softmax(outputs.astype(float) / temperature, axis=1))
        assert found == pytest.approx(expected, rel=1e-6)
        assert found == pytest.approx(at_one, rel=5e-3)


@pytest.mark.parametrize("n_estimators", [1, 3])
def test_early_stopping_watches_the_calibrated_loss(n_estimators):
    X, y = noisy()
    stop = EarlyStopping("valid_calibrated_loss", patience=100)
    found = model(n_estimators=n_estimators, callbacks=[stop]).fit(X, y, X_val=X, y_val=y)
    assert all("valid_calibrated_loss" in row for row in found.history_)
    # It leaves the training alone, and is never above the loss.
    plain = model(n_estimators=n_estimators).fit(X, y, X_val=X, y_val=y)
    for row, other in zip(found.history_, plain.history_, strict=True):
        assert row["train_loss"] == other["train_loss"]
        assert row["valid_loss"] == other["valid_loss"]
        assert "valid_calibrated_loss" not in other
        if n_estimators == 1:
            assert row["valid_calibrated_loss"] < row["valid_loss"] + 1e-3
    if n_estimators == 1:
        least = min(found.history_, key=lambda row: row["valid_calibrated_loss"])
        assert found.best_epoch_ == least["epoch"]


def test_the_calibrated_loss_is_of_classifiers_alone():
    X, y = noisy()
    stop = EarlyStopping("valid_calibrated_loss")
    with pytest.raises(ValueError, match="monitors 'valid_calibrated_loss', which is not"):
        ResNetRegressor(4, max_epochs=2, callbacks=[stop]).fit(X, y.astype(float))
