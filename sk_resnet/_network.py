"""Residual block and network, built from a `NetworkSpec`."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from sk_resnet._layers import (
    KERNELS,
    NORM_TYPES,
    Dropout,
    Ends,
    Periodic,
    PiecewiseLinear,
    StochasticDepth,
    Subsample,
    ZeroPadShortcut,
    channels_innermost,
    convolution,
    embedding,
    global_average_pool,
    linear,
    max_pool,
    norm,
    through,
)
from sk_resnet._spec import ORDERS, BlockSpec, NetworkSpec

# Deviation of the frequencies that periodic embeddings begin with, as in
# arXiv:2407.04491, of numbers with a deviation of 1.
FREQUENCY = 0.1


class Convolution(NamedTuple):
    """What a letter c stands for at its place."""

    kernel: int
    out_channels: int
    stride: int = 1
    dilation: int = 1


def sequence(
    letters: str,
    n_dims: int,
    channels: int,
    convolutions: tuple[Convolution, ...] = (),
    *,
    members: int,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Layers for letters of a `BlockOrder`; dropout stands before the last c."""
    layers = nn.Sequential()
    remaining = iter(convolutions)
    last = letters.rfind("c")
    for i, letter in enumerate(letters):
        number = letters[:i].count(letter) + 1
        if i == last and dropout > 0:
            layers.add_module("dropout", Dropout(dropout, members))
        if letter == "c":
            kernel, out_channels, stride, dilation = next(remaining)
            if kernel == 1 and stride > 1 and n_dims > 0:
                # The same convolution in two steps: oneDNN's own writes out of bounds for
                # some numbers of channels, such as 6 to 13, when they are innermost.
                layers.add_module("subsample", Subsample(stride))
                stride = 1
            layer = convolution(
                n_dims, channels, out_channels, kernel, stride, dilation, members=members
            )
            layers.add_module(f"conv{number}", layer)
            channels = out_channels
        elif letter == "b":
            layers.add_module(f"norm{number}", norm(n_dims, members * channels))
        else:
            layers.add_module(f"relu{number}", nn.ReLU())
    return layers


class Block(nn.Module):
    """x → after(branch(u) + shortcut(u)) with u = before_fork(x)."""

    def __init__(self, network: NetworkSpec, block: BlockSpec) -> None:
        super().__init__()
        order, n_dims = ORDERS[network.order], network.n_dims
        members = network.members
        forks_late = block.changes_shape or (network.activate_first and block.is_first)
        leading = order.leading if forks_late else ""
        letters = order.branch(len(network.kernels))[len(leading) :]
        outs = [*block.inner_channels, block.out_channels]
        # The first convolution strides, also where it is 1x1 (arXiv:1512.03385 §4.1).
        strides = [block.stride] + [1] * (len(network.kernels) - 1)
        dilations = [block.dilation] * len(network.kernels)
        convolutions = tuple(map(Convolution, network.kernels, outs, strides, dilations))

        self.before_fork = sequence(leading, n_dims, block.in_channels, members=members)
        self.branch = sequence(
            letters,
            n_dims,
            block.in_channels,
            convolutions,
            members=members,
            dropout=network.dropout,
        )
        if block.drop_rate > 0:
            self.branch.add_module("drop", StochasticDepth(block.drop_rate, members))
        self.shortcut = _shortcut(network, block)
        self.after = sequence(
            order.after_addition, n_dims, block.out_channels, members=members
        )

    def forward(self, x: Tensor, ends: Ends | None = None) -> Tensor:
        x = through(self.before_fork, x, ends)
        out = through(self.branch, x, ends)
        if isinstance(self.shortcut, nn.Sequential):
            out = out + through(self.shortcut, x, ends)
        elif self.shortcut is not None:
            out = out + self.shortcut(x)
        return through(self.after, out, ends)


def _shortcut(network: NetworkSpec, block: BlockSpec) -> nn.Module | None:
    if network.shortcut == "none":
        return None
    if not block.changes_shape:
        return nn.Identity()
    if network.shortcut == "zero_pad":
        return ZeroPadShortcut(
            block.in_channels, block.out_channels, block.stride, network.members
        )
    return sequence(
        ORDERS[network.order].projection,
        network.n_dims,
        block.in_channels,
        (Convolution(1, block.out_channels, block.stride),),
        members=network.members,
    )


