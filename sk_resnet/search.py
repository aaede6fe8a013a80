"""Search spaces that fit the data, and a cross-validated objective for Optuna."""

from __future__ import annotations

import math
import os
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
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

from sk_resnet._base import BaseResNet
from sk_resnet._optim import OPTIMIZERS
from sk_resnet._spec import NetworkSpec, network_spec
from sk_resnet._split import DEFAULT_FRACTION
from sk_resnet._training import DivergenceError

WIDTHS = (0.25, 0.5, 1, 2, 4, 8, 10)
N_DEPTHS = 4  # smallest depths in a space
# Memory of training that the widest network of a space may take, in bytes.
MEMORY = 2 * 2**30
# Values kept for the backward pass, as multiples of a block's output.
KEPT_PER_BLOCK = 6
# Distributions by optimizer, and for all.
LR_RANGES = {"sgd": (3e-3, 0.5), "heavy_ball": (3e-3, 0.5), "adamw": (2e-4, 2e-2)}
FINGERPRINT = "sk_resnet_fingerprint"


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ImportError(
            "sk_resnet.search needs Optuna: pip install 'sk-resnet[tune]'."
        ) from None
    return optuna


# Spaces


@dataclass(frozen=True)
class Only:
    """A distribution that is drawn from where a condition on the draws before it holds.

    Parameters
    ----------
    distribution : optuna distribution
        Of the parameter.
    condition : callable
        Takes the dict of the parameters suggested so far; tells whether to draw.
    otherwise : object
        Value where the condition does not hold.

    Examples
    --------
    >>> from optuna.distributions import FloatDistribution
    >>> from optuna.trial import FixedTrial
    >>> from sk_resnet.search import Only, suggest
    >>> wide = Only(FloatDistribution(0, 0.5), lambda drawn: drawn["width"] > 1, 0.0)
    >>> space = {"width": FloatDistribution(0.5, 4), "dropout": wide}
    >>> suggest(FixedTrial({"width": 1.0}), space)
    {'width': 1.0, 'dropout': 0.0}
    """

    distribution: Any
    condition: Callable[[dict[str, Any]], bool]
    otherwise: Any

    def _applies(self, drawn: dict[str, Any]) -> bool:
        try:
            return self.condition(drawn)
        except KeyError as error:
            raise ValueError(
                f"A condition of Only reads {error}, which must stand before it in the "
                f"space: drawn so far are {list(drawn)}."
            ) from error


def search_space(
    estimator: Any, X: Any = None, *, prefix: str | None = None
) -> dict[str, Any]:
    """Make distributions of depth, width, dropout, l1, l2 and lr that fit an estimator.

    Parameters
    ----------
    estimator : estimator or Pipeline
        One of ours, or a pipeline that ends in one.
    X : array-like of shape (n_samples, ...), default=None
        Samples as the network gets them; their shape decides on layers and memory. None
        takes ``input_shape`` of the estimator, or rows.
    prefix : str, default=None
        Stands before each name, such as ``"model__"``. None finds the step of a pipeline.

    Returns
    -------
    space : dict of str to optuna distribution
        For `suggest`, `CrossValidationObjective`, or ``OptunaSearchCV``. Depths are
        valid for the block and layout; no width takes more than 2 GiB in training.

    Raises
    ------
    TypeError
        For other estimators.
    ValueError
        For samples that no depth fits, and for parameters that the estimator refuses.

    Examples
    --------
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.search import search_space
    >>> space = search_space(ResNetClassifier(input_shape=(1, 8, 8)))
    >>> space["depth"]
    IntDistribution(high=26, log=False, low=8, step=6)
    """
    d = _optuna().distributions
    net, found = _network_step(estimator)
    net._validate_params()
    prefix = found if prefix is None else prefix
    shape = _sample_shape(net, X)
    depths = [n for n in range(2, 160) if _spec_or_none(net, shape, depth=n)][:N_DEPTHS]
    if not depths:
        raise ValueError(
            f"No depth fits samples of shape {shape} with block={net.block!r} and "
            f"layout={net.layout!r}: change those, or give X as the network gets it."
        )
    widths = [
        w
        for w in WIDTHS
        if _training_bytes(net, _spec_or_none(net, shape, depth=depths[-1], width=w), shape)
        < MEMORY
    ]
    low, high = LR_RANGES[net.optimizer]
    steps = set(np.diff(depths).tolist())
    depth = (
        d.IntDistribution(depths[0], depths[-1], step=steps.pop())
        if len(steps) == 1
        else d.CategoricalDistribution(depths)
    )
    space = {
        "depth": depth,
        "width": d.CategoricalDistribution(widths or [WIDTHS[0]]),
        "dropout": d.FloatDistribution(0.0, 0.5, step=0.1),
        "l1": d.FloatDistribution(1e-7, 1e-3, log=True),
        "l2": d.FloatDistribution(1e-6, 1e-1 if len(shape) == 1 else 1e-2, log=True),
        "lr": d.FloatDistribution(low, high, log=True),
    }
    return {prefix + name: distribution for name, distribution in space.items()}


