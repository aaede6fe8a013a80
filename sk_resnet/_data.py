"""Samples, targets, weights and validation sets: checked, and parted into rows."""

import copy
from dataclasses import dataclass
from itertools import islice
from numbers import Integral, Number
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, PredefinedSplit, check_cv

from sk_resnet._batches import ArrayDataset
from sk_resnet._compat_sklearn import check_sample_weight
from sk_resnet._input import SCALINGS, InputSpec, ends_in_nan, to_numpy
from sk_resnet._target import Target

DEFAULT_FRACTION = 0.1
# Each member is validated on a fold that it is not trained on.
FOLDS = "folds"

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Data:
    """What a network is trained and validated on."""

    training: ArrayDataset
    validation: ArrayDataset | None
    input_spec: InputSpec
    target: Target


def check_numbers(X: NDArray[Any], name: str = "X") -> None:
    """Refuse arrays of dates, durations and other things that are no numbers."""
    if X.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} must hold numbers, got values of type {X.dtype}: turn them into "
            "numbers, such as dates into seconds, and categories by OneHotEncoder."
        )


# Types of what stands for a missing value, in Python and pandas.
MISSING = {"NoneType", "NAType", "NaTType"}
# What holds several values; in y only where NumPy could not make columns of them.
COLLECTIONS = (list, tuple, set, frozenset, np.ndarray)


def check_kinds(y: Any, name: str = "y") -> None:
    """Refuse y with missing values, of mixed kinds, or with a list in the place of a value.

    Before it becomes an array: NumPy turns numbers beside strings into strings.
    """
    is_listed = isinstance(y, (list, tuple))
    values = np.array(y, dtype=object) if is_listed else np.asarray(y)
    if values.dtype.kind != "O":
        return
    types = {type(value) for value in values.ravel().tolist()}
    names = sorted(kind.__name__ for kind in types)
    if any(issubclass(kind, COLLECTIONS) for kind in types):
        raise ValueError(
            f"{name} must hold one value a sample, or the same number of values for each, "
            f"got {', '.join(names)}: turn lists of labels into columns of 0 and 1 by "
            "sklearn.preprocessing.MultiLabelBinarizer."
        )
    if len(set(map(_kind, types))) > 1 or not MISSING.isdisjoint(names):
        raise TypeError(
            f"{name} must hold values of one kind, strings or numbers, got "
            f"{', '.join(names)}: convert them, and drop samples without a value."
        )


def _kind(type_: type) -> type:
    """Type that stands for all that may be in one y, such as numbers of all types."""
    # NumPy's durations are integers by their base classes.
    if issubclass(type_, (Number, np.bool_)) and not issubclass(type_, np.timedelta64):
        return Number
    return next((base for base in (str, bytes) if issubclass(type_, base)), type_)


def check_labels(y: NDArray[Any], name: str) -> None:
    """Refuse objects that are no strings as classes, as scikit-learn does."""
    first = next(y.flat) if y.dtype.kind in "OV" and y.size else ""
    if not isinstance(first, (str, bytes)):
        raise TypeError(
            f"Unknown label type: {name} must be an array of strings, integers or "
            f"booleans, got one of objects of type {type(first).__name__}: convert it, as "
            f"by {name}.astype(int) or {name}.astype(str)."
        )


def check_learns_numbers(y: Any, name: str) -> None:
    """Refuse dates, durations, strings and other objects as numbers to learn."""
    values = np.asarray(y)
    if values.dtype.kind in "mM":
        raise TypeError(
            f"{name} must hold numbers, got dates or durations: turn them into numbers, "
            "such as seconds since a date."
        )
    first = next(values.flat) if values.dtype.kind == "O" and values.size else 0.0
    # Strings of digits would become numbers, while they may be the names of classes.
    if values.dtype.kind in "SU" or isinstance(first, (str, bytes)):
        raise ValueError(
            f"{name} must hold numbers, got strings: convert them, as by y.astype(float), "
            "or use a classifier if they name classes."
        )
    if not hasattr(first, "__float__"):
        raise TypeError(
            f"{name} must hold numbers, got values of type {type(first).__name__}: turn "
            "each into a number, or into a row of them."
        )


def check_samples(X: NDArray[Any], spec: InputSpec, name: str = "X") -> None:
    """Refuse samples of another shape than the network was made for, and NaN."""
    if not spec.accepts(X.shape[1:]):
        raise ValueError(
            f"{name} has samples of shape {X.shape[1:]}, but this model was fitted on "
            f"{spec.sample_shape}: resize {name} or refit."
        )
    if ends_in_nan(X, spec, name) and not spec.unequal:
        raise ValueError(
            f"Input {name} contains NaN: this model was fitted on series of one length. "
            "Refit it with shorter series among the others."
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
    scale: str | None,
    split: Any = None,
    groups: Any = None,
    seed: int = 0,
    validation_set: tuple[NDArray[Any], Any] | None = None,
    n_members: int = 1,
) -> list[Data]:
    """Data of each member; `scale` goes by the statistics of all their samples."""
    encoded = target.encode(y)
    weight = sample_weights(sample_weight, X, target, encoded)
    rows = np.flatnonzero(weight > 0)
    splits = [(rows, rows[:0])]
    if split == FOLDS:
        strata = target.strata(encoded[rows])
        splits = fold_rows(rows, strata, groups, most=n_members, seed=seed)
    elif split is not None:
        splits = [
            (train[weight[train] > 0], valid[weight[valid] > 0])
            for train, valid in split_rows(
                split, X, y, encoded, groups, target=target, seed=seed, n_members=n_members
            )
        ]
        _require_validation(min(len(valid) for _, valid in splits))
    for train, _ in splits:
        _require_two(train)
    of_any = np.unique(np.concatenate([train for train, _ in splits]))
    target = target.fitted(encoded[of_any], weight[of_any])
    encoded = target.encode(y)
    if scale is not None:
        in_training = np.zeros(len(X))
        in_training[of_any] = weight[of_any]
        spec = SCALINGS[scale](spec, X, in_training)

    def part(rows: Rows) -> ArrayDataset:
        return ArrayDataset(X, spec, encoded[rows], weight[rows], rows)

    given = None
    if validation_set is not None:
        given = _validation_set(*validation_set, target=target, spec=spec)
    made = [
        Data(part(train), part(valid) if len(valid) else given, spec, target)
        for train, valid in splits
    ]
    return [made[i % len(made)] for i in range(n_members)]


