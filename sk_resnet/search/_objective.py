"""A cross-validated score as the objective of a study."""

from __future__ import annotations

import inspect
import math
import os
import pickle
import secrets
import shutil
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import hash as hash_of
from scipy import sparse
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils import check_consistent_length, check_random_state, indexable
from skorch.exceptions import SkorchException

from sk_resnet._callbacks import CallbackError, CtrlC, interrupt_of_main_thread
from sk_resnet._compat_sklearn import rows_of
from sk_resnet._data import DEFAULT_FRACTION
from sk_resnet._fused import Meeting, is_in_task, present_settings, same_settings
from sk_resnet._net import DivergenceError, NonFiniteError
from sk_resnet._plan import resolve_batch_size, resolve_epochs
from sk_resnet._spec import Architecture, ArchitectureError
from sk_resnet._training import Unit
from sk_resnet.search._distributions import (
    described,
    ends,
    nearest_draw,
    require_optuna,
    suggest,
)
from sk_resnet.search._pruning import FoldReports, TrialReports
from sk_resnet.search._space import (
    StepError,
    check_no_dataset,
    check_space,
    in_front_of_network,
    network_samples,
    network_step,
    resolved_parameters,
    sample_shape,
)

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import BaseTrial

    from sk_resnet.search._distributions import Distribution

FINGERPRINT = "sk_resnet_fingerprint"
# User attribute that names the folder of a trial's checkpoints; a retry inherits it.
FOLDER = "checkpoint"
# Steps of the reports are epochs: studies whose steps counted otherwise are other studies.
REPORTS = "epochs of all folds"


def _new_meeting(linger: float = 0.0) -> Meeting:
    """Where folds train together, or take turns after each epoch."""
    meeting = Meeting(linger=linger, in_turns=True)
    meeting.open(True)
    return meeting


def _wait(futures: Sequence[Future[None]]) -> None:
    """Wait for the folds of a trial, or for Ctrl-C.

    Trials that run beside each other are no part of the main thread, where alone Ctrl-C
    arrives. Optuna waits there for their end, which may be hours away.
    """
    earlier = interrupt_of_main_thread()
    while wait(futures, SECONDS_OF_WAITING).not_done:
        interrupt = interrupt_of_main_thread()
        if interrupt is not None and interrupt is not earlier:
            raise KeyboardInterrupt


# Parameters beside those of an `Architecture` that not every network or sample fits.
SHAPED_BY = ("l1_structure", "augment", "test_time_augmentation", "input_shape")
# What ends a trial, not the study, where drawn parameters may be behind it.
FAILS_A_TRIAL = (DivergenceError, ArchitectureError, CallbackError)
# Between two looks at whether Ctrl-C came in the main thread.
SECONDS_OF_WAITING = 0.5
# What callbacks of others raise for parameters that cannot be.
OF_CALLBACKS = (
    SkorchException,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
)
# Of a trial: a score takes as long as some training steps.
MOST_REPORTS = 14
# Seconds that a sampler may take between two trials which run beside others.
SECONDS_TO_SAMPLE = 0.5


