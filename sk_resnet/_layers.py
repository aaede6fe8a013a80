"""Convolution, norm and pooling by number of spatial dimensions."""

from typing import Any

import torch
from torch import Tensor, nn

# Series are images of height 1: oneDNN's 2-D kernels are faster than its 1-D ones.
CONVOLUTIONS: dict[int, Any] = {1: nn.Conv2d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {0: nn.BatchNorm1d, 1: nn.BatchNorm2d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOLS = {1: nn.MaxPool2d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
KERNELS = (nn.Linear, nn.Conv2d, nn.Conv3d)
NORM_TYPES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def convolution(
    n_dims: int, in_channels: int, out_channels: int, kernel: int, stride: int = 1
) -> nn.Module:
    """Convolution without bias that gives ceil(size / stride); linear for 0 dimensions."""
    if n_dims == 0:
        return nn.Linear(in_channels, out_channels, bias=False)
    layer = CONVOLUTIONS[n_dims](
        in_channels,
        out_channels,
        _sizes(n_dims, kernel, 1),
        stride=_sizes(n_dims, stride, 1),
        padding=_sizes(n_dims, kernel // 2 if kernel % 2 else 0, 0),
        bias=False,
    )
    if kernel % 2:
        return layer
    # Torch pads both sides alike; an even kernel needs one more element at the end.
    return PaddedConvolution(_Pad((kernel // 2 - 1, kernel // 2) * n_dims), layer)


def _sizes(n_dims: int, size: int, at_height: int) -> tuple[int, ...]:
    return (at_height, size) if n_dims == 1 else (size,) * n_dims


def max_pool(n_dims: int) -> nn.Module:
    """Maximum over 3 neighbours at every second place, as after the imagenet stem."""
    sizes = (_sizes(n_dims, 3, 1), _sizes(n_dims, 2, 1), _sizes(n_dims, 1, 0))
    return MAX_POOLS[n_dims](*sizes)


def norm(n_dims: int, channels: int) -> nn.Module:
    """Batch norm over all axes but the channels."""
    return NORMS[n_dims](channels)


def channels_innermost(x: Tensor) -> Tensor:
    """Lay images out so that oneDNN and cuDNN convolve fastest; values stay.

    Layers pass the layout on, and the weights stay as they are.
    """
    x = x.contiguous(memory_format=CHANNELS_LAST[x.ndim])
    # Of one channel both layouts have the same strides, and torch takes the outermost.
    return x if x.shape[1] > 1 else x.squeeze(1).unsqueeze(-1).movedim(-1, 1)


def global_average_pool(x: Tensor) -> Tensor:
    """Mean over the spatial axes: (n, channels, *spatial) → (n, channels)."""
    # With the channels last by name too, or the gradient comes back with them outermost.
    return x.movedim(1, -1).flatten(1, -2).mean(1) if x.ndim > 2 else x


class _Pad(nn.Module):
    def __init__(self, amounts: tuple[int, ...]) -> None:
        super().__init__()
        self.amounts = amounts

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, self.amounts)


class PaddedConvolution(nn.Sequential):
    """Padding, then a convolution of even size."""


class Subsample(nn.Module):
    """Every stride-th place of each spatial axis."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        places = (slice(None, None, self.stride),) * (x.ndim - 2)
        # As in the pooling: the gradient of a slice is laid out by the order of its axes.
        x = x.movedim(1, -1)[(slice(None), *places)].movedim(-1, 1)
        layout = CHANNELS_LAST.get(x.ndim, torch.contiguous_format)
        return x.contiguous(memory_format=layout)


class ZeroPadShortcut(nn.Module):
    """Option A of arXiv:1512.03385 §4.1: subsample, and pad new channels with zeros."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.kept, self.new = min(in_channels, out_channels), out_channels - in_channels
        self.subsample = Subsample(stride)

    def forward(self, x: Tensor) -> Tensor:
        x = self.subsample(x[:, : self.kept])
        padding = (0, 0) * (x.ndim - 2) + (0, max(self.new, 0))
        return nn.functional.pad(x, padding)


class Dropout(nn.Module):
    """Elementwise dropout that draws from its own generator, not torch's global one."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None

    def _mask(self, x: Tensor) -> Tensor:
        return torch.empty_like(x)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = 1 - self.rate
        mask = self._mask(x).bernoulli_(keep, generator=self.generator)
        return x * mask.div_(keep)


class StochasticDepth(Dropout):
    """Drops whole samples of a branch: arXiv:1603.09382 §3.

    # Differs from the paper: each sample draws by itself, and branches are scaled up in
    # training, by 1 / (1 - rate), instead of down in prediction.
    """

    def _mask(self, x: Tensor) -> Tensor:
        return x.new_empty(len(x), *(1,) * (x.ndim - 1))
