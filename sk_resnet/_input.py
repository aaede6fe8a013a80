"""Arrays → network input: sample shape, layout of the channels, scaling."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sk_resnet._spec import ArchitectureError

CHUNK_BYTES = 32 * 2**20
# Of all channels together. More samples hardly change their quantiles.
MOST_FOR_QUANTILES = 2 * 10**6
# What scaled values stay within, where outliers are not to reach far.
CLIP = 3.0
# Whose square is finite in float32; beyond it they are at ±CLIP to the last bit.
FARTHEST = 1e18


@dataclass(frozen=True)
class InputSpec:
    """How samples of a fixed shape become float32 input with channels first."""

    sample_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    channel_axis: int
    # Series of any length, which NaN follow up to that of the longest.
    unequal: bool = field(default=False, compare=False)
    mean: NDArray[np.float64] | None = field(default=None, compare=False)
    scale: NDArray[np.float64] | None = field(default=None, compare=False)
    # By quantiles, behind which values approach ±CLIP: see `with_quantiles`.
    robust: bool = field(default=False, compare=False)

    @property
    def scaling(self) -> str | None:
        """Name in `SCALINGS` of what made `mean` and `scale`."""
        if self.mean is None:
            return None
        return "robust" if self.robust else "standard"

    @property
    def network_shape(self) -> tuple[int, ...]:
        """(channels, *spatial)."""
        if self.channel_axis == 1:
            return self.input_shape
        return (self.input_shape[-1], *self.input_shape[:-1])

    def read_as(self, sample_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape with an axis of channels that samples of this shape are read as."""
        if not self.unequal:
            return self.input_shape
        n_channels = self.network_shape[0]
        length = math.prod(sample_shape) // n_channels
        return (n_channels, length) if self.channel_axis == 1 else (length, n_channels)

    def accepts(self, sample_shape: tuple[int, ...]) -> bool:
        """Whether samples of this shape are of the kind that the specification is for."""
        if sample_shape == self.sample_shape or not self.unequal or 0 in sample_shape:
            return sample_shape == self.sample_shape
        has_one_channel = len(sample_shape) == 1 and self.network_shape[0] == 1
        return has_one_channel or self.read_as(sample_shape) == sample_shape

    def channels_first(self, X: NDArray[Any]) -> NDArray[Any]:
        """View of X as (n, channels, *spatial)."""
        X = X.reshape(len(X), *self.read_as(X.shape[1:]))
        return np.moveaxis(X, -1, 1) if self.channel_axis == -1 else X

    def transform(self, X: NDArray[Any]) -> NDArray[np.float32]:
        """New array for the network: channels first, scaled, float32."""
        try:
            with np.errstate(over="raise"):
                return self._transformed(self.channels_first(X))
        except FloatingPointError:
            raise ValueError(
                "X has values that are too large for float32: scale them down."
            ) from None

    def _transformed(self, X: NDArray[Any]) -> NDArray[np.float32]:
        if self.mean is None:
            return np.array(X, dtype=np.float32, order="C")
        assert self.scale is not None
        # Small types are exact in float32; the others are centred before they are cut.
        dtype = np.float32 if X.dtype.itemsize <= 2 else np.float64
        per_channel = (-1,) + (1,) * (X.ndim - 2)
        out = X - self.mean.reshape(per_channel).astype(dtype)
        out /= self.scale.reshape(per_channel).astype(dtype)
        return np.ascontiguousarray(self.clipped(out), dtype=np.float32)

    def clipped(self, x: Any) -> Any:
        """Scaled values, of which robust ones come close to ±CLIP."""
        if not self.robust:
            return x
        x = x.clip(-FARTHEST, FARTHEST)
        return x / (1 + (x / CLIP) ** 2) ** 0.5

    def transform_tensor(self, X: torch.Tensor) -> torch.Tensor:
        """What `transform` gives, in operations of torch that can be exported."""
        X = X.reshape(X.shape[0], *self.read_as(tuple(X.shape[1:])))
        X = X.movedim(-1, 1) if self.channel_axis == -1 else X
        if self.mean is None:
            return X.float()
        assert self.scale is not None
        dtype = torch.float32 if X.dtype.itemsize <= 2 else torch.float64
        mean, scale = (
            torch.tensor(values.tolist(), dtype=dtype).reshape(-1, *(1,) * (X.ndim - 2))
            for values in (self.mean, self.scale)
        )
        return self.clipped((X.to(dtype) - mean) / scale).float()

    def to_dict(self) -> dict[str, Any]:
        """Plain values and arrays that `from_dict` reads back."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "InputSpec":
        """Inverse of `to_dict`."""
        shapes = {key: tuple(values[key]) for key in ("sample_shape", "input_shape")}
        return cls(**{**values, **shapes})


def input_spec(
    X: NDArray[Any],
    *,
    input_shape: tuple[int, ...] | None,
    channel_axis: int | str | None,
) -> InputSpec:
    """Specification for samples like those of X, without statistics."""
    sample_shape = X.shape[1:]
    sizes = input_shape or ()
    if not all(isinstance(size, Integral) and int(size) >= 1 for size in sizes):
        raise ValueError(
            "input_shape must be a tuple of positive integers such as (1, 28, 28), got "
            f"{input_shape!r}."
        )
    shape = sample_shape if input_shape is None else tuple(map(int, input_shape))
    if math.prod(shape) != math.prod(sample_shape):
        raise ArchitectureError(
            f"input_shape={shape} needs {math.prod(shape)} values a sample, but X has "
            f"samples of shape {sample_shape}: change input_shape or reshape X."
        )
    if min(shape, default=1) < 1:
        raise ValueError(f"Samples must not be empty, got samples of shape {shape}.")
    shape, axis = with_channels(shape, channel_axis, is_bytes=X.dtype == np.uint8)
    if not 1 <= len(shape) <= 4:
        raise ValueError(
            "Samples must have 1 to 4 dimensions (rows, series, images or volumes with "
            f"their channels), got shape {shape}: reshape X or set input_shape."
        )
    return InputSpec(sample_shape, shape, axis)


# Channels of grey, RGB and RGBA images.
CHANNELS = (1, 3, 4)
# Smallest side of what may be a grey image or volume, and length of what may be a series.
SMALLEST_IMAGE = 8
SMALLEST_SERIES = 12


def with_channels(
    shape: tuple[int, ...], channel_axis: int | str | None, *, is_bytes: bool
) -> tuple[tuple[int, ...], int]:
    """Shape of a sample with an axis of channels, and that axis: 1 or -1.

    "auto" reads images and volumes of 1, 3 or 4 channels at the end; what may be read in
    two ways is read with the channels in front, with a warning.
    """
    if channel_axis is None:
        return (1, *shape), 1
    if channel_axis == 0 or isinstance(channel_axis, bool):
        raise ValueError(
            f"channel_axis must be 'auto', 1, -1 or None, got {channel_axis!r}: axis 0 "
            "counts the samples."
        )
    if not isinstance(channel_axis, str):
        return shape, int(channel_axis)
    other = _other_reading(shape, is_bytes=is_bytes)
    if other and shape[0] not in CHANNELS and shape[-1] in CHANNELS and len(shape) > 2:
        return shape, -1
    if other:
        chosen = "series of " if len(shape) == 2 else ""
        _warn_of_two_readings(shape, f"{chosen}{shape[0]} channels", other)
    return shape, 1


def _other_reading(shape: tuple[int, ...], *, is_bytes: bool) -> str | None:
    """What samples may be where their first axis is not that of the channels."""
    if len(shape) == 2:
        return _other_series(*shape, is_bytes=is_bytes)
    if len(shape) == 3 and _may_be_grey(shape):
        return "grey volumes"
    *sides, last = shape
    if not sides or min(sides) <= last:
        return None
    # Sides of images and volumes are much alike: feature maps, such as (64, 8, 6), are not
    # taken for images of 64 x 8 pixels.
    if last in CHANNELS or _elongation(sides) < _elongation(shape[1:]):
        return f"{last} channels at the end"
    return None


def _other_series(first: int, last: int, *, is_bytes: bool) -> str | None:
    if _may_be_grey((first, last)) or (is_bytes and min(first, last) >= SMALLEST_IMAGE):
        return "grey images"
    if first >= max(2 * last, SMALLEST_SERIES):
        return f"series of {last} channels at the end"
    return None


def _may_be_grey(shape: tuple[int, ...]) -> bool:
    """Whether all axes may be sides of an image or volume: equal, or large and alike."""
    smallest, elongation = min(shape), _elongation(shape)
    return (smallest >= SMALLEST_IMAGE and elongation == 1) or (
        smallest >= 2 * SMALLEST_IMAGE and elongation <= 1.5
    )


def _elongation(sides: Sequence[int]) -> float:
    return max(sides) / min(sides)


def _warn_of_two_readings(shape: tuple[int, ...], chosen: str, other: str) -> None:
    warnings.warn(
        f"Samples of shape {shape} are read as {chosen}; they may be {other}. Set "
        "channel_axis: 1 for channels in front, -1 for channels at the end, None for "
        "samples of one channel without an axis for it.",
        UserWarning,
        stacklevel=2,
    )


@np.errstate(over="ignore", invalid="ignore")
def with_statistics(spec: InputSpec, X: NDArray[Any], weight: NDArray[Any]) -> InputSpec:
    """Spec that standardizes each channel by its weighted mean and deviation in X."""
    n_channels = spec.network_shape[0]
    positions = math.prod(spec.network_shape[1:])
    total, mean = 0.0, np.zeros(n_channels)
    squares = np.zeros(n_channels)
    for rows in chunks(X):
        w = weight[rows]
        if (chunk_total := float(w.sum()) * positions) == 0:
            continue
        x = spec.channels_first(X[rows]).astype(np.float64)
        x = x.reshape(len(x), n_channels, -1)
        if spec.unequal:
            has_value = ~np.isnan(x[:, 0])
            chunk_total = float(w @ has_value.sum(1))
            x = np.where(has_value[:, None], x, 0)
        chunk_mean = np.einsum("n,ncp->c", w, x) / chunk_total
        centred = x - chunk_mean[:, None]
        if spec.unequal:
            centred *= has_value[:, None]
        chunk_squares = np.einsum("n,ncp,ncp->c", w, centred, centred)
        # Chan, Golub & LeVeque 1979: merge the moments of two parts of the data.
        merged = total + chunk_total
        delta = chunk_mean - mean
        squares += chunk_squares + delta**2 * total * chunk_total / merged
        mean += delta * chunk_total / merged
        total = merged
    if not np.isfinite(squares).all():
        raise ValueError(
            "X has values whose squares are too large for float64, so that it cannot be "
            "standardized: scale them down."
        )
    deviation = np.sqrt(squares / total)
    # A constant channel has a deviation of rounding errors only.
    constant = deviation <= 10 * np.finfo(np.float64).eps * np.abs(mean)
    scale = np.where(constant, 1.0, deviation)
    return replace(spec, mean=mean, scale=scale)


@np.errstate(over="ignore", invalid="ignore")
def with_quantiles(spec: InputSpec, X: NDArray[Any], weight: NDArray[Any]) -> InputSpec:
    """Spec that shifts each channel by its weighted median in X, and scales by quartiles.

    What lies far out is clipped smoothly. Where the quartiles are equal, as in columns
    that are mostly 0, half of the range takes their place. Holzmüller et al. 2024,
    arXiv:2407.04491 §3.
    """
    n_channels = spec.network_shape[0]
    positions = math.prod(spec.network_shape[1:])
    rows = np.flatnonzero(weight > 0)
    rows = rows[places_for_quantiles(len(rows), n_channels * positions)]
    x = spec.channels_first(X[rows]).astype(np.float64)
    x = np.moveaxis(x, 1, 0).reshape(n_channels, -1)
    of_values = np.repeat(weight[rows], x.shape[1] // len(rows))
    has_value = ~np.isnan(x[0])  # series that end early do so in all channels
    x, of_values = x[:, has_value].T, of_values[has_value]
    low, median, high = quantiles(x, (0.25, 0.5, 0.75), of_values)
    spread, half = high - low, np.ptp(x, axis=0) / 2
    if not np.isfinite(half).all():
        raise ValueError(
            "X has values whose range is too large for float64, so that it cannot be "
            "scaled: scale them down."
        )
    # Constants have a range of rounding errors only.
    least = 10 * np.finfo(np.float64).eps * np.abs(median)
    scale = np.where(spread > least, spread, np.where(half > least, half, 1.0))
    return replace(spec, mean=median, scale=scale, robust=True)


def places_for_quantiles(n: int, size: int) -> NDArray[np.intp]:
    """Places of samples of this size, at random where there are more than are needed."""
    most = max(2, MOST_FOR_QUANTILES // size)
    if n <= most:
        return np.arange(n)
    # Not every k-th: samples may come in turns, such as those of two sensors.
    return np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def quantiles(
    x: NDArray[Any], shares: Sequence[float], weight: NDArray[Any]
) -> NDArray[Any]:
    """Quantiles of each column, a row for each share: whole weights are repetitions."""
    are_equal = (weight == weight[0]).all()  # NumPy is several times faster without them
    weights = None if are_equal else weight
    return np.quantile(x, shares, axis=0, weights=weights, method="inverted_cdf")


SCALINGS = {"standard": with_statistics, "robust": with_quantiles}


def are_statistics(mean: Any, scale: Any, n: int) -> bool:
    """Whether these are finite means and positive deviations of n values, or both None."""
    if mean is None and scale is None:
        return True
    arrays = [mean, scale]
    return (
        all(isinstance(a, np.ndarray) and a.shape == (n,) for a in arrays)
        and bool(np.isfinite(arrays).all())
        and bool((scale > 0).all())
    )


def padded(X: Any, channel_axis: int | str | None = "auto") -> Any:
    """Lists of series of unequal lengths as one array, in which NaN follow the shorter.

    The series are arrays of shape (length,), (n_channels, length) or (length, n_channels),
    or such lists of numbers. Anything else is returned as it is.
    """
    is_listed = isinstance(X, (list, tuple)) or (
        isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1
    )
    if is_listed and all(isinstance(x, (list, tuple)) for x in X):
        X = _as_arrays(X)
    if not is_listed or not len(X) or not all(hasattr(x, "shape") for x in X):
        return X
    shapes = {tuple(x.shape) for x in X}
    if len(shapes) == 1:
        return X
    series = [np.asarray(to_numpy(x)) for x in X]
    if empty := [i for i, x in enumerate(series) if 0 in x.shape]:
        raise ValueError(f"Samples must not be empty, got an empty one at {empty[0]}.")
    has_channels = series[0].ndim > 1
    behind = channel_axis == -1
    series = [(x[:, None] if behind else x[None]) if x.ndim == 1 else x for x in series]
    has_rank_2 = {x.ndim for x in series} == {2}
    sizes = np.array([x.shape for x in series]) if has_rank_2 else np.zeros((0, 2))
    if not has_rank_2 or (np.ptp(sizes, axis=0) > 0).all():
        found = [str(shape) for shape in sorted(shapes, key=lambda s: (len(s), s))]
        shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" * (len(found) > 3))
        raise ValueError(
            f"Samples must have one shape, or be series that differ in length alone, got "
            f"{shown}: resize them, or convert them to the same number of channels."
        )
    dtype = np.result_type(np.float32, *series)
    whole = np.full((len(series), *sizes.max(0)), np.nan, dtype=dtype)
    for row, x in zip(whole, series, strict=True):
        row[: len(x), : x.shape[1]] = x
    return whole if has_channels or channel_axis is not None else whole[:, 0]


def _as_arrays(samples: Any) -> Any:
    """Lists of numbers as arrays; rows of one length, and other things, as they are."""
    are_rows = not any(isinstance(value, (list, tuple)) for x in samples for value in x[:1])
    if are_rows and len({len(x) for x in samples}) == 1:
        return samples
    try:
        arrays = [np.asarray(x) for x in samples]
    except ValueError:  # the channels of a sample differ in length
        return samples
    return arrays if all(x.dtype.kind in "biuf" for x in arrays) else samples


def ends_in_nan(X: NDArray[Any], spec: InputSpec, name: str = "X") -> bool:
    """Whether X holds series some of which end early, in NaN; refuses any other NaN."""
    found = False
    # What reads a dataset looks at each sample itself.
    has_any = isinstance(X, np.ndarray) and X.dtype.kind == "f"
    for rows in chunks(X) if has_any else ():
        missing = np.isnan(x := spec.channels_first(X[rows]))
        if not missing.any():
            continue
        if x.ndim != 3:
            raise ValueError(
                f"Input {name} contains NaN: fill in what is missing. Series that end "
                "early are read where X has an axis of channels, or with "
                "input_shape=(1, length)."
            )
        begins = np.diff(missing, axis=-1)
        is_end = (missing == missing[:, :1]).all() and begins.sum(-1).max() <= 1
        if missing[..., 0].any() or not is_end:
            raise ValueError(
                f"Input {name} contains NaN within series: only behind the last value of "
                "a series may NaN stand, in all of its channels. Fill in what is missing, "
                "or set channel_axis=-1 where the channels come last."
            )
        found = True
    return found


def to_numpy(X: Any) -> Any:
    """Tensors as arrays on the CPU; anything else as it is."""
    if not isinstance(X, torch.Tensor):
        return X
    X = X.detach().cpu()
    return (X.float() if X.dtype == torch.bfloat16 else X).numpy()  # NumPy has no bfloat16


def column_names(table: Any) -> NDArray[np.object_] | None:
    """Names of the columns of a table where all are strings, else None."""
    names = list(getattr(table, "columns", ()))
    if not names or not all(isinstance(name, str) for name in names):
        return None
    return np.array(names, dtype=object)


def chunks(X: NDArray[Any]) -> Iterator[slice]:
    """Slices of rows that stay under `CHUNK_BYTES` in float64."""
    row_bytes = 8 * max(1, math.prod(X.shape[1:]))
    step = max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, len(X), step):
        yield slice(start, start + step)
