import copy
import re
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EpochScoring,
    LoadInitState,
    PassthroughScoring,
)
from torch import nn

from sk_resnet import EarlyStopping, ResNetClassifier, _callbacks
from sk_resnet._batches import ArrayDataset
from sk_resnet._input import input_spec
from sk_resnet._target import Labels

SETTINGS = {"depth": 4, "max_epochs": 8, "batch_size": 16, "random_state": 0}
SETTINGS |= {"n_estimators": 1}


def stopped_at(stop, values):
    """Epoch at which a course of the monitored quantity ends training, or None."""
    net = SimpleNamespace(history=[], module_=nn.Linear(1, 1))
    stop.on_train_begin(net)
    for epoch, value in enumerate(values, start=1):
        net.history.append({"epoch": epoch, stop.monitor: value})
        try:
            stop.on_epoch_end(net)
        except KeyboardInterrupt:
            assert stop.stopped_epoch_ == epoch
            return epoch
    assert stop.stopped_epoch_ is None
    return None


@pytest.mark.parametrize(
    ("options", "values", "stopped", "best"),
    [
        ({"patience": 2}, [1.0, 0.9, 0.95, 0.85, 0.9], None, 4),
        ({"patience": 2}, [1.0, 0.9, 0.95, 0.9, 0.1], 4, 2),
        ({"patience": 2, "min_delta": 0.2}, [1.0, 0.9, 0.85, 0.1], 3, 1),
        ({"patience": 2, "min_delta": 0.2}, [1.0, 0.9, 0.75, 0.7], None, 3),
        ({"patience": 1, "monitor": "valid_accuracy"}, [0.5, 0.6, 0.6], 3, 2),
        ({"patience": 1, "monitor": "train_loss"}, [0.5, np.nan], 2, 1),
    ],
)
def test_early_stopping_counts_epochs_without_improvement(options, values, stopped, best):
    stop = EarlyStopping(**options)
    assert stopped_at(stop, values) == stopped
    assert stop.best_epoch_ == best
    assert stop.best_value_ == values[best - 1]


@pytest.mark.parametrize("restore_best", [True, False])
def test_early_stopping_restores_only_where_asked(rows, restore_best):
    X, y = rows
    y = np.random.default_rng(0).permutation(y)
    validation = {"X_val": X[40:], "y_val": y[40:]}
    stop = EarlyStopping(patience=99, restore_best=restore_best)
    model = ResNetClassifier(**SETTINGS, callbacks=[stop])
    model.fit(X[:40], y[:40], **validation)
    assert (model.best_epoch_ < model.n_epochs_) == restore_best
    last = ResNetClassifier(**SETTINGS).fit(X[:40], y[:40], **validation)
    equal = np.array_equal(model.predict_proba(X), last.predict_proba(X))
    assert equal != restore_best


@pytest.mark.parametrize("n_estimators", [1, 3])
def test_a_limit_of_time_ends_a_fit_behind_an_epoch(rows, n_estimators):
    settings = {"depth": 4, "n_estimators": n_estimators, "random_state": 0}
    model = ResNetClassifier(**settings, max_epochs=50, max_seconds=1e-9).fit(*rows)
    assert model.n_epochs_ == 1
    assert model.predict(rows[0]).shape == rows[1].shape
    unlimited = ResNetClassifier(**settings, max_epochs=3)
    limited = ResNetClassifier(**settings, max_epochs=3, max_seconds=1000)
    np.testing.assert_array_equal(
        limited.fit(*rows).predict_proba(rows[0]),
        unlimited.fit(*rows).predict_proba(rows[0]),
    )


def test_a_limit_of_time_leaves_the_best_weights(rows, monkeypatch):
    clock = iter(range(100))
    now = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr(_callbacks, "time", now)
    model = ResNetClassifier(
        4,
        n_estimators=1,
        max_epochs=50,
        max_seconds=6,
        callbacks=[EarlyStopping(monitor="train_loss", min_delta=1e9)],
        random_state=0,
    ).fit(*rows)
    assert model.n_epochs_ == 6
    assert model.best_epoch_ == 1


