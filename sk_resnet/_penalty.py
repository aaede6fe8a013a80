"""L1 penalties on kernels: their values, and their proximal steps.

A step size is the learning rate of each weight: a number, or a tensor shaped as the
weights for optimizers that scale each one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def soft_threshold_(w: Tensor, threshold: Tensor | float) -> Tensor:
    """Proximal step of the L1 norm in place: w ← sign(w)·max(|w| − threshold, 0).

    Written as w minus w clamped to ±threshold, which gives exact zeros in two passes.
    """
    if isinstance(threshold, Tensor):
        return w.sub_(torch.maximum(torch.minimum(w, threshold), -threshold))
    return w.sub_(w.clamp(-threshold, threshold))


def channel_threshold_(w: Tensor, threshold: Tensor | float) -> Tensor:
    """Proximal step of Σ √m·‖w[:, j]‖₂ in place, m the values that read channel j.

    The group lasso of Yuan & Lin 2006. With s the norm of the result and thresholds t,
    the result is w·s / (s + t), so s is where w / (s + t) has norm 1, or 0 where that
    norm is smaller from the start. Newton's method on the inverse of the norm, as for
    trust regions, finds it from the left; for one threshold in one step.
    """
    by_channel = w.transpose(0, 1)
    groups = by_channel.flatten(1)
    scale = groups.shape[1] ** 0.5
    varies = isinstance(threshold, Tensor) and threshold.numel() > 1
    if varies:
        t = threshold.transpose(0, 1).flatten(1) * scale  # type: ignore[union-attr]
    else:
        t = torch.as_tensor(threshold * scale, dtype=w.dtype, device=w.device)
    t = t.clamp_min(1e-10)  # a rate of 0 would divide by it
    s = torch.zeros_like(groups[:, :1])
    for _ in range(8 if varies else 1):
        p = groups / (s + t)
        norm = p.norm(dim=1, keepdim=True)
        slope = ((p / norm).square() / (s + t)).sum(1, keepdim=True) / norm
        s = torch.where(norm > 1, s + (1 - 1 / norm) / slope, s)
    shrunk = (groups * (s / (s + t))).add_(0.0)  # -0.0 takes a value's bytes in a file
    by_channel.copy_(shrunk.view_as(by_channel))
    return w


def by_member(
    proximal_: Callable[[Tensor, Any], Tensor], members: int
) -> Callable[[Tensor, Any], Tensor]:
    """Proximal step for weights of several members, none of which sees another."""
    if members == 1 or proximal_ is soft_threshold_:  # which is elementwise
        return proximal_

    def step_(w: Tensor, threshold: Any) -> Tensor:
        varies = isinstance(threshold, Tensor) and threshold.ndim > 0
        thresholds = threshold.chunk(members) if varies else [threshold] * members
        for one, t in zip(w.chunk(members), thresholds, strict=True):
            proximal_(one, t)
        return w

    return step_


def weight_norm(w: Tensor) -> Tensor:
    """Sum of the absolute values."""
    return w.abs().sum()


def channel_norm(w: Tensor) -> Tensor:
    """Σ √m·‖w[:, j]‖₂ over the input channels j."""
    groups = w.transpose(0, 1).flatten(1)
    return groups.shape[1] ** 0.5 * groups.norm(dim=1).sum()


@dataclass(frozen=True)
class Structure:
    """What l1 empties: the value of the penalty, and its proximal step."""

    norm: Callable[[Tensor], Tensor]
    proximal_: Callable[[Tensor, Tensor | float], Tensor]


STRUCTURES = {
    "weight": Structure(weight_norm, soft_threshold_),
    "channel": Structure(channel_norm, channel_threshold_),
}


def sparsity(weights: Iterable[Tensor]) -> float:
    """Share of exact zeros among all values."""
    weights = list(weights)
    n_zeros = sum(int((w == 0).sum()) for w in weights)
    return n_zeros / sum(w.numel() for w in weights)
