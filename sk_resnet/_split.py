"""Which rows train and which validate."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, check_cv

DEFAULT_FRACTION = 0.1

Rows = NDArray[np.intp]


def split_rows(
    split: Any, X: NDArray[Any], y: NDArray[Any], groups: Any, *, seed: int
) -> tuple[Rows, Rows]:
    """Rows for training and for validation; every class stays in training.

    A fraction is held out by class, or by group where there are groups; a splitter, or a
    list of one (train, validation) pair, gives its first split.
    """
    if isinstance(split, list):
        parts = _checked_pair(split, len(y))
    elif not isinstance(split, float):
        parts = next(iter(check_cv(split).split(X, y, groups)))
    elif groups is None:
        parts = _stratified(y, split, np.random.default_rng(seed))
    else:
        by_group = GroupShuffleSplit(1, test_size=split, random_state=seed)
        parts = next(by_group.split(X, y, groups))
    train, valid = np.asarray(parts[0]), np.asarray(parts[1])
    shown = "a list" if isinstance(split, list) else split
    if len(valid) == 0:
        raise ValueError(
            f"No sample of {len(y)} can be held out by validation_split={shown}, while "
            "every class keeps one for training: use more samples, or X_val and y_val."
        )
    if missing := sorted(set(np.unique(y).tolist()) - set(np.unique(y[train]).tolist())):
        raise ValueError(
            f"validation_split={shown} leaves no training sample of class {missing[0]!r}: "
            "every class must be in the training part; shuffle, or stratify."
        )
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


def _stratified(
    y: NDArray[Any], fraction: float, rng: np.random.Generator
) -> tuple[Rows, Rows]:
    # train_test_split refuses classes with one sample and parts smaller than the number
    # of classes; here such a class stays in training and the others make up for it.
    classes, counts = np.unique(y, return_counts=True)
    most = counts - 1
    wanted = min(max(1, round(fraction * len(y))), most.sum())
    quota = np.minimum(np.floor(fraction * counts).astype(int), most)
    while quota.sum() < wanted:
        missing = np.where(quota < most, fraction * counts - quota, -np.inf)
        quota[missing.argmax()] += 1
    valid = np.concatenate(
        [
            rng.permutation(np.flatnonzero(y == label))[:n]
            for label, n in zip(classes, quota, strict=True)
        ]
    )
    return np.setdiff1d(np.arange(len(y)), valid), np.sort(valid)
