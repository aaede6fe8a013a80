"""What estimators are given: samples, labels, weights and validation sets, checked."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from sk_resnet._callbacks import as_callbacks, monitors_validation
from sk_resnet._input import InputSpec
from sk_resnet._split import DEFAULT_FRACTION, split_rows


def to_numpy(X: Any) -> Any:
    """Tensors as arrays on the CPU; anything else as it is."""
    if not isinstance(X, torch.Tensor):
        return X
    X = X.detach().cpu()
    return (X.float() if X.dtype == torch.bfloat16 else X).numpy()  # NumPy has no bfloat16


def check_Xy(
    estimator: Any, X: Any, y: Any, *, reset: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Samples and labels of fit and partial_fit."""
    X, y = validate_data(
        estimator, to_numpy(X), to_numpy(y), reset=reset, dtype="numeric", allow_nd=True
    )
    check_classification_targets(y)
    if X.ndim != 2 and reset:
        del estimator.n_features_in_
    if not reset:
        check_shape(X, estimator.net_.input_spec)
    return X, y


def check_X(estimator: Any, X: Any) -> NDArray[Any]:
    """Samples for a fitted estimator."""
    check_is_fitted(estimator)
    X = validate_data(estimator, to_numpy(X), reset=False, dtype="numeric", allow_nd=True)
    check_shape(X, estimator.net_.input_spec)
    return X


def check_shape(X: NDArray[Any], spec: InputSpec) -> None:
    """Refuse samples of another shape than the network was made for."""
    if X.shape[1:] != spec.sample_shape:
        raise ValueError(
            f"X has samples of shape {X.shape[1:]}, but this model was fitted on "
            f"{spec.sample_shape}: resize X or refit."
        )


def check_validation_set(
    estimator: Any, X_val: Any, y_val: Any, spec: InputSpec
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Samples and labels that are only validated on."""
    X_val, y_val = validate_data(
        estimator,
        to_numpy(X_val),
        to_numpy(y_val),
        reset=False,
        dtype="numeric",
        allow_nd=True,
    )
    check_shape(X_val, spec)
    if unknown := unknown_labels(estimator, y_val):
        raise ValueError(
            f"y_val has classes {unknown} that are not in y: remove their samples from "
            "the validation set."
        )
    return X_val, y_val


def check_weight(sample_weight: Any, X: NDArray[Any]) -> NDArray[np.float64]:
    """Weight of each sample; None is 1."""
    return _check_sample_weight(
        to_numpy(sample_weight), X, dtype=np.float64, ensure_non_negative=True
    )


def class_weights(estimator: Any, y: NDArray[Any]) -> NDArray[np.float64]:
    """Weight of each class, in the order of `classes_`."""
    weights = compute_class_weight(estimator.class_weight, classes=estimator.classes_, y=y)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(
            f"class_weight must have finite weights of at least 0, got "
            f"{estimator.class_weight}."
        )
    return weights


def unknown_labels(estimator: Any, y: NDArray[Any]) -> list[Any]:
    """Labels that are not in `classes_`."""
    return sorted(set(np.unique(y).tolist()) - set(estimator.classes_.tolist()))


def training_and_validation(
    estimator: Any,
    X: NDArray[Any],
    y: NDArray[Any],
    weight: NDArray[Any],
    X_val: Any,
    y_val: Any,
    groups: Any,
    seed: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of X to train on and to validate on, all of positive weight."""
    split = estimator.validation_split
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val must be given together, got one of them.")
    if X_val is not None and split is not None:
        raise ValueError(f"validation_split must be None when X_val is given, got {split}.")
    if (
        X_val is None
        and split is None
        and monitors_validation(as_callbacks(estimator.callbacks))
    ):
        split = DEFAULT_FRACTION
    if split is None:
        train, valid = np.arange(len(X)), np.array([], dtype=np.intp)
    else:
        train, valid = split_rows(split, X, y, groups, seed=seed)
        valid = valid[weight[valid] > 0]
        require_validation(valid)
    train = train[weight[train] > 0]
    require_two(train)
    return train, valid


def require_validation(rows: NDArray[np.intp]) -> None:
    """Refuse a validation set that weighs nothing."""
    if len(rows) == 0:
        raise ValueError(
            "The validation set needs a sample of positive weight, got none: change "
            "it, sample_weight or class_weight."
        )


def require_two(rows: NDArray[np.intp]) -> None:
    """Refuse to train on one sample."""
    if len(rows) < 2:
        raise ValueError(
            "Training with batch norm needs at least 2 samples of positive weight, got "
            f"{len(rows)} sample(s)."
        )