def test_the_bar_shows_the_losses_of_the_epoch_that_it_counts(capfd):
    with _callbacks.epoch_progress(4, 0, shown=True) as [callback]:
        callback.bar.mininterval = 0  # show each epoch, however short
        for epoch in range(1, 5):
            history = [{"train_loss": epoch / 8}]
            callback.on_epoch_end(SimpleNamespace(history=history, target=Labels))
    states = re.findall(r" (\d)/4 [^\r]*train_loss=([\d.]+)", capfd.readouterr().err)
    expected = ("1", "0.125"), ("2", "0.250"), ("3", "0.375"), ("4", "0.500")
    assert list(dict.fromkeys(states)) == list(expected)


@pytest.mark.parametrize("n_estimators", [1, 2])
def test_the_names_to_monitor_are_those_of_the_history(rows, n_estimators):
    settings = {"depth": 4, "width": 0.25, "max_epochs": 2, "validation_split": 0.2}
    model = ResNetClassifier(n_estimators=n_estimators, random_state=0, **settings)
    names = model.fit(*rows).history_[0]
    for name in names:
        model.set_params(callbacks=[EarlyStopping(name)]).fit(*rows)
    model.set_params(callbacks=[EarlyStopping("dur")])
    with pytest.raises(ValueError, match=re.escape(f"use one of {sorted(names)}, and")):
        model.fit(*rows)


def net_loss(net, X, y):
    return float(net.get_loss(net.forward(X), y))


SCORINGS = {
    "epoch": EpochScoring("f1_macro", name="scored", lower_is_better=False),
    "epoch anew": EpochScoring("f1_macro", name="scored", use_caching=False),
    "function": EpochScoring(net_loss, name="scored", use_caching=False),
    "batch": BatchScoring("accuracy", name="scored"),
    "loss": PassthroughScoring("valid_loss"),
}


@pytest.mark.parametrize("n_estimators", [1, 2])
@pytest.mark.parametrize("split", ["auto", None, 0.2])
@pytest.mark.parametrize("name", SCORINGS)
def test_scores_of_skorch_come_from_samples_that_are_held_out(
    rows, name, split, n_estimators
):
    settings = {**SETTINGS, "n_estimators": n_estimators, "validation_split": split}
    model = ResNetClassifier(**settings, callbacks=[SCORINGS[name]]).fit(*rows)
    assert all("valid_loss" in row for row in model.history_)
    if name != "loss":
        assert all(np.isfinite(row["scored"]) for row in model.history_)