def _network_step(estimator: Any) -> tuple[BaseResNet, str]:
    prefix = ""
    while isinstance(estimator, Pipeline):
        name, estimator = estimator.steps[-1]
        prefix += f"{name}__"
    if not isinstance(estimator, BaseResNet):
        raise TypeError(
            "estimator must be a ResNetClassifier or WideResNetClassifier, or a pipeline "
            f"that ends in one, got {type(estimator).__name__}."
        )
    return estimator, prefix


def _sample_shape(net: BaseResNet, X: Any) -> tuple[int, ...]:
    shape = getattr(net, "input_shape", None)
    if shape is None:
        shape = (32,) if X is None else np.shape(X)[1:]
    shape = tuple(shape)
    if not shape:
        raise ValueError(
            f"X must have samples of at least one dimension, got shape {np.shape(X)}."
        )
    return (shape[-1], *shape[:-1]) if net.channel_axis == -1 else shape


def _spec_or_none(
    net: BaseResNet, shape: tuple[int, ...], **changes: Any
) -> NetworkSpec | None:
    names = ("depth", "width", "block", "order", "shortcut", "layout", "dropout")
    values = {name: getattr(net, name) for name in names} | changes
    try:
        return network_spec(input_shape=shape, n_classes=2, wide=net._wide, **values)
    except ValueError:
        return None


