from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from sk_resnet import EarlyStopping, ResNetClassifier

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