@pytest.mark.parametrize("on_train", [False, True])
def test_a_scorer_gets_the_samples_and_y_of_its_part(rows, on_train):
    X, y = rows
    split = [(np.arange(40), np.arange(40, 60))]
    found = []

    def compare(net, of_part, y_of_part):
        found.append((len(of_part), y_of_part))
        return net_loss(net, of_part, y_of_part)

    scoring = EpochScoring(compare, name="scored", use_caching=False, on_train=on_train)
    model = ResNetClassifier(**SETTINGS, validation_split=split, callbacks=[scoring])
    expected = y[:40] if on_train else y[40:]
    for row, (n, given) in zip(model.fit(X, y).history_, found, strict=True):
        assert n == len(expected)
        np.testing.assert_array_equal(given, expected)
        if not on_train:
            assert row["scored"] == pytest.approx(row["valid_loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["valid_f1", "train_accuracy"])
def test_a_score_that_no_batch_has_is_named(rows, name):
    scoring = PassthroughScoring(name, on_train=name.startswith("train"))
    with pytest.raises(ValueError, match=f"passes on '{name}', .* use one of .*_loss'"):
        ResNetClassifier(**SETTINGS, callbacks=[scoring]).fit(*rows)


def test_scores_of_the_training_hold_nothing_out(rows):
    scoring = EpochScoring("accuracy", name="scored", on_train=True)
    model = ResNetClassifier(**SETTINGS, callbacks=[scoring]).fit(*rows)
    assert model.history_[0].keys() >= {"scored"}
    assert "valid_loss" not in model.history_[0]


class Writes(Callback):
    """Holds a lock, as TensorBoard's writer does."""

    n_written = 0

    def __init__(self):
        self.lock = threading.Lock()

    def on_epoch_end(self, net, **kwargs):
        with self.lock:
            Writes.n_written += 1


def makes_writes():
    return Writes()


@pytest.mark.parametrize("callbacks", [[Writes()], [("write", Writes())]])
def test_callbacks_that_cannot_be_copied_are_named(rows, callbacks):
    model = ResNetClassifier(**SETTINGS, callbacks=callbacks).fit(*rows)
    search = GridSearchCV(model, {"l2": [0.0]}, cv=2)
    for act in (clone, copy.deepcopy, lambda model: search.fit(*rows)):
        with pytest.raises(TypeError, match="Writes .* cannot be copied .*give a class or"):
            act(model)
    small = model.compact()
    assert small.callbacks[0] is callbacks[0]
    np.testing.assert_array_equal(small.predict(rows[0]), model.predict(rows[0]))


@pytest.mark.parametrize("given", [Writes, makes_writes, ("write", makes_writes)])
def test_a_class_or_a_function_stands_for_a_callback(rows, given, monkeypatch):
    monkeypatch.setattr(Writes, "n_written", 0)
    model = ResNetClassifier(**SETTINGS, callbacks=[given])
    GridSearchCV(model, {"l2": [0.0]}, cv=2, refit=False).fit(*rows)
    copy.deepcopy(clone(model).fit(*rows)).fit(*rows)
    assert Writes.n_written == 4 * SETTINGS["max_epochs"]


def test_a_callback_that_holds_another_gets_its_copy(rows, tmp_path):
    kept = []

    class Notes(Callback):
        def on_train_begin(self, net, **kwargs):
            kept.append(dict(net.callbacks_))

    keeps = Checkpoint(dirname=str(tmp_path), monitor="train_loss_best")
    model = ResNetClassifier(
        **SETTINGS,
        callbacks=[("keeps", keeps), ("loads", LoadInitState(keeps)), Notes()],
    )
    model.fit(*rows)
    assert kept[0]["keeps"] is not keeps
    assert kept[0]["loads"].checkpoint is kept[0]["keeps"]
    assert model.callbacks[1][1].checkpoint is keeps


class Two(Callback):
    def __init__(self, stop):
        self.stop = stop
        self.found = []

    def on_epoch_end(self, net, **kwargs):
        self.found.append(self.stop.best_epoch_)


def test_a_callback_reads_what_another_has_found(rows):
    stop = EarlyStopping(monitor="train_loss")
    reader = Two(stop)
    settings = {**SETTINGS, "n_estimators": 1}
    ResNetClassifier(**settings, callbacks=[stop, reader]).fit(*rows)
    assert len(reader.found) == SETTINGS["max_epochs"]
    assert min(reader.found) > 0


class Kept(Callback):
    """Says itself how scikit-learn is to clone it."""

    def __sklearn_clone__(self):
        return self


def test_clones_ask_callbacks_that_say_how_they_are_cloned():
    kept, other = Kept(), EarlyStopping()
    model = clone(ResNetClassifier(callbacks=[kept, ("named", kept), other, Kept]))
    first, (name, second), third, fourth = model.callbacks
    assert (first, name, second, fourth) == (kept, "named", kept, Kept)
    assert third is not other
    # What is no list is refused by fit, not by clone.
    alone = clone(ResNetClassifier(callbacks=kept))
    assert alone.callbacks is kept


def test_the_samples_of_a_permuted_part_stand_beside_their_own_y():
    X, y = np.arange(12.0).reshape(6, 2), np.arange(6)
    spec = input_spec(X, input_shape=None, channel_axis="auto")
    for rows in (np.array([3, 1, 5, 0, 2, 4]), np.array([0, 0, 1, 1, 5, 5])):
        data = ArrayDataset(X, spec, y[rows], rows=rows)
        np.testing.assert_array_equal(data.X[:, 0], 2 * data.y)
    assert ArrayDataset(X, spec, y, rows=np.arange(6)).X is X
