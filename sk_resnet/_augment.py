"""Augmentations: (x, generator) → x, on whole batches on their device."""

from collections.abc import Callable

import torch
from torch import Tensor

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def random_crop(x: Tensor, generator: torch.Generator, pad: int = 4) -> Tensor:
    """Shift each image by up to `pad` pixels over a reflected border.

    Reflection as in arXiv:1605.07146 §3; the pad shrinks on images too small for it.
    """
    sides = x.shape[2:]
    pads = [min(pad, max(1, side // 8), side - 1) for side in sides]
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


def random_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each sample along its last axis with probability one half."""
    flipped = torch.rand(len(x), generator=generator, device=x.device) < 0.5
    return torch.where(flipped.view(-1, *(1,) * (x.ndim - 1)), x.flip(-1), x)


AUGMENTATIONS: dict[str, Augmentation] = {"crop": random_crop, "flip": random_flip}


def resolve_augmentations(
    augment: str | list[str] | tuple[str, ...] | None, n_dims: int
) -> list[Augmentation]:
    """Functions for the names, in their order."""
    names = [] if augment is None else [augment] if isinstance(augment, str) else augment
    unknown = sorted(set(names) - set(AUGMENTATIONS))
    if unknown:
        raise ValueError(
            f"augment must name some of {sorted(AUGMENTATIONS)}, got {unknown}."
        )
    if names and n_dims == 0:
        raise ValueError(
            f"augment={augment!r} needs series, images or volumes, but the samples are "
            "rows of features: set augment=None, or give input_shape."
        )
    return [AUGMENTATIONS[name] for name in names]
