"""L1 and L2 penalties on kernels: values and the proximal step."""

from collections.abc import Iterable

import torch
from torch import Tensor


def soft_threshold_(w: Tensor, threshold: Tensor | float) -> Tensor:
    """Proximal step of the L1 norm in place: w ← sign(w)·max(|w| − threshold, 0).

    Written as w minus w clamped to ±threshold, which gives exact zeros in two passes.
    """
    if isinstance(threshold, Tensor):
        return w.sub_(torch.maximum(torch.minimum(w, threshold), -threshold))
    return w.sub_(w.clamp(-threshold, threshold))


def sparsity(weights: Iterable[Tensor]) -> float:
    """Share of exact zeros among all values."""
    weights = list(weights)
    n_zeros = sum(int((w == 0).sum()) for w in weights)
    return n_zeros / sum(w.numel() for w in weights)