class CrossValidationObjective:
    """Cross-validated score of an estimator, for ``study.optimize``.

    Each fold is fitted on its training part alone, with the steps of a pipeline in front.
    All folds are fitted at once: as one network where they can be (rows, and small images
    and series), else they take turns after each epoch. So the mean score of all folds can
    be reported after each epoch, for the study's pruner; beyond 14 epochs after every
    second, beyond 28 after every third, and so on. Steps are epochs. A fold that stopped
    early counts with its last score. Nothing is reported in a study whose pruner is
    ``NopPruner``. The scores and numbers of epochs of the folds are
    user attributes of the trial, ``fold_scores`` and ``fold_epochs``. `create_study`
    starts with the estimator's own parameters. With ``study.optimize(objective,
    n_jobs=8)`` the folds of eight trials wait for each other, and those of one
    architecture train as one. With a folder as the estimator's ``checkpoint`` the retry of
    a trial whose worker died goes on where that was; the files of a trial are deleted when
    it has ended. The samples of all folds are in memory meanwhile, and steps
    and scorers run in several threads. Ctrl-C ends a trial at once, but with ``n_jobs``
    above 1 Optuna waits for the trials that run: use workers, which end by themselves.

    Parameters
    ----------
    estimator : estimator or Pipeline
        A classifier or regressor of this package, or a pipeline that ends in one.
    X : array-like of shape (n_samples, ...)
        Samples.
    y : array-like or sparse matrix of shape (n_samples,) or (n_samples, n_outputs)
        Labels, an indicator of several labels a sample, or numbers.
    space : dict of str to optuna distribution or `Only`
        See `search_space`. Any parameter of the estimator may be in it, those of named
        callbacks too, such as ``callbacks__stop__patience``.
    cv : int, splitter or iterable, default=3
        As in scikit-learn; an int makes stratified folds where y has one class a sample.
    scoring : str or callable, default=None
        As in scikit-learn; higher is better. A callable gets the estimator or pipeline,
        with the network as it is after an epoch, and the samples of a fold. None is
        accuracy for classifiers, and R² for regressors.
    groups : array-like of shape (n_samples,), default=None
        For splitters of groups, and for the estimator's ``validation_split``.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples in training.

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
        estimator: BaseEstimator,
        X: Any,
        y: Any,
        *,
        space: dict[str, Distribution],
        cv: Any = 3,
        scoring: str | Callable[..., float] | None = None,
        groups: Any = None,
        sample_weight: Any = None,
    ) -> None:
        self.estimator, self.space = estimator, space
        self._meeting = _new_meeting(SECONDS_TO_SAMPLE)
        self.X, _ = indexable(X, None)
        self.y = y.tocsr() if sparse.issparse(y) else np.asarray(y)
        self.sample_weight = None if sample_weight is None else np.asarray(sample_weight)
        self.groups = None if groups is None else np.asarray(groups)
        check_consistent_length(self.X, self.y, self.sample_weight, self.groups)
        check_no_dataset(X)
        net, self._prefix = network_step(estimator)
        self._folder = None if net.checkpoint is None else Path(net.checkpoint).absolute()
        if self._folder is not None and not self._folder.is_dir():
            raise ValueError(
                f"checkpoint={os.fspath(net.checkpoint)!r} must be None or an existing "
                "folder in a study: each fold of a trial has a file."
            )
        self._shape = None
        with suppress(StepError):  # what is wrong will show in a trial, if anything is
            self._shape = sample_shape(net, network_samples(estimator, self.X, self.y))
        check_space(estimator, net, self._prefix, space, self._shape)
        if isinstance(scoring, (list, tuple, set, dict)):
            raise ValueError(f"scoring must be one score, got several: {scoring!r}.")
        self.scorer = check_scoring(estimator, scoring)
        self._scores_by_function = callable(scoring)
        splitter = check_cv(cv, self.y, classifier=is_classifier(estimator))
        self.folds = list(splitter.split(self.X, self.y, self.groups))
        _check_folds(self.folds, self.y.shape[0])
        most_epochs = self._most_epochs() + max(self._values("finetune_epochs"))
        self.report_every = math.ceil(most_epochs / MOST_REPORTS)
        # What is not drawn; the drawn parameters are those of the space.
        fixed = clone(estimator).set_params(**dict.fromkeys(space))
        self.fingerprint = hash_of(
            (REPORTS, np.asarray(X) if hasattr(X, "iloc") else self.X)
            + (self.y, self.sample_weight, self.folds)
            + (described(space), _told_apart(fixed))
            + ((scoring,) if isinstance(scoring, str) else ())
        )

    def _values(self, name: str) -> list[Any]:
        """What a parameter can be: its choices, or the ends of its range."""
        d = self.space.get(self._prefix + name)
        return [self.estimator.get_params()[self._prefix + name]] if d is None else ends(d)

    def _most_epochs(self) -> int:
        splits = self._values("validation_split")
        held_out = [s if isinstance(s, float) else DEFAULT_FRACTION for s in splits]
        left = 1 - max(held_out)
        # With max_epochs="auto" fewer rows may take more epochs, and some may be held out.
        sizes = {len(train) for train, _ in self.folds}
        return max(
            resolve_epochs(epochs, n, resolve_batch_size(batch_size, n))
            for n in sizes | {max(1, int(left * n)) for n in sizes}
            for batch_size in self._values("batch_size")
            for epochs in self._values("max_epochs")
        )

    def __call__(self, trial: BaseTrial) -> float:
        """Score a trial.

        Parameters
        ----------
        trial : optuna.Trial
            Of a study that maximises, or a FixedTrial.

        Returns
        -------
        float
            Mean over the folds. NaN, which fails the trial, where training diverged, or no
            network or callback has the drawn parameters together; the reason is its user
            attribute ``error``.
        """
        study = getattr(trial, "study", None)  # FixedTrial and FrozenTrial have none
        if study is not None:
            check_study(study, self.fingerprint)
        parameters = suggest(trial, self.space)
        try:
            with self._checkpoints(trial) as folder:
                scores, n_epochs = self._fit_folds(trial, parameters, folder)
        except FAILS_A_TRIAL as error:
            if not self._has_drawn(error):
                raise
            warnings.warn(f"Trial {trial.number}: {error}", UserWarning, stacklevel=2)
            trial.set_user_attr("error", str(error))
            return math.nan
        trial.set_user_attr("fold_scores", scores)
        trial.set_user_attr("fold_epochs", n_epochs)
        return float(np.mean(scores))

    @contextmanager
    def _checkpoints(self, trial: BaseTrial) -> Iterator[Path | None]:
        """Folder for the checkpoints of a trial, and of that which it is the retry of.

        It is deleted when the trial has ended: its scores are in the study. It stays when
        the worker dies, and behind Ctrl-C and errors of Python or the machine.
        """
        if self._folder is None:
            yield None
            return
        if (name := trial.user_attrs.get(FOLDER)) is None:
            trial.set_user_attr(FOLDER, name := f"trial-{secrets.token_hex(8)}")
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        try:
            yield folder
        except (*FAILS_A_TRIAL, require_optuna().TrialPruned):
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)

    def _has_drawn(self, error: Exception) -> bool:
        """Whether drawn parameters may be behind an error, so that others may do better."""
        if isinstance(error, CallbackError):
            start = f"{self._prefix}callbacks"
            return any(name.startswith(start) for name in self.space)
        names = [*(field.name for field in fields(Architecture)), *SHAPED_BY]
        return isinstance(error, DivergenceError) or any(
            self._prefix + name in self.space for name in names
        )

    def _is_of_drawn_callback(self, error: BaseException) -> bool:
        """Whether it was raised within a callback whose parameters are drawn."""
        start, given = f"{self._prefix}callbacks__", self.estimator.get_params()
        names = {
            k.removeprefix(start).split("__")[0] for k in self.space if k.startswith(start)
        }
        drawn = tuple(
            kind if isinstance(kind, type) else type(kind)
            for kind in (given[f"{start}{name}"] for name in names)
        )
        frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
        return isinstance(error, OF_CALLBACKS) and any(
            isinstance(frame.f_locals.get("self"), drawn) for frame in frames
        )

    def _fit_folds(
        self, trial: BaseTrial, parameters: dict[str, Any], folder: Path | None
    ) -> tuple[list[float], list[int]]:
        """Scores and numbers of epochs of the folds, which are fitted at once."""
        n, settings, seeds = len(self.folds), present_settings(), self._seeds(trial)
        reports, unit = TrialReports(trial, n, self.report_every), Unit()
        is_apart = is_in_task() or not self._meeting.is_here()
        meeting = _new_meeting() if is_apart else self._meeting
        found: dict[int, tuple[float, int]] = {}
        under_way = set(range(n))

        def end(fold: int) -> None:
            if fold in under_way:
                under_way.remove(fold)
                meeting.end_task()

        def fit(fold: int) -> None:
            try:
                with same_settings(*settings), meeting.attended(fold, unit):
                    if unit.error is None:
                        found[fold] = self._fit_fold(
                            reports, parameters, fold, seeds[fold], folder
                        )
            except BaseException as error:
                unit.fail(error)
            finally:
                end(fold)

        meeting.begin_tasks(n)
        with CtrlC() as ctrl_c, ThreadPoolExecutor(n) as threads:
            futures: list[Future[None]] = []
            try:
                for fold in range(n):
                    futures.append(threads.submit(fit, fold))
                _wait(futures)
            except BaseException as error:  # Ctrl-C, or a thread that cannot start
                unit.fail(error)
                for fold in range(len(futures), n):
                    end(fold)
                # Not by joining: Python before 3.13 takes a thread for ended whose join
                # was interrupted, and a process that ends beside it is aborted.
                wait(futures)
        if ctrl_c.came:  # and may have been lost
            raise KeyboardInterrupt
        if unit.error is not None:
            try:
                if self._is_of_drawn_callback(unit.error):
                    reason = f"{type(unit.error).__name__} of a callback: {unit.error}"
                    raise CallbackError(reason) from unit.error
                raise unit.error
            finally:  # or its traceback would keep itself, and the data, alive
                unit.error = None
        scores, n_epochs = zip(*(found[fold] for fold in range(n)), strict=True)
        return list(scores), list(n_epochs)

    def _seeds(self, trial: BaseTrial) -> list[int | None]:
        """Seeds of the folds; drawn here, as threads would in any order.

        A trial hands its own on to a retry, which goes on from its checkpoints.
        """
        state = self.estimator.get_params()[f"{self._prefix}random_state"]
        draws = state is None and f"{self._prefix}random_state" not in self.space
        if not draws:
            return [None] * len(self.folds)
        seeds: list[int | None] | None = trial.user_attrs.get("fold_seeds")
        if seeds is None:
            new = check_random_state(None).randint(2**31 - 1, size=len(self.folds))
            trial.set_user_attr("fold_seeds", seeds := new.tolist())
        return seeds

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_meeting"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _meeting=_new_meeting(SECONDS_TO_SAMPLE))

    def _fit_fold(
        self,
        reports: TrialReports,
        parameters: dict[str, Any],
        fold: int,
        seed: int | None,
        folder: Path | None,
    ) -> tuple[float, int]:
        """Score and number of epochs."""
        train, test = self.folds[fold]
        y_train, y_test = self.y[train], self.y[test]
        model = clone(self.estimator).set_params(**parameters)
        X_of_test = rows_of(self.X, test)
        net, X_train, X_test = in_front_of_network(
            model, rows_of(self.X, train), y_train, X_of_test
        )
        # Functions get what `cross_validate` gives them; scores by name are equal for the
        # network alone, without all steps again for each report.
        whole, X_of_whole = model, X_of_test
        if not self._scores_by_function:
            whole, X_of_whole = net, X_test

        settings = present_settings()

        def score() -> float:
            with same_settings(*settings):  # also in threads that train for others
                return _finite_score(self.scorer, whole, X_of_whole, y_test)

        # In front: callbacks behind one that stops do not see the epoch.
        net.set_params(callbacks=[FoldReports(reports, fold), *(net.callbacks or [])])
        if seed is not None:
            net.set_params(random_state=seed)
        if folder is not None:
            net.set_params(checkpoint=folder)
        reports.scorers[fold] = score
        try:
            net.fit(X_train, y_train, **self._of_samples(train))
        finally:  # which holds the network that holds the callback
            del reports.scorers[fold]
        return score(), net.n_epochs_

    def _of_samples(self, rows: Any, prefix: str = "") -> dict[str, Any]:
        """What fit gets beside X and y."""
        given = {"sample_weight": self.sample_weight, "groups": self.groups}
        return {prefix + k: v[rows] for k, v in given.items() if v is not None}

    def own_parameters(self) -> dict[str, Any]:
        """Return the estimator's own parameters, each moved to the nearest of the space.

        Returns
        -------
        dict
            For ``study.enqueue_trial``, which `create_study` calls. What has no nearest,
            such as a width that is no choice, is left to the sampler.
        """
        net, _ = network_step(self.estimator)
        own: dict[str, Any] = {}
        if self._shape is not None:
            n = len(self.folds[0][0])
            resolved = resolved_parameters(net, self._shape, n)
            own = {self._prefix + name: value for name, value in resolved.items()}
        return nearest_draw(self.space, {**self.estimator.get_params(), **own})

    def best_parameters(self, study: Study) -> dict[str, Any]:
        """Return the parameters of the best trial, with those that were not drawn.

        Parameters
        ----------
        study : optuna.Study
            With at least one complete trial.

        Returns
        -------
        dict
            For ``estimator.set_params``.

        Raises
        ------
        ValueError
            If no trial is complete; it says why the last one failed. For a study that
            does not maximise one score.
        """
        _check_direction(study)
        trials = study.get_trials(deepcopy=False)
        if not any(trial.state.name == "COMPLETE" for trial in trials):
            errors = [t.user_attrs["error"] for t in trials if "error" in t.user_attrs]
            reason = f", {len(errors)} failed, the last: {errors[-1]}" if errors else "."
            raise ValueError(
                f"Study {study.study_name!r} has no complete trial: {len(trials)} "
                f"began{reason}"
            )
        fixed = require_optuna().trial.FixedTrial(study.best_trial.params)
        return suggest(fixed, self.space)

    def refit(self, study: Study) -> BaseEstimator:
        """Fit the estimator with the best parameters to all samples.

        Parameters
        ----------
        study : optuna.Study
            With at least one complete trial.

        Returns
        -------
        estimator
            Fitted.
        """
        model = clone(self.estimator).set_params(**self.best_parameters(study))
        if self._folder is not None:  # which may be another one by now
            model.set_params(**{f"{self._prefix}checkpoint": self._folder})
        return model.fit(self.X, self.y, **self._of_samples(slice(None), self._prefix))


def check_study(study: Study, fingerprint: str) -> None:
    """Refuse a study of other data or another space, and mark a new one."""
    _check_direction(study)
    earlier = study.user_attrs.get(FINGERPRINT)
    if earlier is None:
        study.set_user_attr(FINGERPRINT, fingerprint)
    elif earlier != fingerprint:
        raise ValueError(
            f"Study {study.study_name!r} was started with other data, folds or "
            "scoring, another space or other parameters of the estimator: resume it with "
            "those (a cv that shuffles needs a random_state), or start a study of another "
            "name."
        )


def _check_direction(study: Study) -> None:
    names = [direction.name for direction in study.directions]
    if names != ["MAXIMIZE"]:
        raise ValueError(
            "The study must maximise one score: create it with direction='maximize', got "
            f"{', '.join(names)}."
        )


# Parameters that no score depends on.
WITHOUT_EFFECT = ("verbose", "checkpoint", "device", "compile", "n_jobs", "memory")


def _told_apart(value: Any) -> str:
    """Text for a value, equal in all processes and other for another value.

    Of an estimator, the parameters that are not at their defaults.
    """
    if isinstance(value, BaseEstimator):
        parameters = inspect.signature(type(value)).parameters
        defaults = {name: parameter.default for name, parameter in parameters.items()}
        given = {
            name: _told_apart(one)
            for name, one in sorted(value.get_params(deep=False).items())
            if name not in WITHOUT_EFFECT
        }
        changed = {k: v for k, v in given.items() if v != _told_apart(defaults.get(k))}
        return f"{type(value).__qualname__}({changed})"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_told_apart, value))}]"
    try:
        return str(hash_of(value))
    except (pickle.PicklingError, TypeError, AttributeError):  # such as a lambda
        return getattr(value, "__qualname__", type(value).__qualname__)


def _check_folds(folds: list[Any], n: int) -> None:
    for train, test in folds:
        if not len(train) or not len(test) or max(np.max(train), np.max(test)) >= n:
            raise ValueError(
                f"cv must give pairs of rows to train and to score on, both below {n}, got "
                f"{len(train)} and {len(test)} rows: is it a cv of other data?"
            )


def _finite_score(
    scorer: Callable[..., float], model: BaseEstimator, X: Any, y: Any
) -> float:
    try:
        return float(scorer(model, X, y))
    except NonFiniteError as error:
        raise DivergenceError(
            "The predictions became infinite or NaN: lower lr, or scale the input."
        ) from error
