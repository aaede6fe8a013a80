"""Augmentations of whole batches on their device, as functions of (x, generator)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Generator, Tensor

from sk_resnet._spec import ArchitectureError

GRIDS = (1, 2, 3)  # spatial dimensions of series, images, volumes


def _uniform(
    x: Tensor, generator: Generator, low: float = 0.0, high: float = 1.0
) -> Tensor:
    u = torch.rand(len(x), generator=generator, device=x.device)
    return low + (high - low) * u


def _normal(shape: Sequence[int], x: Tensor, generator: Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=x.device)


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (x.ndim - 1))


def _box(x: Tensor, centres: Sequence[Tensor], sides: Sequence[Tensor]) -> Tensor:
    """Mask (n, 1, *spatial) of a box in each sample, cut off at the borders."""
    inside = torch.ones(len(x), 1, *(1,) * (x.ndim - 2), dtype=torch.bool, device=x.device)
    for axis, (centre, side) in enumerate(zip(centres, sides, strict=True)):
        length = x.shape[2 + axis]
        start = (centre - side / 2).round()
        place = torch.arange(length, device=x.device)
        along = (place >= start[:, None]) & (place < (start + side.round())[:, None])
        shape = (len(x), 1) + (1,) * axis + (length,) + (1,) * (x.ndim - 3 - axis)
        inside = inside & along.view(shape)
    return inside


def _lengths(x: Tensor) -> Tensor:
    """Places of each series before the NaN behind its end, (n, 1)."""
    return x.shape[-1] - x[:, 0].isnan().sum(-1, keepdim=True)


def _at(x: Tensor, places: Tensor) -> Tensor:
    """Values of series at other places (n, length), with their ends as they are."""
    moved = x.gather(-1, places[:, None].expand_as(x))
    return torch.where(x.isnan(), x, moved)


def random_crop(x: Tensor, generator: Generator, pad: int = 4) -> Tensor:
    """Shift each image by up to `pad` pixels over a reflected border.

    Reflection as in arXiv:1605.07146 §3; the pad shrinks below 28 pixels, the smallest side
    for which 4 of them are published.
    """
    sides = x.shape[2:]
    if len(sides) == 1:
        return _crop_series(x, generator, pad)
    pads = [min(pad, max(1, side // 7), side - 1) for side in sides]
    widths = [amount for p in reversed(pads) for amount in (p, p)]
    padded = torch.nn.functional.pad(x, widths, mode="reflect")
    n = len(x)
    indices: list[Tensor] = [
        torch.arange(n, device=x.device),
        torch.arange(x.shape[1], device=x.device),
    ]
    shapes = [(n,) + (1,) * (x.ndim - 1), (1, -1) + (1,) * len(sides)]
    for axis, (side, p) in enumerate(zip(sides, pads, strict=True)):
        start = torch.randint(0, 2 * p + 1, (n, 1), generator=generator, device=x.device)
        indices.append(start + torch.arange(side, device=x.device))
        shapes.append((n, 1) + (1,) * axis + (side,) + (1,) * (len(sides) - 1 - axis))
    return padded[tuple(i.reshape(s) for i, s in zip(indices, shapes, strict=True))]


def _crop_series(x: Tensor, generator: Generator, pad: int) -> Tensor:
    lengths = _lengths(x)
    pads = (lengths // 7).clamp_min(1).clamp_max(pad).minimum(lengths - 1)
    length = x.shape[-1]
    most = min(pad, max(1, length // 7), length - 1)
    by = torch.randint(-most, most + 1, (len(x), 1), generator=generator, device=x.device)
    by = (by * pads).div(max(1, most), rounding_mode="trunc")
    places = torch.arange(length, device=x.device) + by
    return _at(x, (lengths - 1 - (lengths - 1 - places.abs()).abs()).clamp_min(0))


def random_flip(x: Tensor, generator: Generator) -> Tensor:
    """Mirror each sample along its last axis with probability one half."""
    flipped = _per_sample(_uniform(x, generator) < 0.5, x)
    if x.ndim > 3:
        return torch.where(flipped, x.flip(-1), x)
    places = _lengths(x) - 1 - torch.arange(x.shape[-1], device=x.device)
    return torch.where(flipped, _at(x, places.clamp_min(0)), x)


def random_erasing(x: Tensor, generator: Generator) -> Tensor:
    """Fill a box of each sample with noise, with probability one half.

    Zhong et al. 2017, arXiv:1708.04896 §3: 2 to 40 % of the area, sides in a ratio of 0.3
    to 3.3 on images. # Differs from the paper: the noise is normal, as the samples are
    standardized, and a box that does not fit is cut off.
    """
    n_dims = x.ndim - 2
    share = _uniform(x, generator, 0.02, 0.4)
    stretch = _uniform(x, generator, -1.0, 1.0) * math.log(1 / 0.3)
    sides, centres = [], []
    for axis, length in enumerate(x.shape[2:]):
        # The ratio is spread over the axes so that the area stays.
        power = 0.0 if n_dims == 1 else (0.5, -0.5, 0.0)[axis]
        side = (length * share ** (1 / n_dims) * torch.exp(power * stretch)).clamp_max(
            length
        )
        centres.append(side / 2 + _uniform(x, generator) * (length - side))
        sides.append(side)
    erased = _box(x, centres, sides) & _per_sample(_uniform(x, generator) < 0.5, x)
    return torch.where(erased & ~x.isnan(), _normal(x.shape, x, generator), x)


def cutout(x: Tensor, generator: Generator) -> Tensor:
    """Zero a box of half the side around a random place, cut off at the borders.

    DeVries & Taylor 2017, arXiv:1708.04552 §3.2; zero is the mean of standardized samples.
    """
    lengths = x.shape[2:]
    centres = [_uniform(x, generator, 0, length).floor() for length in lengths]
    sides = [torch.full_like(c, n // 2) for c, n in zip(centres, lengths, strict=True)]
    return x.masked_fill(_box(x, centres, sides) & ~x.isnan(), 0.0)


def random_shift(x: Tensor, generator: Generator) -> Tensor:
    """Move each series by up to a tenth of its length; the border value is repeated."""
    length, lengths = x.shape[-1], _lengths(x)
    most = max(1, length // 10)
    by = torch.randint(-most, most + 1, (len(x), 1), generator=generator, device=x.device)
    by = (by * (lengths // 10).clamp_min(1)).div(most, rounding_mode="trunc")
    places = torch.arange(length, device=x.device) + by
    return _at(x, places.clamp_min(0).minimum(lengths - 1))


def random_scaling(x: Tensor, generator: Generator) -> Tensor:
    """Multiply each channel of each sample by a factor from N(1, 0.1²).

    Um et al. 2017, arXiv:1706.00527 §4.2.
    """
    factors = 1 + 0.1 * _normal(x.shape[:2], x, generator)
    return x * factors.view(*x.shape[:2], *(1,) * (x.ndim - 2))


def jitter(x: Tensor, generator: Generator) -> Tensor:
    """Add noise from N(0, 0.05²) to every value (Um et al. 2017, arXiv:1706.00527 §4.2)."""
    return x + 0.05 * _normal(x.shape, x, generator)


def random_window(x: Tensor, generator: Generator) -> Tensor:
    """Stretch a random window of nine tenths of each series to its full length.

    Window slicing of Le Guennec et al. 2016, with linear interpolation.
    """
    lengths = _lengths(x)
    window = (0.9 * lengths.double()).round().clamp_min(2)
    start = _uniform(x, generator)[:, None] * (lengths - window).clamp_min(0)
    step = (window - 1) / (lengths - 1).clamp_min(1)
    places = (start + step * torch.arange(x.shape[-1], device=x.device)).float()
    left = places.floor().long().minimum(lengths - 1)
    right = (left + 1).minimum(lengths - 1)
    share = (places - left)[:, None]
    low, high = _at(x, left), _at(x, right)
    return low + share * (high - low)


Mixed = tuple[Tensor, Tensor, Tensor]


def mixup(x: Tensor, generator: Generator) -> Mixed:
    """Mean of each sample and a partner, with a share from U(0, 1), and both.

    Zhang et al. 2018, arXiv:1710.09412, with α = 1 as for CIFAR-10 in §3.2. Of series of
    unequal lengths the mean ends with the shorter.
    """
    partner = torch.randperm(len(x), generator=generator, device=x.device)
    share = _uniform(x, generator)
    weight = _per_sample(share, x)
    return weight * x + (1 - weight) * x[partner], partner, share


def cutmix(x: Tensor, generator: Generator) -> Mixed:
    """Samples with a box of a partner, and the share that is left of them.

    Yun et al. 2019, arXiv:1905.04899 §3.1: the box has area 1 - λ, λ from U(0, 1), around
    a uniform place; the share counts what is inside the borders.
    """
    partner = torch.randperm(len(x), generator=generator, device=x.device)
    lengths, n_dims = x.shape[2:], x.ndim - 2
    relative = (1 - _uniform(x, generator)) ** (1 / n_dims)
    centres = [_uniform(x, generator, 0, length).floor() for length in lengths]
    box = _box(x, centres, [relative * length for length in lengths])
    other = x[partner]
    has_value = ~x[:, :1].isnan()
    box = box & has_value & ~other[:, :1].isnan()
    n_values = has_value.flatten(1).sum(1)
    share = 1 - box.flatten(1).sum(1) / n_values
    return torch.where(box, other, x), partner, share


def mixed_targets(
    y: Tensor, weight: Tensor, partner: Tensor, share: Tensor
) -> tuple[Tensor, Tensor]:
    """Encoded y and weights of mixed samples.

    The loss of a mixed sample is share · weight · its own + the same of its partner.
    """
    own, other = share * weight, (1 - share) * weight[partner]
    total = own + other
    # Weights far below the others are 0 in float32.
    shares = total.clamp_min(torch.finfo(total.dtype).tiny)[:, None]
    return (own[:, None] * y + other[:, None] * y[partner]) / shares, total


# What a prediction sees of samples.
View = Callable[[Tensor], Tensor]


def unchanged(x: Tensor) -> Tensor:
    """Samples as they are."""
    return x


def one_pixel_shifts(sides: Sequence[int]) -> list[View]:
    """Shifts by a pixel along each axis and back, over a reflected border."""
    axes = [axis for axis, side in enumerate(sides) if side > 1]
    return [partial(_shifted, axis=axis, by=by) for axis in axes for by in (-1, 1)]


def _shifted(x: Tensor, axis: int, by: int) -> Tensor:
    """Samples moved along a spatial axis by -1 or 1."""
    side = x.shape[2 + axis]
    places = torch.arange(side, device=x.device).sub(by).abs()
    places = side - 1 - (side - 1 - places).abs()
    return x.index_select(2 + axis, places)


def mirror(sides: Sequence[int]) -> list[View]:
    """Mirror images along the last axis."""
    return [partial(torch.flip, dims=(-1,))]


@dataclass(frozen=True)
class Augmentation:
    """A change of a batch, and the numbers of spatial dimensions that it is made for.

    `views` are what predictions see beside images or volumes of some sides.
    """

    apply: Callable[[Tensor, Generator], Any]
    dims: tuple[int, ...]
    mixes: bool = False
    views: Callable[[Sequence[int]], list[View]] | None = None


AUGMENTATIONS = {
    "crop": Augmentation(random_crop, GRIDS, views=one_pixel_shifts),
    "flip": Augmentation(random_flip, GRIDS, views=mirror),
    "random_erasing": Augmentation(random_erasing, GRIDS),
    "cutout": Augmentation(cutout, GRIDS),
    "shift": Augmentation(random_shift, (1,)),
    "window": Augmentation(random_window, (1,)),
    "scaling": Augmentation(random_scaling, GRIDS),
    "jitter": Augmentation(jitter, (0, *GRIDS)),
    "mixup": Augmentation(mixup, (0, *GRIDS), mixes=True),
    "cutmix": Augmentation(cutmix, GRIDS, mixes=True),
}
KINDS = {0: "rows", 1: "series", 2: "images", 3: "volumes"}


def resolve_augmentations(
    augment: str | Sequence[str] | None, n_dims: int
) -> list[Augmentation]:
    """Table rows for the names, in their order."""
    dims = {name: row.dims for name, row in AUGMENTATIONS.items()}
    return [AUGMENTATIONS[name] for name in _checked("augment", augment, dims, n_dims)]


def resolve_views(names: str | Sequence[str] | None, sides: Sequence[int]) -> list[View]:
    """Views of samples of those sides: each of one augmentation with each of the others."""
    rows = {name: row.views for name, row in AUGMENTATIONS.items() if row.views}
    dims = dict.fromkeys(rows, (2, 3))
    chosen = _checked("test_time_augmentation", names, dims, len(sides))
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"test_time_augmentation names a view twice: {names!r}.")
    every = product(*([unchanged, *rows[name](sides)] for name in chosen))
    return [partial(_through, views) for views in every]


def _through(views: Sequence[View], x: Tensor) -> Tensor:
    for view in views:
        x = view(x)
    return x


def _checked(
    parameter: str,
    names: str | Sequence[str] | None,
    dims: Mapping[str, tuple[int, ...]],
    n_dims: int,
) -> list[str]:
    """Names that a parameter gives, of those that may be, for samples like these."""
    if isinstance(names, str) or not isinstance(names, Sequence):
        names = [] if names is None else [names]
    given = list(names)
    if unknown := sorted(set(map(str, given)) - set(dims)):
        raise ValueError(f"{parameter} must name some of {sorted(dims)}, got {unknown}.")
    for name in given:
        if n_dims not in dims[name]:
            fitting = sorted(n for n, fit in dims.items() if n_dims in fit)
            needed = " or ".join(KINDS[d] for d in dims[name])
            use = f"use some of {fitting}" if fitting else "use None"
            raise ArchitectureError(
                f"{parameter}={name!r} needs {needed}, but the samples are "
                f"{KINDS[n_dims]}: {use}, or give input_shape."
            )
    return given