def _validation_set(
    X: NDArray[Any], y: Any, *, target: Target, spec: InputSpec
) -> ArrayDataset:
    check_samples(X, spec, "X_val")
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
    n_members: int,
) -> list[tuple[Rows, Rows]]:
    """Rows for training and for validation; every class stays in training.

    A fraction is held out as the target says, or by group where there are groups. A list
    of one (train, validation) pair is taken as it is. A splitter gives its first splits,
    as many as there are members.
    """
    n, rng = len(X), np.random.default_rng(seed)
    if isinstance(split, list):
        pairs = [_only_pair(split)]
    elif not isinstance(split, float):
        _check_folds(split, n)
        splits = check_cv(_repeatable(split, seed)).split(X, y, groups)
        pairs = list(islice(splits, n_members))
    elif groups is None:
        valid = target.hold_out(encoded, split, rng)
        pairs = [(np.setdiff1d(np.arange(n), valid), valid)]
    else:
        by_group = GroupShuffleSplit(1, test_size=split, random_state=seed)
        pairs = [next(by_group.split(X, y, groups))]
    shown = f"validation_split={'a list' if isinstance(split, list) else split}"
    pairs = [_row_numbers(pair, n) for pair in pairs]
    for train, valid in pairs:
        if len(valid) == 0:
            raise ValueError(
                f"No sample of {n} can be held out by {shown}, while every class keeps one "
                "for training: use more samples, or X_val and y_val."
            )
        target.check_training_part(encoded[train], shown)
    return pairs


def fold_rows(
    rows: Rows, strata: NDArray[Any], groups: Any, *, most: int, seed: int
) -> list[tuple[Rows, Rows]]:
    """Rows for training and for validation of each fold, the strata spread evenly.

    There are `most` folds, or fewer where one would be empty. Strata that would be in one
    fold only stay in every training part. Without two folds all rows are for training.
    """
    groups = None if groups is None else np.asarray(groups)[rows]
    for n_folds in range(min(most, len(rows) - 1), 1, -1):
        fold = _folds(strata, groups, n_folds, np.random.default_rng(seed))
        for stratum in np.unique(strata):
            within = strata == stratum
            if len(np.unique(fold[within])) == 1:
                fold[within] = -1
        if np.isin(np.arange(n_folds), fold).all():
            return [(rows[fold != i], rows[fold == i]) for i in range(n_folds)]
    return [(rows, rows[:0])]


def _folds(
    strata: NDArray[Any], groups: Any, n_folds: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Number of the fold of each row; rows of a group are in one."""
    if groups is not None:
        names, group = np.unique(groups, return_inverse=True)
        return (rng.permutation(len(names)) % n_folds)[group]
    n = len(strata)
    fold = np.empty(n, dtype=np.intp)
    fold[np.lexsort((rng.random(n), strata))] = np.arange(n) % n_folds
    return fold


def _repeatable(splitter: Any, seed: int) -> Any:
    """Splitter that draws the same each time, and not from NumPy's global generator."""
    drawn = getattr(splitter, "random_state", 0)
    if isinstance(drawn, Integral):
        return splitter
    splitter = copy.copy(splitter)
    splitter.random_state = seed if drawn is None else copy.deepcopy(drawn)
    return splitter


def _only_pair(split: list[Any]) -> Any:
    if len(split) != 1 or not isinstance(split[0], (tuple, list)) or len(split[0]) != 2:
        raise ValueError(
            "validation_split as a list must hold one pair of index arrays, [(train, "
            f"validation)], got {len(split)} item(s): use the first pair, or a splitter."
        )
    return split[0]


def _check_folds(splitter: Any, n: int) -> None:
    """Refuse folds of other samples; of fewer they would leave out the rest in silence."""
    if isinstance(splitter, PredefinedSplit) and len(splitter.test_fold) != n:
        raise ValueError(
            f"PredefinedSplit must hold the folds of the {n} samples, got those of "
            f"{len(splitter.test_fold)}: in a cross-validation use another splitter."
        )


def _row_numbers(pair: Any, n: int) -> tuple[Rows, Rows]:
    """Numbers of rows for training and for validation, given as such or as masks."""
    parts = [np.asarray(part) for part in pair]
    for part in parts:
        if part.ndim != 1:
            raise ValueError(
                "validation_split must hold indices or masks of one dimension, got an "
                f"array of shape {part.shape}."
            )
        if part.dtype == bool and part.shape != (n,):
            raise ValueError(
                f"validation_split must hold masks of the {n} samples, got one of shape "
                f"{part.shape}: make them for the X that fit gets."
            )
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
