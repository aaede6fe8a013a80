"""What is done to finished networks: batch norms folded, channels cut, work counted."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from sk_resnet._compat_torch import children_of, shallow_copy
from sk_resnet._layers import KERNELS, NORM_TYPES, PaddedConvolution
from sk_resnet._network import (
    Block,
    ResidualNetwork,
    build_network,
    kernels,
    overwriting_relus,
)


def folded(network: nn.Module) -> nn.Module:
    """Twin for prediction: batch norms right behind a convolution are folded into it.

    Exact up to rounding, in evaluation mode. What cannot be folded is shared. The first
    norm of a pre-activation branch stays: its shortcut reads the same values. ReLUs work
    in place where they can.
    """
    return _folded(network, set(overwriting_relus(network)))


def _folded(module: nn.Module, overwriting: set[nn.ReLU]) -> nn.Module:
    if isinstance(module, nn.ReLU):
        return nn.ReLU(inplace=module in overwriting)
    children: dict[str, nn.Module] = {}
    before: tuple[str, nn.Module] | None = None
    for name, child in children_of(module).items():
        if isinstance(module, nn.Sequential) and isinstance(child, NORM_TYPES) and before:
            children[before[0]] = _with_norm(before[1], child)
            before = None
            continue
        children[name] = _folded(child, overwriting)
        is_kernel = isinstance(child, (*KERNELS, PaddedConvolution))
        before = (name, child) if is_kernel else None
    return shallow_copy(module, children=children)


def _with_norm(layer: Any, norm: Any) -> nn.Module:
    if isinstance(layer, PaddedConvolution):
        return nn.Sequential(layer[0], _with_norm(layer[1], norm))
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    statistics = norm.running_mean, norm.running_var, norm.eps
    weight, bias = fuse(layer.weight, layer.bias, *statistics, norm.weight, norm.bias)
    return shallow_copy(layer, parameters={"weight": weight, "bias": bias})


def multiply_adds(network: ResidualNetwork, sides: tuple[int, ...]) -> int:
    """Multiplications of the convolutions and linear layers for one sample."""

    def work(part: nn.Module, places: tuple[int, ...]) -> int:
        return math.prod(places) * sum(w.numel() for w in kernels(part).values())

    spec = network.spec
    blocks = [block for stage in network.stages for block in stage.children()]
    return (
        work(network.stem, spec.stem_sides(sides))
        + sum(work(b, s.sides) for b, s in zip(blocks, spec.blocks(sides), strict=True))
        + network.classifier.weight.numel()
    )


def compacted(network: ResidualNetwork) -> ResidualNetwork:
    """Network without the inner channels of its blocks that have no weight behind them.

    A channel between two convolutions of a branch is cut when all weights that read it
    are zero; one always stays. The outputs are the same up to the order of sums.
    """
    state = dict(network.state_dict())
    widths = []
    for name, block in network.named_modules():
        if isinstance(block, Block):
            widths.append(_cut(f"{name}.branch", block.branch, state))
    small = build_network(replace(network.spec, cut_to=tuple(widths)))
    small.load_state_dict(state, assign=True)
    return small.train(network.training)


def _cut(prefix: str, branch: nn.Sequential, state: dict[str, Tensor]) -> tuple[int, ...]:
    """Cut the tensors of one branch in `state`; return the channels that stay."""
    kept: list[Tensor] = []
    layers = [
        (f"{prefix}.{name}", layer)
        for name, layer in branch.named_modules()
        if isinstance(layer, (*KERNELS, *NORM_TYPES))
    ]
    names = [name for name, layer in layers if isinstance(layer, KERNELS)]
    for name in reversed(names[1:]):
        weight = state[f"{name}.weight"]
        # What only channels read that are cut themselves is not read.
        kept.insert(0, _read_channels(weight[kept[0]] if kept else weight))
    # Letters between two convolutions act on the channels that the second one reads.
    n_seen = 0
    for name, layer in layers:
        if isinstance(layer, KERNELS):
            weight = state[f"{name}.weight"]
            weight = weight if n_seen == 0 else weight[:, kept[n_seen - 1]]
            weight = weight if n_seen == len(kept) else weight[kept[n_seen]]
            state[f"{name}.weight"] = weight.clone()
            n_seen += 1
        elif 0 < n_seen <= len(kept):
            for key in ("weight", "bias", "running_mean", "running_var"):
                state[f"{name}.{key}"] = state[f"{name}.{key}"][kept[n_seen - 1]]
    return tuple(len(channels) for channels in kept)


def _read_channels(weight: Tensor) -> Tensor:
    used = weight.transpose(0, 1).flatten(1).ne(0).any(dim=1)
    return used.nonzero().flatten() if used.any() else torch.zeros(1, dtype=torch.long)
