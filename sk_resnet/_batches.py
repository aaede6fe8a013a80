"""Batches cut from arrays by a seeded permutation."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from sk_resnet._augment import Augmentation
from sk_resnet._input import InputSpec


class ArrayDataset(Dataset):
    """Samples as they came, with encoded labels and weights of mean 1.

    X may be memory-mapped: rows are read and cast when a batch asks for them.
    """

    def __init__(
        self,
        X: NDArray[Any],
        spec: InputSpec,
        y: NDArray[Any] | None = None,
        weight: NDArray[Any] | None = None,
        rows: NDArray[np.intp] | None = None,
    ) -> None:
        self.X, self.spec = X, spec
        self.rows = np.arange(len(X)) if rows is None else rows
        y = np.zeros(len(self.rows), dtype=np.int64) if y is None else y
        weight = np.ones(len(self.rows)) if weight is None else weight / weight.mean()
        self.y = torch.from_numpy(np.array(y, dtype=np.int64))
        self.weight = torch.from_numpy(np.array(weight, dtype=np.float32))

    def __len__(self) -> int:
        return len(self.rows)

    def inputs(self, index: Any) -> Tensor:
        """Network input of the samples at these places."""
        return torch.from_numpy(self.spec.transform(self.X[self.rows[index]]))

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.inputs([i])[0], self.y[i]


class Batch(tuple):
    """The pair (inputs, labels) that skorch expects, with the weights beside it."""

    weight: Tensor

    def __new__(cls, x: Tensor, y: Tensor, weight: Tensor) -> "Batch":
        batch = super().__new__(cls, (x, y))
        batch.weight = weight
        return batch


class Batches:
    """One pass over a dataset: shuffled and augmented when there is a generator."""

    def __init__(
        self,
        dataset: ArrayDataset,
        batch_size: int,
        device: torch.device,
        *,
        shuffle: torch.Generator | None = None,
        augmentations: Sequence[Augmentation] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        self.dataset, self.batch_size, self.device = dataset, batch_size, device
        self.shuffle, self.augmentations, self.generator = shuffle, augmentations, generator

    def _bounds(self) -> list[tuple[int, int]]:
        n, size = len(self.dataset), self.batch_size
        starts = list(range(0, n, size))
        # Batch norm has no variance over one sample: the batch before takes it in.
        if self.shuffle is not None and n > 1 and n % size == 1 and len(starts) > 1:
            starts.pop()
        return list(zip(starts, starts[1:] + [n], strict=True))

    def __len__(self) -> int:
        return len(self._bounds())

    def __iter__(self) -> Iterator[Batch]:
        dataset = self.dataset
        n = len(dataset)
        order = (
            np.arange(n)
            if self.shuffle is None
            else torch.randperm(n, generator=self.shuffle).numpy()
        )
        for start, stop in self._bounds():
            index = order[start:stop]
            x = dataset.inputs(index).to(self.device)
            for augmentation in self.augmentations:
                assert self.generator is not None
                x = augmentation(x, self.generator)
            places = torch.from_numpy(index)
            y, weight = dataset.y[places], dataset.weight[places]
            yield Batch(x, y.to(self.device), weight.to(self.device))
