"""A cross-validated objective for Optuna, spaces for it, and studies that last."""

from __future__ import annotations

import math
import os
import re
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from joblib import hash as hash_of
from scipy.stats import wilcoxon
from sklearn.base import clone
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import check_consistent_length
from skorch.callbacks import Callback

from sk_resnet._optim import OPTIMIZERS
from sk_resnet._recipe import resolve_batch_size, resolve_epochs
from sk_resnet._space import (
    Only,
    check_space,
    described,
    nearest,
    network_step,
    require_optuna,
    sample_shape,
    search_space,
    suggest,
)
from sk_resnet._split import DEFAULT_FRACTION
from sk_resnet._training import DivergenceError

__all__ = [
    "CrossValidationObjective",
    "Only",
    "PruningCallback",
    "create_study",
    "retry_stale_trials",
    "search_space",
    "suggest",
]

FINGERPRINT = "sk_resnet_fingerprint"


# Pruning


class PruningCallback(Callback):
    """Report a quantity to a trial after each epoch, and stop where its pruner says so.

    Parameters
    ----------
    trial : optuna.Trial
        Trial that the fit belongs to. Clones of the callback share it.
    monitor : str, default="valid_accuracy"
        Column of ``history_``. The study must maximise it, or minimise a loss.

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

    def __init__(self, trial: Any, monitor: str = "valid_accuracy") -> None:
        self.trial = trial
        self.monitor = monitor

    def __deepcopy__(self, memo: Any) -> PruningCallback:
        return PruningCallback(self.trial, self.monitor)  # one trial, one storage

    def __sklearn_clone__(self) -> PruningCallback:
        return PruningCallback(self.trial, self.monitor)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
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


class _FoldReports(Callback):
    """Reports the mean of the folds so far, with the current one, after each epoch."""

    def __init__(
        self, trial: Any, score: Callable[[], float], done: list[float], first_step: int
    ) -> None:
        self.trial, self.score = trial, score
        self.done, self.first_step = done, first_step

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        value = float(np.mean([*self.done, self.score()]))
        self.trial.report(value, self.first_step + net.history[-1]["epoch"])
        if self.trial.should_prune():
            raise require_optuna().TrialPruned(f"pruned in fold {len(self.done) + 1}")


class CrossValidationObjective:
    """Cross-validated score of an estimator, for ``study.optimize``.

    Each fold is fitted on its training part alone, with the steps of a pipeline in front.
    After each epoch the mean score of the folds so far is reported, at the step
    ``fold · max_epochs + epoch``, so that the study's pruner (successive halving, median)
    compares trials at the same place; a space with ``max_epochs`` counts its largest.
    After each fold a one-sided Wilcoxon test against the folds of the best trial prunes
    too. Scores, epochs and seconds of the folds are user attributes of the trial; a trial
    that is retried goes on behind its last fold, on any machine. `create_study` starts
    with the estimator's own parameters.

    Parameters
    ----------
    estimator : estimator or Pipeline
        One of ours, or a pipeline that ends in one.
    X : array-like of shape (n_samples, ...)
        Samples.
    y : array-like of shape (n_samples,)
        Labels.
    space : dict of str to optuna distribution or `Only`
        See `search_space`.
    cv : int, splitter or iterable, default=3
        As in scikit-learn; an int makes stratified folds.
    scoring : str or callable, default=None
        As in scikit-learn; higher is better. None is accuracy.
    groups : array-like of shape (n_samples,), default=None
        For splitters of groups, and for the estimator's ``validation_split``.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples in training.
    fold_p_value : float, default=0.1
        Level of the Wilcoxon test; 0 switches it off. Fewer than four folds never reach
        0.1.

    Raises
    ------
    ValueError
        For parameters that the estimator has not, depths that do not fit, folds that do
        not fit the data, and a study that belongs to other data or another space.
    TypeError
        For values of the space that are no distributions.

    Examples
    --------
    >>> import optuna
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.search import CrossValidationObjective, search_space
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ResNetClassifier(depth=4, max_epochs=3, random_state=0)
    >>> space = {"lr": search_space(model, X)["lr"]}
    >>> objective = CrossValidationObjective(model, X, y, space=space)
    >>> study = optuna.create_study(direction="maximize")
    >>> study.optimize(objective, n_trials=2)
    >>> len(study.best_trial.user_attrs["fold_scores"])
    3
    """

    def __init__(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        space: dict[str, Any],
        cv: Any = 3,
        scoring: Any = None,
        groups: Any = None,
        sample_weight: Any = None,
        fold_p_value: float = 0.1,
    ) -> None:
        self.estimator, self.space = estimator, space
        self.X = X if hasattr(X, "columns") else np.asarray(X)  # tables keep their names
        self.y = np.asarray(y)
        self.sample_weight = None if sample_weight is None else np.asarray(sample_weight)
        self.groups = None if groups is None else np.asarray(groups)
        self.fold_p_value = fold_p_value
        check_consistent_length(self.X, self.y, self.sample_weight, self.groups)
        net, self._prefix = network_step(estimator)
        check_space(estimator, net, self._prefix, space, X)
        if isinstance(scoring, (list, tuple, set, dict)):
            raise ValueError(f"scoring must be one score, got several: {scoring!r}.")
        self.scorer = check_scoring(estimator, scoring)
        splitter = check_cv(cv, self.y, classifier=True)
        self.folds = list(splitter.split(self.X, self.y, self.groups))
        _check_folds(self.folds, len(self.y))
        self._steps_of_fold = self._most_epochs() + max(self._values("finetune_epochs"))
        self.fingerprint = hash_of(
            (np.asarray(X), self.y, self.sample_weight, self.folds, described(space))
            + ((scoring,) if isinstance(scoring, str) else ())
        )

    def _values(self, name: str) -> list[Any]:
        """What a parameter can be: its choices, or the largest of its range."""
        d = self.space.get(self._prefix + name)
        if d is None:
            return [self.estimator.get_params()[self._prefix + name]]
        otherwise = [d.otherwise] if isinstance(d, Only) else []
        d = d.distribution if isinstance(d, Only) else d
        return [*(getattr(d, "choices", None) or [d.high]), *otherwise]

    def _most_epochs(self) -> int:
        net = clone(network_step(self.estimator)[0])
        split = net.validation_split
        left = 1 - (split if isinstance(split, float) else DEFAULT_FRACTION)
        most = 0
        # With max_epochs="auto" fewer rows may take more epochs, and some may be held out.
        sizes = {len(train) for train, _ in self.folds}
        for n in sizes | {int(left * n) for n in sizes}:
            for size in self._values("batch_size"):
                net.batch_size_ = resolve_batch_size(net.set_params(batch_size=size), n)
                for epochs in self._values("max_epochs"):
                    most = max(most, resolve_epochs(net.set_params(max_epochs=epochs), n))
        return most

    def __call__(self, trial: Any) -> float:
        """Score a trial.

        Parameters
        ----------
        trial : optuna.Trial
            Of a study that maximises, or a FixedTrial.

        Returns
        -------
        score : float
            Mean over the folds; NaN where training diverged, which fails the trial.
        """
        study = getattr(trial, "study", None)  # FixedTrial and FrozenTrial have none
        if study is not None:
            self._check_study(study)
        parameters = suggest(trial, self.space)
        records = {
            key: list(trial.user_attrs.get(key, []))
            for key in ("fold_scores", "fold_epochs", "fold_seconds")
        }
        for fold in range(len(records["fold_scores"]), len(self.folds)):
            started = time.perf_counter()
            try:
                score, n_epochs = self._fit_fold(trial, parameters, fold, records)
            except DivergenceError as error:
                warnings.warn(f"Trial {trial.number}: {error}", UserWarning, stacklevel=2)
                trial.set_user_attr("error", str(error))
                return math.nan
            for key, value in zip(
                records, (score, n_epochs, time.perf_counter() - started), strict=True
            ):
                records[key].append(value)
                trial.set_user_attr(key, records[key])
            if fold + 1 < len(self.folds) and self._is_behind(study, records):
                pruned = require_optuna().TrialPruned
                raise pruned(f"behind the best trial in {fold + 1} folds")
        return float(np.mean(records["fold_scores"]))

    def _fit_fold(
        self, trial: Any, parameters: dict[str, Any], fold: int, records: dict[str, Any]
    ) -> tuple[float, int]:
        train, test = self.folds[fold]
        model = clone(self.estimator).set_params(**parameters)
        X_train, X_test = _rows(self.X, train), _rows(self.X, test)
        y_train, y_test = self.y[train], self.y[test]
        while isinstance(model, Pipeline):
            if len(model.steps) > 1:
                before = model[:-1]
                X_train = before.fit_transform(X_train, y_train)
                X_test = before.transform(X_test)
            model = model[-1]

        def score() -> float:
            try:
                return float(self.scorer(model, X_test, y_test))
            except ValueError as error:  # losses refuse NaN
                if np.isfinite(model.predict_proba(X_test)).all():
                    raise
                raise DivergenceError(
                    "The probabilities became NaN: lower lr, or standardize the input."
                ) from error

        first_step = fold * self._steps_of_fold
        reports = _FoldReports(trial, score, records["fold_scores"], first_step)
        # In front: callbacks behind one that stops do not see the epoch.
        model.set_params(callbacks=[reports, *(model.callbacks or [])])
        model.fit(X_train, y_train, **self._of_samples(train))
        return score(), model.n_epochs_

    def _of_samples(self, rows: Any, prefix: str = "") -> dict[str, Any]:
        """What fit gets beside X and y."""
        given = {"sample_weight": self.sample_weight, "groups": self.groups}
        return {prefix + k: v[rows] for k, v in given.items() if v is not None}

    def _is_behind(self, study: Any, records: dict[str, Any]) -> bool:
        if self.fold_p_value <= 0 or study is None:
            return False
        try:
            best = study.best_trial.user_attrs.get("fold_scores", [])
        except ValueError:  # no trial is complete yet
            return False
        n = len(records["fold_scores"])
        differences = np.array(records["fold_scores"]) - np.array(best[:n])
        if len(best) < n or not differences.any():
            return False
        return wilcoxon(differences, alternative="less").pvalue < self.fold_p_value

    def own_parameters(self) -> dict[str, Any]:
        """Return the estimator's own parameters, each moved to the nearest of the space.

        Returns
        -------
        parameters : dict
            For ``study.enqueue_trial``, which `create_study` calls. What has no nearest,
            such as a width that is no choice, is left to the sampler.
        """
        net, _ = network_step(self.estimator)
        n_dims = len(sample_shape(net, self.X)) - 1
        auto = {
            "lr": OPTIMIZERS[net.optimizer].default_lr,
            "l2": net._default_l2[n_dims > 0],
        }
        every = self.estimator.get_params()
        own: dict[str, Any] = {}
        drawn: dict[str, Any] = {}
        for name, distribution in self.space.items():
            value = every[name]
            if value == "auto":
                value = auto.get(name.removeprefix(self._prefix), value)
            if isinstance(distribution, Only):
                if not distribution.applies(drawn):
                    drawn[name] = distribution.otherwise
                    continue
                distribution = distribution.distribution
            found = nearest(distribution, value)
            drawn[name] = value if found is None else found
            if found is not None:
                own[name] = found
        return own

    def _check_study(self, study: Any) -> None:
        if study.direction.name != "MAXIMIZE":
            raise ValueError(
                "The study must maximise: create it with direction='maximize'."
            )
        earlier = study.user_attrs.get(FINGERPRINT)
        if earlier is None:
            study.set_user_attr(FINGERPRINT, self.fingerprint)
        elif earlier != self.fingerprint:
            raise ValueError(
                f"Study {study.study_name!r} was started with other data, folds or "
                "scoring, or another space: resume it with those (a cv that shuffles needs "
                "a random_state), or start a study of another name."
            )

    def best_parameters(self, study: Any) -> dict[str, Any]:
        """Return the parameters of the best trial, with those that were not drawn.

        Parameters
        ----------
        study : optuna.Study
            With at least one complete trial.

        Returns
        -------
        parameters : dict
            For ``estimator.set_params``.
        """
        fixed = require_optuna().trial.FixedTrial(study.best_trial.params)
        return suggest(fixed, self.space)

    def refit(self, study: Any) -> Any:
        """Fit the estimator with the best parameters to all samples.

        Parameters
        ----------
        study : optuna.Study
            With at least one complete trial.

        Returns
        -------
        estimator : estimator
            Fitted.
        """
        model = clone(self.estimator).set_params(**self.best_parameters(study))
        return model.fit(self.X, self.y, **self._of_samples(slice(None), self._prefix))


def _rows(X: Any, rows: Any) -> Any:
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def _check_folds(folds: list[Any], n: int) -> None:
    for train, test in folds:
        if not len(train) or not len(test) or max(np.max(train), np.max(test)) >= n:
            raise ValueError(
                f"cv must give pairs of rows to train and to score on, both below {n}, got "
                f"{len(train)} and {len(test)} rows: is it a cv of other data?"
            )


# Studies that last


def create_study(
    storage: Any = None,
    *,
    objective: CrossValidationObjective | None = None,
    name: str | None = None,
    sampler: Any = None,
    pruner: Any = None,
    heartbeat: int = 60,
    max_retry: int = 3,
) -> Any:
    """Study that maximises, survives dead workers, and is resumed by its name.

    Parameters
    ----------
    storage : str, path or optuna storage, default=None
        ``"sqlite:///study.db"``, ``"postgresql+psycopg://user@host/database"``, or the
        path of a journal that ends in ``.journal``. None keeps the study in memory. A
        storage of Optuna is used as it is, with its own heartbeat.
    objective : CrossValidationObjective, default=None
        Its estimator's own parameters are the first trial of a new study, and a study
        that was started with other data or another space is refused at once.
    name : str, default=None
        Name; a study of that name is resumed.
    sampler : optuna sampler, default=None
        None is Optuna's TPE.
    pruner : optuna pruner, default=None
        None is successive halving, which keeps the better half after half of the epochs
        of a fold, after one fold, two, and four; without an objective from the fifth
        epoch on.
    heartbeat : int, default=60
        Seconds between signs of life of a worker. A trial without them for twice as long
        fails, and is put in the queue again. Journals have no heartbeat, and a worker
        may die before its first one: see `retry_stale_trials`.
    max_retry : int, default=3
        How often a trial is retried.

    Returns
    -------
    study : optuna.Study
        New or resumed.

    Raises
    ------
    ConnectionError
        For a storage that cannot be reached.
    ValueError
        For a study that belongs to other data or another space than the objective.

    Examples
    --------
    >>> from sk_resnet.search import create_study
    >>> create_study().direction.name
    'MAXIMIZE'
    """
    optuna = require_optuna()
    kept: Any = storage
    if isinstance(storage, (str, os.PathLike)):
        kept = _open(os.fspath(storage), heartbeat, max_retry)
    # Optuna's own values keep a sixteenth after four epochs, where the learning rate of a
    # schedule is still near its peak and the order says little.
    first = 5 if objective is None else max(1, objective._steps_of_fold // 2)
    study = optuna.create_study(
        storage=kept,
        study_name=name,
        direction="maximize",
        load_if_exists=name is not None,
        sampler=sampler,
        pruner=pruner
        or optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=2),
    )
    if objective is not None:
        objective._check_study(study)
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(objective.own_parameters(), skip_if_exists=True)
    return study


def _open(storage: str, heartbeat: int, max_retry: int) -> Any:
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    storages = require_optuna().storages
    try:
        if storage.endswith(".journal"):
            return storages.JournalStorage(storages.journal.JournalFileBackend(storage))
        with warnings.catch_warnings():
            # So is the heartbeat.
            warnings.simplefilter("ignore", require_optuna().exceptions.ExperimentalWarning)
            return storages.RDBStorage(
                storage,
                heartbeat_interval=heartbeat,
                heartbeat_stale_trial_callback=_retry(max_retry),
            )
    except (ArgumentError, SQLAlchemyError, ImportError, OSError) as error:
        reason = str(error).partition("\n")[0]
        shown = re.sub(r"(//[^/@]*:)[^/@]*@", r"\1***@", storage)  # no password in logs
        raise ConnectionError(
            f"The storage {shown!r} cannot be reached ({reason}): check the address, "
            "that the server runs, and that its driver is installed."
        ) from error


def retry_stale_trials(study: Any, *, older_than: float, max_retry: int = 3) -> int:
    """Fail trials that run for too long, and put them in the queue again.

    For journals, whose trials run for ever when their worker dies, and for the rare
    worker that dies before its first heartbeat.

    Parameters
    ----------
    study : optuna.Study
        Any study.
    older_than : float
        Seconds since the start of a trial after which its worker counts as dead. More
        than any trial takes: a worker that still lives ends with an error.
    max_retry : int, default=3
        How often a trial is retried; after that it only fails.

    Returns
    -------
    n : int
        Number of trials that were put in the queue.

    Examples
    --------
    >>> from sk_resnet.search import create_study, retry_stale_trials
    >>> study = create_study()
    >>> trial = study.ask()
    >>> retry_stale_trials(study, older_than=0)
    1
    """
    optuna, n = require_optuna(), 0
    running = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    for trial in running:
        if time.time() - trial.datetime_start.timestamp() < older_than:
            continue
        try:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        except ValueError:  # it has ended, or another worker was first
            continue
        if len(trial.system_attrs.get("retry_history", [])) < max_retry:
            _retry(max_retry)(study, trial)
            n += 1
    return n


def _retry(max_retry: int) -> Any:
    with warnings.catch_warnings():
        # Optuna calls it experimental; it has been there since 2021.
        warnings.simplefilter("ignore", require_optuna().exceptions.ExperimentalWarning)
        storages = require_optuna().storages
        return storages.RetryHeartbeatStaleTrialCallback(max_retry=max_retry)
