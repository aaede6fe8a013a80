"""Batches cut from arrays by a seeded permutation."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.dataset import Dataset
from torch import Tensor

from sk_resnet._augment import Augmentation, mixed_targets
from sk_resnet._input import InputSpec, chunks, places_for_quantiles, quantiles

# Above this size, in bytes on the device, samples are read batch by batch.
RESIDENT_BYTES = 2**30
# Up to this size they are put in the order of an epoch at its start: a batch is then a
# slice, which is faster than an index.
ORDERED_BYTES = 2**24


class ArrayDataset(Dataset):
    """Samples as they came, with an encoded y and weights of mean 1.

    X may be memory-mapped: rows are read and cast when a batch asks for them, unless
    `load` made them resident.
    """

    def __init__(
        self,
        X: NDArray[Any],
        spec: InputSpec,
        y: NDArray[Any] | None = None,
        weight: NDArray[Any] | None = None,
        rows: NDArray[np.intp] | None = None,
    ) -> None:
        self.samples, self.spec = X, spec
        self.rows = np.arange(len(X)) if rows is None else rows
        y = np.zeros(len(self.rows), dtype=np.int64) if y is None else y
        weight = np.ones(len(self.rows)) if weight is None else weight / weight.mean()
        self.y = torch.from_numpy(np.array(y))
        self.weight = torch.from_numpy(np.array(weight, dtype=np.float32))
        self.resident: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def X(self) -> NDArray[Any]:
        """Samples of these rows, as callbacks of skorch find them beside `y`."""
        is_whole = np.array_equal(self.rows, np.arange(len(self.samples)))
        return self.samples if is_whole else self.samples[self.rows]

    @property
    def n_bytes(self) -> int:
        """Size of all samples as the network gets them."""
        return len(self) * self._bytes_each

    @property
    def _bytes_each(self) -> int:
        return 4 * math.prod(self.samples.shape[1:])

    def edges(self, n_bins: int) -> Tensor:
        """Quantiles (n_bins + 1, features) of network input that part it into bins."""
        places = places_for_quantiles(len(self), math.prod(self.samples.shape[1:]))
        x = self.spec.transform(self.samples[self.rows[places]])
        weight = self.weight.cpu().numpy()[places]
        shares = [i / n_bins for i in range(n_bins + 1)]
        return torch.from_numpy(quantiles(x, shares, weight))

    def load(self, device: torch.device) -> None:
        """Put y, weights and, where they fit, samples on the device.

        Bytes stay bytes and are scaled there; other types are scaled here, in the
        precision that they came in.
        """
        if self.resident is not None and self.resident.device == device:
            return  # for another member of an ensemble
        self.y, self.weight = self.y.to(device), self.weight.to(device)
        is_bytes = self.samples.dtype == np.uint8
        if (self.n_bytes // 4 if is_bytes else self.n_bytes) > RESIDENT_BYTES:
            return
        if is_bytes:
            samples = np.ascontiguousarray(
                self.spec.channels_first(self.samples[self.rows])
            )
        else:
            shape = self.spec.channels_first(self.samples[:1]).shape[1:]
            samples = np.empty((len(self), *shape), dtype=np.float32)
            for part in chunks(samples):
                samples[part] = self.spec.transform(self.samples[self.rows[part]])
        self.resident = torch.from_numpy(samples).to(device)
        if is_bytes and self.spec.mean is not None:
            assert self.spec.scale is not None
            per_channel = (-1,) + (1,) * (samples.ndim - 2)
            self._mean, self._scale = (
                torch.from_numpy(a.reshape(per_channel)).to(device, torch.float32)
                for a in (self.spec.mean, self.spec.scale)
            )

    def inputs(self, places: Tensor) -> Tensor:
        """Network input of the samples at these places."""
        if self.resident is None:
            rows = self.rows[places.cpu().numpy()]
            x = torch.from_numpy(self.spec.transform(self.samples[rows]))
            return x.to(places.device)
        x = self.resident[places]
        if x.dtype != torch.uint8:
            return x
        x = x.float()
        if self.spec.mean is None:
            return x
        return self.spec.clipped(x.sub_(self._mean).div_(self._scale))

    def passes(self, size: int, device: torch.device) -> Iterator[Tensor]:
        """Network input of all samples in their order, in passes of a size.

        Many passes are read at once.
        """
        n = size * max(1, ORDERED_BYTES // (size * self._bytes_each))
        where = "cpu" if self.resident is None else device
        for start in range(0, len(self), n):
            places = torch.arange(start, min(start + n, len(self)), device=where)
            yield from self.inputs(places).to(device).split(size)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.inputs(torch.tensor([i]))[0], self.y[i]


def batch_bounds(n: int, size: int, *, trains: bool) -> list[tuple[int, int]]:
    """Start and stop of each batch."""
    starts = list(range(0, n, size))
    # The batch before takes in a tail of less than half a batch: batch norm has no variance
    # over one sample, and a poor one over few, which the running statistics would end on.
    if trains and 0 < n % size < max(2, size / 2) and len(starts) > 1:
        starts.pop()
    return list(zip(starts, starts[1:] + [n], strict=True))


class Batch(tuple):
    """The pair (inputs, encoded y) that skorch expects, with the weights beside it."""

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
        soften: Callable[[Tensor], Tensor] | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.dataset, self.batch_size, self.device = dataset, batch_size, device
        self.soften = soften  # the encoded y, for augmentations that mix samples
        self.rank, self.n_parts = part  # of the processes that share each batch
        self.shuffle, self.augmentations, self.generator = shuffle, augmentations, generator

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Start and stop of each batch in the order of an epoch."""
        n, trains = len(self.dataset), self.shuffle is not None
        return batch_bounds(n, self.batch_size, trains=trains)

    def __len__(self) -> int:
        return len(self.bounds)

    @property
    def are_slices(self) -> bool:
        """Whether batches are slices of `whole`, and nothing else is done to them."""
        return self.n_parts == 1 and not self.augmentations and self._is_small

    @property
    def _is_small(self) -> bool:
        return self.dataset.n_bytes <= ORDERED_BYTES

    def whole(self) -> Batch:
        """All samples in the order of a new epoch."""
        places, y, weight = self._in_order()
        return Batch(self.dataset.inputs(places).to(self.device), y, weight)

    def _in_order(self) -> tuple[Tensor, Tensor, Tensor]:
        """Places of the samples in the order of a new epoch, with their y and weights."""
        dataset, n = self.dataset, len(self.dataset)
        order = (
            torch.arange(n, device="cpu")
            if self.shuffle is None
            else torch.randperm(n, generator=self.shuffle, device="cpu")
        )
        on_device = order.to(self.device)
        # Samples that are not resident are read on the CPU: places that came back from a
        # GPU would wait for the batch before.
        places = order if dataset.resident is None else on_device
        y, weight = dataset.y.to(self.device), dataset.weight.to(self.device)
        if self.shuffle is not None:
            y, weight = y[on_device], weight[on_device]
        return places, y, weight

    def __iter__(self) -> Iterator[Batch]:
        places, y, weight = self._in_order()
        ordered = self.dataset.inputs(places).to(self.device) if self._is_small else None
        for start, stop in self.bounds:
            mine = slice(start + self.rank, stop, self.n_parts)
            w = weight[mine]
            if self.n_parts > 1:
                # The mean over processes of their means is then that over the batch.
                w = w * (len(w) * self.n_parts / (stop - start))
            if ordered is None:
                x = self.dataset.inputs(places[mine]).to(self.device)
            else:
                x = ordered[mine]
            batch = Batch(x, y[mine], w)
            for augmentation in self.augmentations:
                batch = self._augmented(batch, augmentation)
            yield batch

    def _augmented(self, batch: Batch, augmentation: Augmentation) -> Batch:
        assert self.generator is not None
        assert self.soften is not None
        x, y = batch
        if not augmentation.mixes:
            return Batch(augmentation.apply(x, self.generator), y, batch.weight)
        x, partner, share = augmentation.apply(x, self.generator)
        return Batch(x, *mixed_targets(self.soften(y), batch.weight, partner, share))
