"""Residual block and network, built from a `NetworkSpec`."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from sk_resnet._layers import (
    KERNELS,
    NORM_TYPES,
    Dropout,
    PaddedConvolution,
    ReLU,
    StochasticDepth,
    Subsample,
    ZeroPadShortcut,
    channels_innermost,
    convolution,
    global_average_pool,
    max_pool,
    norm,
)
from sk_resnet._spec import ORDERS, NetworkSpec


class Convolution(NamedTuple):
    """What a letter c stands for at its place."""

    kernel: int
    out_channels: int
    stride: int = 1


def sequence(
    letters: str,
    n_dims: int,
    channels: int,
    convolutions: tuple[Convolution, ...] = (),
    *,
    dropout: float = 0.0,
    overwrites: bool = False,
) -> nn.Sequential:
    """Layers for letters of a `BlockOrder`; dropout stands before the last c.

    A ReLU may work in place where nothing else reads its input: behind another layer, or at
    the start if the sequence `overwrites` what it is given.
    """
    layers = nn.Sequential()
    remaining = iter(convolutions)
    last = letters.rfind("c")
    for i, letter in enumerate(letters):
        number = letters[:i].count(letter) + 1
        if i == last and dropout > 0:
            layers.add_module("dropout", Dropout(dropout))
        if letter == "c":
            kernel, out_channels, stride = next(remaining)
            if kernel == 1 and stride > 1 and n_dims > 0:
                # The same convolution in two steps: oneDNN's own writes out of bounds for
                # some numbers of channels, such as 6 to 13, when they are innermost.
                layers.add_module("subsample", Subsample(stride))
                stride = 1
            layer = convolution(n_dims, channels, out_channels, kernel, stride)
            layers.add_module(f"conv{number}", layer)
            channels = out_channels
        elif letter == "b":
            layers.add_module(f"norm{number}", norm(n_dims, channels))
        else:
            layers.add_module(f"relu{number}", ReLU(overwrites or i > 0))
    return layers


@dataclass(frozen=True)
class BlockSpec:
    """Place of one block in its network."""

    in_channels: int
    inner_channels: tuple[int, ...]
    out_channels: int
    stride: int
    is_first: bool
    drop_rate: float

    @property
    def changes_shape(self) -> bool:
        """Whether the shortcut cannot be the identity."""
        return self.stride > 1 or self.in_channels != self.out_channels


class Block(nn.Module):
    """x → after(branch(u) + shortcut(u)) with u = before_fork(x)."""

    def __init__(self, network: NetworkSpec, block: BlockSpec) -> None:
        super().__init__()
        order, n_dims = ORDERS[network.order], network.n_dims
        forks_late = block.changes_shape or (network.activate_first and block.is_first)
        leading = order.leading if forks_late else ""
        letters = order.branch(len(network.kernels))[len(leading) :]
        outs = [*block.inner_channels, block.out_channels]
        # The first convolution strides, also where it is 1x1 (arXiv:1512.03385 §4.1).
        strides = [block.stride] + [1] * (len(network.kernels) - 1)
        convolutions = tuple(map(Convolution, network.kernels, outs, strides))

        self.before_fork = sequence(leading, n_dims, block.in_channels)
        self.branch = sequence(
            letters, n_dims, block.in_channels, convolutions, dropout=network.dropout
        )
        if block.drop_rate > 0:
            self.branch.add_module("drop", StochasticDepth(block.drop_rate))
        self.shortcut = _shortcut(network, block)
        self.after = sequence(
            order.after_addition, n_dims, block.out_channels, overwrites=True
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.before_fork(x)
        out = self.branch(x)
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        return self.after(out)


def _shortcut(network: NetworkSpec, block: BlockSpec) -> nn.Module | None:
    if network.shortcut == "none":
        return None
    if not block.changes_shape:
        return nn.Identity()
    if network.shortcut == "zero_pad":
        return ZeroPadShortcut(block.in_channels, block.out_channels, block.stride)
    return sequence(
        ORDERS[network.order].projection,
        network.n_dims,
        block.in_channels,
        (Convolution(1, block.out_channels, block.stride),),
    )


class ResidualNetwork(nn.Module):
    """Stem, stages of residual blocks, head: (n, channels, *spatial) → logits."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        order = ORDERS[spec.order]
        size = (7, spec.stem_channels, 2) if spec.imagenet_stem else (3, spec.stem_channels)
        self.stem = sequence(
            order.stem, spec.n_dims, spec.in_channels, (Convolution(*size),)
        )
        if spec.imagenet_stem:
            self.stem.add_module("pool", max_pool(spec.n_dims))

        self.stages = nn.ModuleList()
        channels = spec.stem_channels
        inner_channels = spec.inner_channels()
        n_blocks = 0
        for stage_index, stage in enumerate(spec.stages):
            blocks = nn.Sequential()
            for i in range(stage.n_blocks):
                n_blocks += 1
                block = BlockSpec(
                    in_channels=channels,
                    inner_channels=inner_channels[n_blocks - 1],
                    out_channels=stage.out_channels,
                    stride=stage.stride if i == 0 else 1,
                    is_first=stage_index == 0 and i == 0,
                    # Linear decay of the survival, arXiv:1603.09382 §3.
                    drop_rate=spec.stochastic_depth * n_blocks / len(inner_channels),
                )
                blocks.append(Block(spec, block))
                channels = stage.out_channels
            self.stages.append(blocks)

        self.head = sequence(order.head, spec.n_dims, channels)
        self.classifier = nn.Linear(channels, spec.n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Pooled activations that the classifier reads."""
        if self.spec.n_dims == 1:
            x = x.unsqueeze(2)
        if x.ndim > 2:
            x = channels_innermost(x)
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return global_average_pool(self.head(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def build_network(spec: NetworkSpec) -> ResidualNetwork:
    """Network on torch's meta device: no memory, and no draw from a global generator."""
    with torch.device("meta"):
        return ResidualNetwork(spec)


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


@contextmanager
def overwriting_relus(network: nn.Module) -> Iterator[None]:
    """Let ReLUs work in place meanwhile; at other times hooks of users may be there."""
    layers = [layer for layer in network.modules() if isinstance(layer, ReLU)]
    for layer in layers:
        layer.inplace = layer.may_overwrite
    try:
        yield
    finally:
        for layer in layers:
            layer.inplace = False


def folded(module: nn.Module) -> nn.Module:
    """Twin for prediction: batch norms right behind a convolution are folded into it.

    Exact up to rounding, in evaluation mode. What cannot be folded is shared. The first
    norm of a pre-activation branch stays: its shortcut reads the same values.
    """
    if isinstance(module, ReLU):
        return nn.ReLU(module.may_overwrite)
    twin = copy.copy(module)
    twin._modules = {}
    before: tuple[str, nn.Module] | None = None
    for name, child in module._modules.items():
        assert child is not None
        if isinstance(module, nn.Sequential) and isinstance(child, NORM_TYPES) and before:
            twin._modules[before[0]] = _with_norm(before[1], child)
            before = None
            continue
        twin._modules[name] = folded(child)
        is_kernel = isinstance(child, (*KERNELS, PaddedConvolution))
        before = (name, child) if is_kernel else None
    return twin


def _with_norm(layer: Any, norm: Any) -> nn.Module:
    if isinstance(layer, PaddedConvolution):
        return nn.Sequential(layer[0], _with_norm(layer[1], norm))
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    statistics = norm.running_mean, norm.running_var, norm.eps
    twin = copy.copy(layer)
    weight, bias = fuse(layer.weight, layer.bias, *statistics, norm.weight, norm.bias)
    twin._parameters = {"weight": weight, "bias": bias}
    return twin


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


def multiply_adds(network: ResidualNetwork, spatial: tuple[int, ...]) -> int:
    """Multiplications of the convolutions and linear layers for one sample."""

    def work(part: nn.Module, size: list[int]) -> int:
        return math.prod(size) * sum(w.numel() for w in kernels(part).values())

    spec = network.spec
    # Every layer gives ceil(size / stride); the first of a block strides.
    size = [-(-side // (2 if spec.imagenet_stem else 1)) for side in spatial]
    total = work(network.stem, size)
    if spec.imagenet_stem:
        size = [-(-side // 2) for side in size]
    for stage, blocks in zip(spec.stages, network.stages, strict=True):
        size = [-(-side // stage.stride) for side in size]
        total += work(blocks, size)
    return total + network.classifier.weight.numel()
