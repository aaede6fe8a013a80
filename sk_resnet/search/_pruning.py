"""Callbacks that report to a trial, and stop a fit where the study's pruner says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from skorch.callbacks import Callback

from sk_resnet._net import ResidualNet
from sk_resnet.search._distributions import require_optuna

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


class PruningCallback(Callback):
    """Report a quantity to a trial after each epoch, and stop where its pruner says so.

    Parameters
    ----------
    trial : optuna.Trial
        Trial that the fit belongs to. Clones of the callback share it.
    monitor : str, default="valid_accuracy"
        Column of ``history_``; ``"valid_r2"`` for regressors. The study must maximise
        it, or minimise a loss.

    Examples
    --------
    >>> import optuna
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.search import PruningCallback
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> X, y = load_iris(return_X_y=True)
    >>> def objective(trial):
    ...     model = ResNetClassifier(depth=4, max_epochs=3, validation_split=0.2)
    ...     model.set_params(callbacks=[PruningCallback(trial)], random_state=0)
    ...     return model.fit(X, y).history_[-1]["valid_accuracy"]
    >>> study = optuna.create_study(direction="maximize")
    >>> study.optimize(objective, n_trials=1)
    >>> sorted(study.trials[0].intermediate_values)
    [1, 2, 3]
    """

    follows_estimator = True

    follows_estimator = True  # one report an epoch, also of an ensemble

    def __init__(self, trial: BaseTrial, monitor: str = "valid_accuracy") -> None:
        self.trial = trial
        self.monitor = monitor

    def __deepcopy__(self, memo: Any) -> PruningCallback:
        return PruningCallback(self.trial, self.monitor)  # one trial, one storage

    def __sklearn_clone__(self) -> PruningCallback:
        return PruningCallback(self.trial, self.monitor)

    def on_epoch_end(self, net: ResidualNet, **kwargs: Any) -> None:
        """Report, and prune."""
        record = net.history[-1]
        if self.monitor not in record:
            known = sorted(key for key in record if key != "batches")
            raise ValueError(
                f"PruningCallback monitors {self.monitor!r}, which is not recorded: use "
                f"one of {known}, and give a validation set for those of validation."
            )
        self.trial.report(record[self.monitor], record["epoch"])
        if self.trial.should_prune():
            raise require_optuna().TrialPruned(f"pruned in epoch {record['epoch']}")


class FoldReports(Callback):
    """Reports the mean of the folds so far, with the current one, after each epoch.

    `score` scores the network as it is; `done` are the scores of the folds before, and
    steps count from `first_step`.
    """

    follows_estimator = True

    def __init__(
        self,
        trial: BaseTrial,
        score: Callable[[], float],
        done: list[float],
        first_step: int,
    ) -> None:
        self.trial, self.score = trial, score
        self.done, self.first_step = done, first_step

    def on_epoch_end(self, net: ResidualNet, **kwargs: Any) -> None:
        """Report, and prune."""
        value = float(np.mean([*self.done, self.score()]))
        self.trial.report(value, self.first_step + net.history[-1]["epoch"])
        if self.trial.should_prune():
            raise require_optuna().TrialPruned(f"pruned in fold {len(self.done) + 1}")
