"""Private names of scikit-learn: all that the package uses stand here."""

from typing import Any

from sklearn.base import BaseEstimator

try:
    from sklearn.base import _fit_context as fit_context
    from sklearn.utils import _safe_indexing as rows_of
    from sklearn.utils._param_validation import (
        HasMethods,
        Interval,
        RealNotInt,
        StrOptions,
    )
    from sklearn.utils.validation import _check_sample_weight as check_sample_weight
except ImportError as error:
    raise ImportError(
        f"sk_resnet cannot use this version of scikit-learn ({error}): install one that "
        "its pyproject.toml names."
    ) from error

__all__ = [
    "HasMethods",
    "Interval",
    "RealNotInt",
    "StrOptions",
    "callback_context",
    "callback_state",
    "check_parameters",
    "check_sample_weight",
    "fit_context",
    "has_callbacks",
    "rows_of",
]


def check_parameters(estimator: BaseEstimator) -> None:
    """Hold the parameters of an estimator against its rules."""
    estimator._validate_params()


def callback_context(estimator: Any, n_tasks: int) -> Any:
    """Context in which scikit-learn's callbacks follow a fit of this many epochs."""
    return estimator._init_callback_context(max_subtasks=n_tasks)


def callback_state(estimator: Any) -> dict[str, Any]:
    """Attributes by which `fit_context` ends the callbacks of a fit, also on errors."""
    names = ("_callback_fit_ctx", "_skl_callbacks_to_teardown")
    return {name: vars(estimator)[name] for name in names if name in vars(estimator)}


def has_callbacks(estimator: Any) -> bool:
    """Whether callbacks of scikit-learn were set."""
    return hasattr(estimator, "_skl_callbacks")
