"""Score, zeros and bytes over the strength of the L1 penalty."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import train_test_split
from sklearn.utils.parallel import Parallel, delayed

from sk_resnet._base import BaseResNet, strata
from sk_resnet._fused import FusedBackend
from sk_resnet._input import to_numpy
from sk_resnet._processes import rank_and_size


@dataclass(frozen=True)
class RegularizationPath:
    """Models along a path of L1 strengths, by `regularization_path`.

    Parameters
    ----------
    l1s : ndarray of shape (n_l1s,)
        Strengths, in the order of the fits.
    scores : ndarray of shape (n_l1s,)
        Accuracies of classifiers, R² of regressors, on the validation set.
    sparsities : ndarray of shape (n_l1s,)
        Shares of exact zeros in the kernels.
    n_bytes : ndarray of shape (n_l1s,)
        Bytes of the stored weights.
    estimators : list of estimators
        The fitted models.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier, regularization_path
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ResNetClassifier(depth=4, max_epochs=5, random_state=0)
    >>> path = regularization_path(model, X, y, [1e-3, 1e-2])
    >>> path.sparsities.shape
    (2,)
    """

    l1s: NDArray[np.float64]
    scores: NDArray[np.float64]
    sparsities: NDArray[np.float64]
    n_bytes: NDArray[np.int64]
    estimators: list[BaseResNet]


def regularization_path(
    estimator: BaseResNet,
    X: Any,
    y: Any,
    l1s: Sequence[float],
    *,
    X_val: Any = None,
    y_val: Any = None,
    direction: str = "increasing",
    warm_start: bool = True,
    sample_weight: Any = None,
) -> RegularizationPath:
    """Fit one model for each L1 strength.

    Parameters
    ----------
    estimator : ResNetClassifier, ResNetRegressor or a wide one
        Has the parameters of the models, and is not changed.
    X : array-like of shape (n_samples, ...)
        Training samples.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Their labels or numbers.
    l1s : sequence of float
        Strengths, at least 0, in any order.
    X_val : array-like, default=None
        Samples to measure the score on. None holds out a fifth of X, by class where y has
        one label a sample.
    y_val : array-like, default=None
        Their labels or numbers.
    direction : {"increasing", "decreasing"}, default="increasing"
        Whether the path goes from weak to strong, or from strong to weak.
    warm_start : bool, default=True
        Whether each model starts from the weights of the one before, and trains for
        `max_epochs` more. With False all start from new weights, and train at once: as one
        network where they can be, as under joblib's backend "fused". Each is then the model
        that a ``fit`` of its own gives, up to rounding.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the training samples.

    Returns
    -------
    RegularizationPath
        What the models reach, in the order of their fits.

    Raises
    ------
    ValueError
        For no strengths, negative ones, or an unknown direction.
    TypeError
        For other estimators, and strengths that are no numbers.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier, regularization_path
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ResNetClassifier(depth=4, max_epochs=10, random_state=0)
    >>> path = regularization_path(model, X, y, [1e-4, 3e-2])
    >>> bool(path.sparsities[0] < path.sparsities[1])
    True

    All at once, each from new weights:

    >>> path = regularization_path(model, X, y, [1e-4, 3e-2], warm_start=False)
    >>> [fitted.n_epochs_ for fitted in path.estimators]
    [10, 10]
    """
    strengths = _checked_strengths(l1s)
    if not isinstance(estimator, BaseResNet):
        raise TypeError(
            "estimator must be a ResNetClassifier, a ResNetRegressor or a wide one, got "
            f"{type(estimator).__name__}: take it out of its pipeline."
        )
    if direction not in ("increasing", "decreasing"):
        raise ValueError(
            f"direction must be 'increasing' or 'decreasing', got {direction!r}."
        )
    if estimator.checkpoint is not None and not os.path.isdir(estimator.checkpoint):
        raise ValueError(
            f"checkpoint must be a folder, where each strength has a file of its own, got "
            f"{estimator.checkpoint!r}."
        )
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val must be given together, got one of them.")
    if X_val is None:
        X, X_val, y, y_val, sample_weight = _held_out(estimator, X, y, sample_weight)
    if direction == "decreasing":
        strengths = strengths[::-1]
    fit_all = _fitted_in_turn if warm_start else _fitted_at_once
    fitted = fit_all(estimator, strengths, X, y, sample_weight)
    return RegularizationPath(
        l1s=np.array([m.l1 for m in fitted]),
        scores=np.array([m.score(X_val, y_val) for m in fitted]),
        sparsities=np.array([m.sparsity_ for m in fitted]),
        n_bytes=np.array([m.n_bytes_ for m in fitted]),
        estimators=fitted,
    )


def _fitted_in_turn(
    estimator: BaseResNet, strengths: NDArray[np.float64], X: Any, y: Any, weight: Any
) -> list[BaseResNet]:
    """Models that start from the weights of the one before."""
    model, fitted = clone(estimator).set_params(warm_start=True), []
    for l1 in strengths:
        model.set_params(l1=float(l1)).fit(X, y, sample_weight=weight)
        fitted.append(copy.deepcopy(model).set_params(warm_start=estimator.warm_start))
    return fitted


def _fitted_at_once(
    estimator: BaseResNet, strengths: NDArray[np.float64], X: Any, y: Any, weight: Any
) -> list[BaseResNet]:
    """Models that start from new weights, and train as one network where they can."""
    models = [clone(estimator).set_params(l1=float(l1)) for l1 in strengths]
    # Processes that train one network must do the same fits in the same order.
    is_alone = rank_and_size()[1] == 1
    n_jobs = min(len(models), FusedBackend.default_n_jobs) if is_alone else 1
    with joblib.parallel_config("fused", n_jobs=n_jobs):
        fits = (delayed(model.fit)(X, y, sample_weight=weight) for model in models)
        return list(Parallel()(fits))


def _held_out(estimator: BaseResNet, X: Any, y: Any, sample_weight: Any) -> list[Any]:
    """Training and validation samples, their y, and weights of the training samples."""
    seed = estimator.random_state if isinstance(estimator.random_state, Integral) else 0
    # Tables stay tables, as their columns have names.
    data = [to_numpy(a) for a in (X, y, sample_weight) if a is not None]
    found = strata(type(estimator), y)
    stratify = found if len(np.unique(found)) > 1 else None
    parts = train_test_split(*data, test_size=0.2, stratify=stratify, random_state=seed)
    return [*parts[:4], parts[4] if len(parts) > 4 else None]


def _checked_strengths(l1s: Sequence[float]) -> NDArray[np.float64]:
    try:
        strengths = np.sort(np.asarray(list(l1s), dtype=np.float64).ravel())
    except (TypeError, ValueError):
        raise TypeError(f"l1s must be a sequence of numbers, got {l1s!r}.") from None
    if strengths.size == 0:
        raise ValueError("l1s must hold at least one strength, got none.")
    if not np.isfinite(strengths).all() or strengths[0] < 0:
        raise ValueError(f"l1s must be finite and at least 0, got {strengths.tolist()}.")
    return strengths