def _training_bytes(
    net: BaseResNet, spec: NetworkSpec | None, shape: tuple[int, ...]
) -> float:
    assert spec is not None
    batch = 128 if net.batch_size == "auto" else net.batch_size
    places = math.prod(shape[1:])
    if spec.imagenet_stem:  # its convolution and its pooling halve every side
        places = max(1, places // 4 ** (len(shape) - 1))
    values, weights, channels = 0.0, 0.0, spec.stem_channels
    for stage in spec.stages:
        places = max(1, places // stage.stride ** (len(shape) - 1))
        values += KEPT_PER_BLOCK * stage.n_blocks * stage.out_channels * places
        taps = sum(k ** (len(shape) - 1) for k in spec.kernels)
        weights += stage.n_blocks * taps * stage.inner_channels * stage.out_channels
        channels = stage.out_channels
    # Weights, gradients, and two moments.
    return 4 * (values * batch + 4 * (weights + channels))


def suggest(trial: Any, space: dict[str, Any]) -> dict[str, Any]:
    """Draw the parameters of a trial.

    Parameters
    ----------
    trial : optuna.Trial
        Of a study, or a FixedTrial.
    space : dict of str to optuna distribution or `Only`
        In the order of the draws.

    Returns
    -------
    parameters : dict
        For ``estimator.set_params``.

    Examples
    --------
    >>> from optuna.trial import FixedTrial
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.search import search_space, suggest
    >>> space = {"depth": search_space(ResNetClassifier())["depth"]}
    >>> suggest(FixedTrial({"depth": 6}), space)
    {'depth': 6}
    """
    drawn: dict[str, Any] = {}
    for name, distribution in space.items():
        if isinstance(distribution, Only):
            if not distribution._applies(drawn):
                drawn[name] = distribution.otherwise
                continue
            distribution = distribution.distribution
        drawn[name] = _draw(trial, name, distribution)
    return drawn


def _draw(trial: Any, name: str, distribution: Any) -> Any:
    kind = type(distribution).__name__
    if kind == "CategoricalDistribution":
        return trial.suggest_categorical(name, distribution.choices)
    _require_distribution(name, distribution)
    method = {"IntDistribution": "suggest_int", "FloatDistribution": "suggest_float"}[kind]
    step = {} if distribution.step is None else {"step": distribution.step}
    return getattr(trial, method)(
        name, distribution.low, distribution.high, log=distribution.log, **step
    )


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
            raise _optuna().TrialPruned(f"pruned in epoch {record['epoch']}")


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
            raise _optuna().TrialPruned(f"pruned in fold {len(self.done) + 1}")


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
        net, self._prefix = _network_step(estimator)
        _check_space(estimator, net, self._prefix, space, X)
        if isinstance(scoring, (list, tuple, set, dict)):
            raise ValueError(f"scoring must be one score, got several: {scoring!r}.")
        self.scorer = check_scoring(estimator, scoring)
        splitter = check_cv(cv, self.y, classifier=True)
        self.folds = list(splitter.split(self.X, self.y, self.groups))
        _check_folds(self.folds, len(self.y))
        self._steps_of_fold = self._most_epochs() + max(self._values("finetune_epochs"))
        self.fingerprint = hash_of(
            (np.asarray(X), self.y, self.sample_weight, self.folds, _described(space))
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
        net = clone(_network_step(self.estimator)[0])
        split = net.validation_split
        left = 1 - (split if isinstance(split, float) else DEFAULT_FRACTION)
        most = 0
        # With max_epochs="auto" fewer rows may take more epochs, and some may be held out.
        sizes = {len(train) for train, _ in self.folds}
        for n in sizes | {int(left * n) for n in sizes}:
            for size in self._values("batch_size"):
                net.batch_size_ = net.set_params(batch_size=size)._resolve_batch_size(n)
                for epochs in self._values("max_epochs"):
                    most = max(most, net.set_params(max_epochs=epochs)._resolve_epochs(n))
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
                raise _optuna().TrialPruned(f"behind the best trial in {fold + 1} folds")
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
        net, _ = _network_step(self.estimator)
        n_dims = len(_sample_shape(net, self.X)) - 1
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
                if not distribution._applies(drawn):
                    drawn[name] = distribution.otherwise
                    continue
                distribution = distribution.distribution
            nearest = _nearest(distribution, value)
            drawn[name] = value if nearest is None else nearest
            if nearest is not None:
                own[name] = nearest
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
        fixed = _optuna().trial.FixedTrial(study.best_trial.params)
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


def _nearest(distribution: Any, value: Any) -> Any:
    """Value of the distribution nearest to this one, or None."""
    if hasattr(distribution, "choices"):
        return value if value in distribution.choices else None
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    low, high, step = distribution.low, distribution.high, distribution.step
    value = min(max(value, low), high)
    return low + round((value - low) / step) * step if step else value


def _check_folds(folds: list[Any], n: int) -> None:
    for train, test in folds:
        if not len(train) or not len(test) or max(np.max(train), np.max(test)) >= n:
            raise ValueError(
                f"cv must give pairs of rows to train and to score on, both below {n}, got "
                f"{len(train)} and {len(test)} rows: is it a cv of other data?"
            )


def _described(space: dict[str, Any]) -> list[str]:
    return [
        f"{name}: "
        + (f"{d.distribution} or {d.otherwise}" if isinstance(d, Only) else f"{d}")
        for name, d in space.items()
    ]


def _check_space(
    estimator: Any, net: BaseResNet, prefix: str, space: dict[str, Any], X: Any
) -> None:
    if not isinstance(space, dict):
        raise TypeError(f"space must be a dict of distributions by name, got {space!r}.")
    unknown = sorted(set(space) - set(estimator.get_params()))
    if unknown:
        raise ValueError(
            f"space names {unknown}, which are no parameters of the estimator: in a "
            f"pipeline they start with the step, such as '{prefix}depth'."
        )
    for name, d in space.items():
        _require_distribution(name, d)
    _check_values(net, prefix, space)
    depths = space.get(f"{prefix}depth")
    if depths is None or f"{prefix}block" in space or isinstance(depths, Only):
        return
    values = (
        depths.choices
        if hasattr(depths, "choices")
        else range(depths.low, depths.high + 1, depths.step)
    )
    shape = _sample_shape(net, X)
    wrong = [n for n in values if _spec_or_none(net, shape, depth=int(n)) is None]
    if wrong:
        fitting = [n for n in range(2, 160) if _spec_or_none(net, shape, depth=n)]
        raise ValueError(
            f"space holds depths that do not fit, {wrong}: use {fitting[:6]}, as "
            "search_space does."
        )


def _require_distribution(name: str, d: Any) -> None:
    kind = _optuna().distributions.BaseDistribution
    if not isinstance(d.distribution if isinstance(d, Only) else d, kind):
        raise TypeError(
            f"space[{name!r}] must be a distribution of Optuna or Only one, got {d!r}."
        )


def _check_values(net: BaseResNet, prefix: str, space: dict[str, Any]) -> None:
    """Refuse what the network would refuse in a trial: choices, and ends of ranges."""
    for name, d in space.items():
        if not name.startswith(prefix) or "__" in name.removeprefix(prefix):
            continue
        inner = d.distribution if isinstance(d, Only) else d
        values = list(getattr(inner, "choices", None) or (inner.low, inner.high))
        for value in [*values, d.otherwise] if isinstance(d, Only) else values:
            clone(net).set_params(**{name.removeprefix(prefix): value})._validate_params()


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
    optuna = _optuna()
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

    storages = _optuna().storages
    try:
        if storage.endswith(".journal"):
            return storages.JournalStorage(storages.journal.JournalFileBackend(storage))
        with warnings.catch_warnings():
            # So is the heartbeat.
            warnings.simplefilter("ignore", _optuna().exceptions.ExperimentalWarning)
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
    optuna, n = _optuna(), 0
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
        warnings.simplefilter("ignore", _optuna().exceptions.ExperimentalWarning)
        return _optuna().storages.RetryHeartbeatStaleTrialCallback(max_retry=max_retry)
