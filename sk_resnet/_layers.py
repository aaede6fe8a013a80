"""Convolution, norm and pooling by number of spatial dimensions and of members.

The members of a network share its layers: their channels lie side by side, those of one
member after those of another, and convolutions have a group for each. All parameters hold
the members along their first axis.
"""

import math
from abc import ABC, abstractmethod
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from sk_resnet._spec import EMBEDDINGS


class _WithoutValues:
    """Memory as it comes, for `initialize`: torch's values take longer than the rest."""

    def reset_parameters(self) -> None:
        """Do nothing."""


class Linear(_WithoutValues, nn.Linear):
    """Torch's, without initial values."""


class Conv2d(_WithoutValues, nn.Conv2d):
    """Torch's, without initial values."""


class Conv3d(_WithoutValues, nn.Conv3d):
    """Torch's, without initial values."""


class BatchNorm1d(_WithoutValues, nn.BatchNorm1d):
    """Torch's, without initial values."""


class BatchNorm2d(_WithoutValues, nn.BatchNorm2d):
    """Torch's, without initial values."""


class BatchNorm3d(_WithoutValues, nn.BatchNorm3d):
    """Torch's, without initial values."""


# Series are images of height 1: oneDNN's 2-D kernels are faster than its 1-D ones.
CONVOLUTIONS: dict[int, Any] = {1: Conv2d, 2: Conv2d, 3: Conv3d}
NORMS = {0: BatchNorm1d, 1: BatchNorm2d, 2: BatchNorm2d, 3: BatchNorm3d}
MAX_POOLS = {1: nn.MaxPool2d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
KERNELS = (nn.Linear, nn.Conv2d, nn.Conv3d)
NORM_TYPES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class GroupedLinear(Linear):
    """A linear layer for each member: (n, members * in) → (n, members * out)."""

    def __init__(
        self, members: int, in_channels: int, out_channels: int, *, bias: bool
    ) -> None:
        super().__init__(in_channels, members * out_channels, bias=bias)
        self.members = members

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.view(self.members, -1, self.in_features)
        if self.training:
            device = x.device.type
            if torch.is_autocast_enabled(device):
                dtype = torch.get_autocast_dtype(device)
                x, weight = x.to(dtype), weight.to(dtype)
            out = _Product.apply(x, weight)
            return out if self.bias is None else out + self.bias
        x = _apart(x, self.members)
        if self.bias is None:
            return _side_by_side(torch.bmm(x, weight.transpose(1, 2)))
        bias = self.bias.view(self.members, 1, -1)
        return _side_by_side(torch.baddbmm(bias, x, weight.transpose(1, 2)))


class _Product(torch.autograd.Function):
    """x (n, members * in) times the weight (members, out, in) of each member.

    The gradient of the weight is laid out as the weight is. That of torch.bmm is its
    transpose, which would have to be copied.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _side_by_side(torch.bmm(_apart(x, len(weight)), weight.transpose(1, 2)))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = ctx.needs_input_grad
        grad = _apart(grad, len(weight))
        return (
            _side_by_side(torch.bmm(grad, weight)) if of_x else None,
            torch.bmm(grad.transpose(1, 2), _apart(x, len(weight))) if of_weight else None,
        )


def _apart(x: Tensor, members: int) -> Tensor:
    """(n, members * channels) → (members, n, channels), a view."""
    return x.unflatten(1, (members, -1)).transpose(0, 1)


def _side_by_side(x: Tensor) -> Tensor:
    """(members, n, channels) → (n, members * channels)."""
    return x.transpose(0, 1).flatten(1)


def linear(in_channels: int, out_channels: int, *, bias: bool, members: int) -> nn.Linear:
    """Linear layer of one network, or of several members."""
    if members == 1:
        return Linear(in_channels, out_channels, bias=bias)
    return GroupedLinear(members, in_channels, out_channels, bias=bias)


def convolution(
    n_dims: int,
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    *,
    members: int = 1,
) -> nn.Module:
    """Convolution without bias that gives ceil(size / stride); linear for 0 dimensions."""
    if n_dims == 0:
        return linear(in_channels, out_channels, bias=False, members=members)
    reach = dilation * (kernel - 1)  # places between the first and the last that it reads
    layer = CONVOLUTIONS[n_dims](
        members * in_channels,
        members * out_channels,
        _sizes(n_dims, kernel, 1),
        stride=_sizes(n_dims, stride, 1),
        padding=_sizes(n_dims, reach // 2 if kernel % 2 else 0, 0),
        dilation=_sizes(n_dims, dilation, 1),
        groups=members,
        bias=False,
    )
    if kernel % 2:
        return layer
    # Torch pads both sides alike; an odd reach needs one more element at the end.
    return PaddedConvolution(_Pad((reach // 2, reach - reach // 2) * n_dims), layer)


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


class Ends:
    """Which places of series have a value, at every resolution of a network.

    `has_value` is of shape (n, members, 1, length): in each sample first those that do.
    """

    def __init__(self, has_value: Tensor) -> None:
        self.masks = [has_value]  # from the longest to the shortest

    def at(self, x: Tensor) -> Tensor:
        """Mask (n, channels or 1, 1, length) for values of this shape."""
        while self.masks[-1].shape[-1] > x.shape[-1]:
            self.masks.append(self.masks[-1][..., ::2])
        # Lengths are compared, not looked up: in an exported graph they are symbols.
        mask = next(mask for mask in self.masks if mask.shape[-1] == x.shape[-1])
        members = mask.shape[1]
        return mask if members == 1 else mask.repeat_interleave(x.shape[1] // members, 1)

    def filled(self, x: Tensor, value: float = 0.0) -> Tensor:
        """Values with another one behind the ends."""
        return x.masked_fill(~self.at(x), value)

    def average(self, x: Tensor) -> Tensor:
        """Mean over the places that have a value: (n, channels)."""
        mask = self.at(x)
        return (self.filled(x).sum(-1) / mask.sum(-1)).flatten(1)


def through(layers: nn.Sequential, x: Tensor, ends: Ends | None) -> Tensor:
    """Output of layers, none of which reads what stands behind the ends of series.

    So a series gives what it gives alone, whatever it is padded to: convolutions find
    zeros behind its end, as behind that of the longest, and norms leave it out.
    """
    if ends is None:
        return layers(x)
    for layer in layers:
        if hasattr(layer, "shortcut"):  # a block has layers of its own
            x = layer(x, ends)
        elif isinstance(layer, (*KERNELS, PaddedConvolution)):
            x = layer(ends.filled(x))
        elif isinstance(layer, nn.MaxPool2d):
            x = ends.filled(layer(ends.filled(x, -math.inf)))
        elif isinstance(layer, NORM_TYPES) and layer.training:
            x = _normed(layer, x, ends.at(x))
        else:
            x = layer(x)
    return x


def _normed(layer: Any, x: Tensor, mask: Tensor) -> Tensor:
    """Batch norm of series by the statistics of the places that have a value."""
    values, weight = x.float(), mask.float()
    places = (0, 2, 3)
    count = weight.sum(places, keepdim=True)
    mean = (values * weight).sum(places, keepdim=True) / count
    centred = (values - mean) * weight
    variance = centred.square().sum(places, keepdim=True) / count
    with torch.no_grad():
        unbiased = variance * (count / (count - 1))
        layer.running_mean.lerp_(mean.flatten(), layer.momentum)
        layer.running_var.lerp_(unbiased.flatten(), layer.momentum)
        layer.num_batches_tracked.add_(1)
    scale = layer.weight.view(1, -1, 1, 1) * (variance + layer.eps).rsqrt()
    return (centred * scale + layer.bias.view(1, -1, 1, 1)).to(x.dtype)


class Embedding(nn.Module, ABC):
    """Numbers x of rows beside functions of slope * x + offset, several of each number.

    (n, features) → (n, features * (1 + functions)), with the members side by side.
    """

    slope: Tensor
    offset: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(-1)
        return torch.cat([x, self.function(self.slope * x + self.offset)], -1).flatten(1)

    @abstractmethod
    def function(self, line: Tensor) -> Tensor:
        """What is done to the values of each line."""


class Periodic(Embedding):
    """Cosines whose frequencies and phases are learned.

    Gorishniy et al. 2022, arXiv:2203.05556 §3.3.

    # Differs from the paper: cosines with phases, as in arXiv:2407.04491, instead of pairs
    # of cosine and sine, and no linear layer of each number.
    """

    def __init__(self, n: int, each: int, members: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.empty(members * n, each))
        self.offset = nn.Parameter(torch.empty(members * n, each))

    def function(self, line: Tensor) -> Tensor:
        return line.cos()


class PiecewiseLinear(Embedding):
    """Place of a number in each bin: -1 below it, 1 above. Quantiles are between the bins.

    Gorishniy et al. 2022, arXiv:2203.05556 §3.2.
    """

    def __init__(self, n: int, each: int, members: int) -> None:
        super().__init__()
        self.register_buffer("slope", torch.empty(members * n, each))
        self.register_buffer("offset", torch.empty(members * n, each))

    def function(self, line: Tensor) -> Tensor:
        return line.clamp(-1, 1)

    @property
    def n_bins(self) -> int:
        """Bins of each number."""
        return self.slope.shape[1]

    def set_bins(self, edges: Tensor) -> None:
        """Take edges (n_bins + 1, features); a bin between equal ones gives 0."""
        edges = edges.to(self.slope).t()
        widths = edges.diff()
        is_bin = widths > torch.finfo(widths.dtype).tiny
        self.slope.copy_(torch.where(is_bin, 2 / widths, 0))
        offset = -1 - edges[:, :-1] * self.slope
        self.offset.copy_(torch.where(is_bin, offset, 0))


def embedding(name: str, n: int, *, members: int) -> Embedding:
    """Embedding of n numbers, by its name in `EMBEDDINGS`."""
    layer = {"periodic": Periodic, "piecewise_linear": PiecewiseLinear}[name]
    return layer(n, EMBEDDINGS[name], members)


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
        if self.training:
            # As in the pooling: the gradient of a slice is laid out by its axes' order.
            x = x.movedim(1, -1)[(slice(None), *places)].movedim(-1, 1)
        else:
            x = x[(slice(None), slice(None), *places)]
        layout = CHANNELS_LAST.get(x.ndim, torch.contiguous_format)
        return x.contiguous(memory_format=layout)


class ZeroPadShortcut(nn.Module):
    """Option A of arXiv:1512.03385 §4.1: subsample, and pad new channels with zeros."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, members: int = 1
    ) -> None:
        super().__init__()
        self.kept, self.new = min(in_channels, out_channels), out_channels - in_channels
        self.members = members
        self.subsample = Subsample(stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.members == 1:
            return self._padded(self.subsample(x[:, : self.kept]))
        x = self.subsample(x).unflatten(1, (self.members, -1))
        x = self._padded(x.flatten(0, 1)[:, : self.kept])
        x = x.unflatten(0, (-1, self.members)).flatten(1, 2)
        layout = CHANNELS_LAST.get(x.ndim, torch.contiguous_format)
        return x.contiguous(memory_format=layout)

    def _padded(self, x: Tensor) -> Tensor:
        padding = (0, 0) * (x.ndim - 2) + (0, max(self.new, 0))
        return nn.functional.pad(x, padding)


class Dropout(nn.Module):
    """Elementwise dropout; each member has a rate and a generator of its own.

    Torch's global generator is left alone. A member gets the masks that it would get alone.
    """

    def __init__(self, rate: float, members: int = 1) -> None:
        super().__init__()
        self.rates = [rate] * members
        self.generators: list[torch.Generator | None] = [None] * members

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        members, (n, channels, *sides) = len(self.rates), x.shape
        masks = self._drawn(x, self._shape(n, sides, channels // members))
        if members == 1:
            mask = masks[0]
        else:
            masks = masks.expand(*masks.shape[:-1], channels // members)
            mask = masks.movedim(0, -2).flatten(-2)
        return x * mask.movedim(-1, 1).to(x.dtype)

    def _drawn(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Factors of this shape for each member, on the device of its values."""
        # In 32 bits also where values have fewer, which would round the rates.
        masks = x.new_empty((len(self.rates), *shape), dtype=torch.float32)
        for rate, found in groupby(range(len(masks)), self.rates.__getitem__):
            places = list(found)
            own = masks[places[0] : places[-1] + 1]
            if rate == 0:  # alone there would be no such layer, and no draw
                own.fill_(1)
                continue
            for place in places:  # bernoulli_ takes several times as long
                masks[place].uniform_(generator=self.generators[place])
            own.lt_(1 - rate).div_(1 - rate)
        return masks

    def _shape(self, n: int, sides: list[int], channels: int) -> tuple[int, ...]:
        return (n, *sides, channels)


class StochasticDepth(Dropout):
    """Drops whole samples of a branch: arXiv:1603.09382 §3.

    # Differs from the paper: each sample draws by itself, and branches are scaled up in
    # training, by 1 / (1 - rate), instead of down in prediction.
    """

    def _shape(self, n: int, sides: list[int], channels: int) -> tuple[int, ...]:
        return (n, *(1 for _ in sides), 1)
