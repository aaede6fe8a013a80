"""Samples, targets, weights and validation sets: checked, and parted into rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, check_cv

from sk_resnet._batches import ArrayDataset
from sk_resnet._compat_sklearn import check_sample_weight
from sk_resnet._input import InputSpec, with_statistics
from sk_resnet._target import Target

DEFAULT_FRACTION = 0.1

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Data:
    """What a network is trained and validated on."""

    training: ArrayDataset
    validation: ArrayDataset | None
    input_spec: InputSpec
    target: Target


def to_numpy(X: Any) -> Any:
    """Tensors as arrays on the CPU; anything else as it is."""
    if not isinstance(X, torch.Tensor):
        return X
    X = X.detach().cpu()
    return (X.float() if X.dtype == torch.bfloat16 else X).numpy()  # NumPy has no bfloat16


def check_numbers(X: NDArray[Any]) -> None:
    """Refuse arrays of dates, durations and other things that are no numbers."""
    if X.dtype.kind not in "biuf":
        raise TypeError(
            f"X must hold numbers, got values of type {X.dtype}: turn them into numbers, "
            "such as seconds since a date."
        )


# Types of what stands for a missing value, in Python and pandas.
MISSING = {"NoneType", "NAType", "NaTType"}


def check_kinds(y: Any) -> None:
    """Refuse y with missing values, or of which some are strings and some are not.

    Before it becomes an array: NumPy turns numbers beside strings into strings.
    """
    is_listed = isinstance(y, (list, tuple))
    values = np.array(y, dtype=object) if is_listed else np.asarray(y)
    if values.dtype.kind != "O":
        return
    kinds = {type(value) for value in values.ravel().tolist()}
    numbers = {kind for kind in kinds if issubclass(kind, (bool, int, float, np.number))}
    names = sorted(kind.__name__ for kind in kinds)
    if (len(kinds) > 1 and kinds != numbers) or not MISSING.isdisjoint(names):
        raise TypeError(
            f"y must hold values of one kind, strings or numbers, got {', '.join(names)}: "
            "convert them, and drop samples without a value."
        )


def check_learns_numbers(y: Any) -> None:
    """Refuse dates, durations and strings as numbers to learn."""
    values = np.asarray(y)
    if values.dtype.kind in "mM":
        raise TypeError(
            "y must hold numbers, got dates or durations: turn them into numbers, such as "
            "seconds since a date."
        )
    # Strings of digits would become numbers, while they may be the names of classes.
    if values.dtype.kind in "SU" or (
        values.dtype.kind == "O" and isinstance(next(values.flat, None), (str, bytes))
    ):
        raise ValueError(
            "y must hold numbers, got strings: convert them, as by y.astype(float), or use "
            "a classifier if they name classes."
        )


def check_shape(X: NDArray[Any], spec: InputSpec) -> None:
    """Refuse samples of another shape than the network was made for."""
    if X.shape[1:] != spec.sample_shape:
        raise ValueError(
            f"X has samples of shape {X.shape[1:]}, but this model was fitted on "
            f"{spec.sample_shape}: resize X or refit."
        )


def sample_weights(
    sample_weight: Any, X: NDArray[Any], target: Target, encoded: NDArray[Any]
) -> NDArray[np.float64]:
    """Weight of each sample: what the user gives, times that of its class."""
    given = check_sample_weight(
        to_numpy(sample_weight), X, dtype=np.float64, ensure_non_negative=True
    )
    return given * target.weights(encoded)


def training_data(
    X: NDArray[Any],
    y: Any,
    *,
    sample_weight: Any,
    target: Target,
    spec: InputSpec,
    standardize: bool,
    split: Any = None,
    groups: Any = None,
    seed: int = 0,
    validation_set: tuple[NDArray[Any], Any] | None = None,
) -> Data:
    """Data of a training; `standardize` takes the statistics of its samples."""
    encoded = target.encode(y)
    weight = sample_weights(sample_weight, X, target, encoded)
    train, valid = np.arange(len(X)), np.array([], dtype=np.intp)
    if split is not None:
        train, valid = split_rows(split, X, y, encoded, groups, target=target, seed=seed)
        valid = valid[weight[valid] > 0]
        _require_validation(len(valid))
    train = train[weight[train] > 0]
    _require_two(train)
    target = target.fitted(encoded[train], weight[train])
    encoded = target.encode(y)
    if standardize:
        in_training = np.zeros(len(X))
        in_training[train] = weight[train]
        spec = with_statistics(spec, X, in_training)

    def part(rows: Rows) -> ArrayDataset:
        return ArrayDataset(X, spec, encoded[rows], weight[rows], rows)

    validation = part(valid) if len(valid) else None
    if validation_set is not None:
        validation = _validation_set(*validation_set, target=target, spec=spec)
    return Data(part(train), validation, spec, target)


def _validation_set(
    X: NDArray[Any], y: Any, *, target: Target, spec: InputSpec
) -> ArrayDataset:
    check_shape(X, spec)
    encoded = target.encode(y)
    weight = target.weights(encoded)
    _require_validation(int(np.count_nonzero(weight)))
    return ArrayDataset(X, spec, encoded, weight)


def _require_validation(n: int) -> None:
    if n == 0:
        raise ValueError(
            "The validation set needs a sample of positive weight, got none: change "
            "it, sample_weight or class_weight."
        )


def _require_two(rows: Rows) -> None:
    if len(rows) < 2:
        raise ValueError(
            "Training with batch norm needs at least 2 samples of positive weight, got "
            f"{len(rows)} sample(s)."
        )


def split_rows(
    split: Any,
    X: NDArray[Any],
    y: Any,
    encoded: NDArray[Any],
    groups: Any,
    *,
    target: Target,
    seed: int,
) -> tuple[Rows, Rows]:
    """Rows for training and for validation; every class stays in training.

    A fraction is held out as the target says, or by group where there are groups. A
    splitter, or a list of one (train, validation) pair, gives its first split.
    """
    n = len(X)
    if isinstance(split, list):
        train, valid = _checked_pair(split, n)
    elif not isinstance(split, float):
        train, valid = next(iter(check_cv(split).split(X, y, groups)))
    elif groups is None:
        valid = target.hold_out(encoded, split, np.random.default_rng(seed))
        train = np.setdiff1d(np.arange(n), valid)
    else:
        by_group = GroupShuffleSplit(1, test_size=split, random_state=seed)
        train, valid = next(by_group.split(X, y, groups))
    train, valid = np.asarray(train), np.asarray(valid)
    shown = f"validation_split={'a list' if isinstance(split, list) else split}"
    if len(valid) == 0:
        raise ValueError(
            f"No sample of {n} can be held out by {shown}, while every class keeps one "
            "for training: use more samples, or X_val and y_val."
        )
    target.check_training_part(encoded[train], shown)
    return train, valid


def _checked_pair(split: list[Any], n: int) -> tuple[Rows, Rows]:
    if len(split) != 1 or not isinstance(split[0], (tuple, list)) or len(split[0]) != 2:
        raise ValueError(
            "validation_split as a list must hold one pair of index arrays, [(train, "
            f"validation)], got {len(split)} item(s): use the first pair, or a splitter."
        )
    parts = [np.asarray(part) for part in split[0]]
    parts = [np.flatnonzero(part) if part.dtype == bool else part for part in parts]
    # An empty list is an array of floats; float rows in a full one are a mistake.
    parts = [part if part.size else part.astype(np.intp) for part in parts]
    rows = np.concatenate([part.ravel() for part in parts])
    if rows.dtype.kind not in "iu" or not ((rows >= -n) & (rows < n)).all():
        raise ValueError(
            f"validation_split must hold indices of the {n} samples, got {rows.dtype} "
            f"from {rows.min()} to {rows.max()}."
        )
    train, valid = (part.astype(np.intp) for part in parts)
    return train, valid
