"""Callbacks that report to a trial, and stop a fit where the study's pruner says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from skorch.callbacks import Callback
from torch import Tensor

from sk_resnet._callbacks import monitored
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
    monitor : str, default="valid"
        Column of ``history_``. The study must maximise it, or minimise a loss. "valid" is
        ``"valid_loss"`` for a study that minimises, and for one that maximises the score
        of the validation set: ``"valid_accuracy"``, or ``"valid_r2"`` of regressors.

    Raises
    ------
    ValueError
        At the first epoch, for a column that is not there, and for a study of the other
        direction or of several.

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

    follows_estimator = True  # one report an epoch, also of an ensemble

    def __init__(self, trial: BaseTrial, monitor: str = "valid") -> None:
        self.trial = trial
        self.monitor = monitor

    def __deepcopy__(self, memo: Any) -> PruningCallback:
        return PruningCallback(self.trial, self.monitor)  # one trial, one storage

    def __sklearn_clone__(self) -> PruningCallback:
        return PruningCallback(self.trial, self.monitor)

    def on_epoch_end(self, net: ResidualNet, **kwargs: Any) -> None:
        """Report, and prune."""
        record, minimises = net.history[-1], self._minimises()
        monitor = self.monitor
        if monitor == "valid":
            monitor = "valid_loss" if minimises else f"valid_{net.target.score_name}"
        value = monitored(self, monitor, record)
        if minimises is not None and monitor.endswith("loss") != minimises:
            verb, other = ("minimises", "a loss") if minimises else ("maximises", "a score")
            raise ValueError(
                f"PruningCallback monitors {monitor!r}, and the study {verb}: monitor "
                f"{other}, or make a study of the other direction."
            )
        self.trial.report(value, record["epoch"])
        if self.trial.should_prune():
            raise require_optuna().TrialPruned(f"pruned in epoch {record['epoch']}")

    def _minimises(self) -> bool | None:
        """Whether the trial's study does; None without a study."""
        study = getattr(self.trial, "study", None)  # FixedTrial has none
        if study is None:
            return None
        if len(study.directions) > 1:
            raise ValueError(
                "PruningCallback prunes by one quantity, and the study has "
                f"{len(study.directions)} directions: Optuna prunes studies of one "
                "direction only."
            )
        return study.direction.name == "MINIMIZE"


def _has_pruner(trial: BaseTrial) -> bool:
    study = getattr(trial, "study", None)  # FixedTrial has none
    return study is not None and not isinstance(
        study.pruner, require_optuna().pruners.NopPruner
    )


class TrialReports:
    """Scores of the folds of a trial, whose mean is reported at each epoch that all did.

    Folds are scored `every` few epochs, and never where no pruner reads them.
    """

    def __init__(self, trial: BaseTrial, n_folds: int, every: int = 1) -> None:
        self.trial, self.every = trial, every
        self.are_read = _has_pruner(trial)
        self.n_reported = 0
        self._scores: list[list[float]] = [[] for _ in range(n_folds)]
        self._has_ended = [False] * n_folds
        # By fold, while it is fitted.
        self.scorers: dict[int, Callable[[], float]] = {}
        self._one_at_a_time = threading.Lock()  # folds may train side by side

    def begin(self, fold: int) -> None:
        """Note that a fold trains, also when it did before."""
        self._has_ended[fold] = False

    def add(self, fold: int, place: int, score: float) -> None:
        """Note a score; raise TrialPruned where the pruner says so.

        `place` counts those of the fold. One that an earlier run of the trial had stays:
        networks of an ensemble may go on from other epochs.
        """
        with self._one_at_a_time:
            # More than one where a run of the trial before had no pruner.
            self._scores[fold] += [score] * (place + 1 - len(self._scores[fold]))
            self._report()

    def end(self, fold: int) -> None:
        """Let the last score of a fold count for the epochs that it does not train."""
        with self._one_at_a_time:
            self._has_ended[fold] = True
            self._report()

    def state(self, fold: int) -> dict[str, Any]:
        """What a fold has reached, for a checkpoint."""
        return {"scores": list(self._scores[fold]), "has_ended": self._has_ended[fold]}

    def go_on(self, fold: int, scores: list[float], *, has_ended: bool) -> None:
        """Take the scores of an earlier run of the trial, and report them."""
        with self._one_at_a_time:
            self._scores[fold] = max(self._scores[fold], scores, key=len)
            self._has_ended[fold] = has_ended
            self._report()

    def _report(self) -> None:
        while (values := self._scores_of(self.n_reported)) is not None:
            self.n_reported += 1
            epoch = self.n_reported * self.every
            self.trial.report(float(np.mean(values)), epoch)
            if self.trial.should_prune():
                raise require_optuna().TrialPruned(f"pruned in epoch {epoch}")

    def _scores_of(self, place: int) -> list[float] | None:
        """Scores of all folds; None where one is not there yet, or none trained so long."""
        n_scores = [len(scores) for scores in self._scores]
        there = [
            n > place or (n and has_ended)
            for n, has_ended in zip(n_scores, self._has_ended, strict=True)
        ]
        if max(n_scores) <= place or not all(there):
            return None
        return [scores[min(place, len(scores) - 1)] for scores in self._scores]


class FoldReports(Callback):
    """Adds the score of a fold, with the network as it is, to the reports of a trial."""

    follows_estimator = True

    def __init__(self, reports: TrialReports, fold: int) -> None:
        self.reports, self.fold = reports, fold

    def on_train_begin(
        self, net: ResidualNet, X: Any = None, y: Any = None, **kwargs: Any
    ) -> None:
        """Let other folds wait for this one."""
        self.reports.begin(self.fold)

    def on_epoch_end(self, net: ResidualNet, **kwargs: Any) -> None:
        """Report, and prune."""
        place, rest = divmod(net.history[-1]["epoch"], self.reports.every)
        if rest == 0 and self.reports.are_read:
            self.reports.add(self.fold, place - 1, self.reports.scorers[self.fold]())

    def on_train_end(
        self, net: ResidualNet, X: Any = None, y: Any = None, **kwargs: Any
    ) -> None:
        """Let them wait no longer."""
        self.reports.end(self.fold)

    def state_dict(self) -> tuple[dict[str, Any], list[Tensor]]:
        """Plain values for a checkpoint."""
        return {"has_best": False, **self.reports.state(self.fold)}, []

    def load_state_dict(self, plain: dict[str, Any], best: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.reports.go_on(self.fold, plain["scores"], has_ended=plain["has_ended"])