class ResidualNetwork(nn.Module):
    """Stem, stages of residual blocks, head: (n, channels, *spatial) → (n, outputs).

    With several members: (members, n, channels, *spatial), or the same samples for all,
    → (members, n, outputs).
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        order = ORDERS[spec.order]
        self.embedding = None
        if spec.embedding is not None:
            self.embedding = embedding(
                spec.embedding, spec.in_channels, members=spec.members
            )
        size = (7, spec.stem_channels, 2) if spec.imagenet_stem else (3, spec.stem_channels)
        self.stem = sequence(
            order.stem,
            spec.n_dims,
            spec.n_embedded,
            (Convolution(*size),),
            members=spec.members,
        )
        if spec.imagenet_stem:
            self.stem.add_module("pool", max_pool(spec.n_dims))

        self.stages = nn.ModuleList(nn.Sequential() for _ in spec.stages)
        for block in spec.blocks():
            stage = cast(nn.Sequential, self.stages[block.stage])
            stage.append(Block(spec, block))
        channels = spec.stages[-1].out_channels
        self.head = sequence(order.head, spec.n_dims, channels, members=spec.members)
        self.classifier = linear(channels, spec.n_outputs, bias=True, members=spec.members)

    def features(self, x: Tensor) -> Tensor:
        """Pooled activations that the classifier reads."""
        return self._by_member(self._pooled(x))

    def forward(self, x: Tensor) -> Tensor:
        return self._by_member(self.classifier(self._pooled(x)))

    def _pooled(self, x: Tensor) -> Tensor:
        members, n_dims = self.spec.members, self.spec.n_dims
        if members > 1 and x.ndim == n_dims + 2:  # the same samples for all
            x = x.expand(members, *x.shape)
        ends = self._ends(x) if self.spec.unequal else None
        if members > 1:
            x = x.transpose(0, 1).flatten(1, 2)
        if n_dims == 1:
            x = x.unsqueeze(2)
        if n_dims > 0:
            x = channels_innermost(x)
        if self.embedding is not None:
            x = self.embedding(x)
        x = through(self.stem, x, ends)
        for stage in self.stages:
            x = through(cast(nn.Sequential, stage), x, ends)
        x = through(self.head, x, ends)
        if n_dims == 0:
            return x
        return global_average_pool(x) if ends is None else ends.average(x)

    def _ends(self, x: Tensor) -> Ends:
        """Ends of series, as (n, channels, length) or with the members in front."""
        has_value = ~x.select(-2, 0).isnan()
        if self.spec.members == 1:
            has_value = has_value.unsqueeze(0)
        return Ends(has_value.transpose(0, 1).unsqueeze(2))

    def _by_member(self, x: Tensor) -> Tensor:
        members = self.spec.members
        return x if members == 1 else x.unflatten(1, (members, -1)).transpose(0, 1)


def build_network(spec: NetworkSpec) -> ResidualNetwork:
    """Network on torch's meta device: no memory, and no draw from a global generator."""
    with torch.device("meta"):
        return ResidualNetwork(spec)


def new_network(
    spec: NetworkSpec,
    *,
    device: torch.device,
    seed: int,
    edges: Callable[[int], Tensor] | None = None,
) -> ResidualNetwork:
    """Network of one member with initial weights, in float32.

    `edges` gives those of so many bins of each number.
    """
    with device:
        network = ResidualNetwork(spec).float()
    initialize(network, torch.Generator(device).manual_seed(seed))
    if isinstance(network.embedding, PiecewiseLinear) and edges is not None:
        network.embedding.set_bins(edges(network.embedding.n_bins))
    if device.type == "cuda" and spec.n_dims < 3:
        # cuDNN's own order of weights; the stubs do not know the argument.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def initialize(network: nn.Module, generator: torch.Generator) -> None:
    """He-normal kernels by fan-in (arXiv:1502.01852), zero biases, unit batch norm."""
    for layer in network.modules():
        if isinstance(layer, KERNELS):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, NORM_TYPES):
            layer.reset_running_stats()
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, Periodic):
            nn.init.normal_(layer.slope, std=2 * math.pi * FREQUENCY, generator=generator)
            nn.init.uniform_(layer.offset, -math.pi, math.pi, generator=generator)


def overwriting_relus(network: nn.Module) -> list[nn.ReLU]:
    """ReLUs that may work in place, as nothing else reads what they get.

    They stand behind another layer of a sequence, or behind the addition of a block.
    """
    found = []
    for name, part in network.named_modules():
        if isinstance(part, nn.Sequential):
            behind = list(part)[0 if name.endswith("after") else 1 :]
            found += [layer for layer in behind if isinstance(layer, nn.ReLU)]
    return found


@contextmanager
def in_place(relus: list[nn.ReLU]) -> Iterator[None]:
    """Let ReLUs work in place meanwhile; at other times hooks of users may be there."""
    for relu in relus:
        relu.inplace = True
    try:
        yield
    finally:
        for relu in relus:
            relu.inplace = False


def kernels(network: nn.Module) -> dict[str, nn.Parameter]:
    """Convolution and linear kernels by name: what l1 and l2 act on."""
    return {
        f"{name}.weight": cast(nn.Parameter, layer.weight)
        for name, layer in network.named_modules()
        if isinstance(layer, KERNELS)
    }


def inner_kernels(network: nn.Module) -> dict[str, nn.Parameter]:
    """Kernels that read the inner channels of blocks: all but the first of each branch.

    Nothing else reads these channels, so that a channel whose weights here are zero can
    be cut out exactly, whatever norms and activations stand before.
    """
    found = {}
    for name, block in network.named_modules():
        if isinstance(block, Block):
            inside = kernels(block.branch)
            for inner in list(inside)[1:]:
                found[f"{name}.branch.{inner}"] = inside[inner]
    return found


def n_parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())


def is_finite(module: nn.Module) -> bool:
    """Whether no parameter or buffer is infinite or NaN."""
    values = [value.flatten() for value in module.state_dict().values()]
    return bool(torch.cat(values).isfinite().all())
