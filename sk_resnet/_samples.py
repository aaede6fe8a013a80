"""Samples of torch Datasets, and of classes like them, read when they are asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from skorch.helper import SliceDataset
from torch.utils.data import DataLoader, Dataset, IterableDataset

from sk_resnet._batches import RESIDENT_BYTES
from sk_resnet._input import to_numpy

# Fields of dicts that hold y, by the conventions of Hugging Face.
LABELS = ("label", "labels")
# What arrays, tables and their like have, which NumPy turns into an array; pipelines.
OF_OTHERS = ("__array__", "__array_interface__", "__dataframe__", "iloc", "toarray", "fit")
# Tasks of a reading for each job, for even work, and samples of one.
TASKS_PER_JOB, SAMPLES_OF_TASK = 4, 128


class Samples:
    """Stands for an array of the samples of a dataset, and reads the rows asked for.

    Rows are read by tasks of joblib, one after the other unless
    ``joblib.parallel_config(n_jobs=...)`` says otherwise. All samples have the shape of the
    first, and types that its type can hold.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        first, _ = _read(dataset, [0], wants_y=False)
        if first[0].ndim == 0:
            raise ValueError("Samples must have a dimension or more, got single numbers.")
        self.dtype = first[0].dtype
        self.shape = (len(dataset), *first[0].shape)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def n_bytes(self) -> int:
        """Size of all samples in memory."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        is_listed = isinstance(rows, np.ndarray) and rows.dtype.kind == "i"
        places = rows if is_listed else np.arange(len(self))[rows]
        found, _ = self.take(places)
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            axes = tuple(range(1, found.ndim))
            broken = places[~np.isfinite(found).all(axis=axes)][0]
            raise ValueError(
                f"Input X contains NaN or infinity, in sample {broken}: fill in what is "
                "missing, or leave the sample out."
            )
        return found

    def take(
        self, places: NDArray[np.intp], *, wants_y: bool = False
    ) -> tuple[NDArray[Any], list[Any]]:
        """Samples at some places, and what the dataset gives as their y."""
        whole = np.empty((len(places), *self.shape[1:]), dtype=self.dtype)
        targets: list[Any] = []
        n_jobs = joblib.effective_n_jobs(None)
        at_once = SAMPLES_OF_TASK * (TASKS_PER_JOB * n_jobs if n_jobs > 1 else 1)
        for start in range(0, len(places), at_once):
            block = places[start : start + at_once]
            n_parts = min(len(block), TASKS_PER_JOB * n_jobs) if n_jobs > 1 else 1
            parts = [part.tolist() for part in np.array_split(block, n_parts)]
            reading = joblib.delayed(_read)
            found = joblib.Parallel(n_jobs=None if n_parts > 1 else 1)(
                reading(self.dataset, part, wants_y=wants_y) for part in parts
            )
            read = [sample for samples, _ in found for sample in samples]
            for row, place, sample in zip(whole[start:], block, read, strict=False):
                self._check(sample, int(place))
                row[...] = sample
            targets += [y for _, ys in found for y in ys]
        return whole, targets

    def _check(self, sample: NDArray[Any], place: int) -> None:
        if sample.shape != self.shape[1:]:
            raise ValueError(
                f"Samples must have one shape, got {sample.shape} at {place} and "
                f"{self.shape[1:]} at 0: resize them in the dataset."
            )
        are_bools = [dtype.kind == "b" for dtype in (sample.dtype, self.dtype)]
        if not np.can_cast(sample.dtype, self.dtype) or are_bools in ([1, 0], [0, 1]):
            raise TypeError(
                f"Samples must have one type, got {sample.dtype} at {place} and "
                f"{self.dtype} at 0: convert them in the dataset."
            )


def is_dataset(X: Any) -> bool:
    """Whether X gives samples one by one, and is no array, list or table."""
    if isinstance(X, (Dataset, SliceDataset)):
        return True
    if isinstance(X, (Sequence, Mapping)) or any(hasattr(X, name) for name in OF_OTHERS):
        return False
    return hasattr(X, "__len__") and hasattr(X, "__getitem__")


def read_dataset(X: Any, y: Any = None, *, wants_y: bool = True) -> tuple[Any, Any]:
    """Samples and y of a dataset; of anything else they are returned as they are.

    Without y, the dataset must give pairs. Samples that fit into memory are read now.
    """
    if isinstance(X, DataLoader):
        raise TypeError("X must be a dataset, got a DataLoader: give its `dataset`.")
    if not is_dataset(X):
        return X, y
    if isinstance(X, IterableDataset) or not hasattr(X, "__len__"):
        raise TypeError(
            "A dataset must have __len__ and __getitem__, or its samples cannot be "
            f"shuffled: {type(X).__name__} has not both."
        )
    if len(X) == 0:
        raise ValueError("X must have samples, got a dataset of none.")
    samples, wants_y = Samples(X), wants_y and y is None
    every = np.arange(len(samples))
    if samples.n_bytes <= RESIDENT_BYTES:
        read, targets = samples.take(every, wants_y=wants_y)
        return read, _labels(targets) if wants_y else y
    if not wants_y:
        return samples, y
    known = _known_targets(samples)
    return samples, _labels(_read_targets(samples)) if known is None else known


def _known_targets(samples: Samples) -> list[Any] | None:
    """Labels that datasets of torchvision know without reading a sample.

    Of other classes they may mean something else: a few are compared.
    """
    targets, n = getattr(samples.dataset, "targets", None), len(samples)
    if targets is None or len(targets) != n:
        return None
    places = sorted({0, n // 3, n // 2, n - 1})
    read = _labels(samples.take(np.array(places), wants_y=True)[1])
    known = _labels(list(targets))
    return known if [known[place] for place in places] == read else None


def _read_targets(samples: Samples) -> list[Any]:
    """Labels by reading all samples, of which few are in memory at a time."""
    found: list[Any] = []
    step = max(1, RESIDENT_BYTES // 8 // max(1, samples.n_bytes // len(samples)))
    for start in range(0, len(samples), step):
        places = np.arange(start, min(start + step, len(samples)))
        found += samples.take(places, wants_y=True)[1]
    return found


def _labels(targets: list[Any]) -> list[Any]:
    """Labels as they would stand in a list, with numbers of Python for single ones."""
    found = [to_numpy(target) for target in targets]
    return [y.item() if isinstance(y, np.ndarray) and y.ndim == 0 else y for y in found]


def _read(
    dataset: Any, places: list[int], *, wants_y: bool
) -> tuple[list[NDArray[Any]], list[Any]]:
    """Samples at some places as arrays, with their y; what a task of joblib does."""
    at_once = getattr(dataset, "__getitems__", None)
    items = (dataset[place] for place in places) if at_once is None else at_once(places)
    samples, targets = [], []
    for item in items:
        x, target = _parted(item)
        samples.append(_copied(x))
        targets.append(target)
    for sample in samples:
        if sample.dtype.kind not in "biuf":
            raise TypeError(
                f"Samples of a dataset must be arrays, tensors or images, got one of type "
                f"{sample.dtype}: convert them in the dataset."
            )
    if not wants_y:
        return samples, []
    if not all(has_y for has_y, _ in targets):
        raise ValueError(
            "This estimator requires y to be passed, but the target y is None, and the "
            "dataset does not give pairs of a sample and its y."
        )
    return samples, [y for _, y in targets]


def _copied(x: Any) -> NDArray[Any]:
    """Sample as an array of its own: a dataset may give it again, changed."""
    if getattr(x, "mode", None) in ("P", "PA"):  # of Pillow
        raise TypeError(
            "An image of a dataset has a palette, and its pixels are numbers of colours: "
            'give image.convert("RGB").'
        )
    try:
        return np.array(to_numpy(x))
    except (ValueError, TypeError) as error:
        raise TypeError(
            "Samples of a dataset must be arrays, tensors or images, got one of type "
            f"{type(x).__name__} that NumPy cannot make an array of ({error}). Give a "
            "sample and its y as a tuple."
        ) from error


def _parted(item: Any) -> tuple[Any, tuple[bool, Any]]:
    """Sample of an item of a dataset, whether it has a y, and that."""
    if isinstance(item, Mapping):
        labels = [name for name in LABELS if name in item]
        others = [name for name in item if name not in labels]
        if len(others) != 1 or len(labels) > 1:
            raise TypeError(
                "Items of a dataset that are dicts must have one field beside 'label' or "
                f"'labels', got {sorted(map(str, item))}: select and rename its columns."
            )
        return item[others[0]], (bool(labels), item[labels[0]] if labels else None)
    if isinstance(item, tuple):
        if not 1 <= len(item) <= 2:
            raise TypeError(
                "Items of a dataset must be samples, or pairs of a sample and its y, got a "
                f"tuple of {len(item)}."
            )
        return item[0], (len(item) == 2, item[-1])
    return item, (False, None)
