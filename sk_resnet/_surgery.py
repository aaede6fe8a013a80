"""What is done to finished networks: folded, cut, stacked as members, and counted."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from sk_resnet._compat_torch import children_of, shallow_copy
from sk_resnet._layers import (
    CHANNELS_LAST,
    KERNELS,
    NORM_TYPES,
    Conv2d,
    Conv3d,
    Dropout,
    Linear,
    PaddedConvolution,
    StochasticDepth,
)
from sk_resnet._network import (
    Block,
    ResidualNetwork,
    build_network,
    kernels,
    overwriting_relus,
)


def folded(network: ResidualNetwork) -> ResidualNetwork:
    """Twin for prediction: batch norms right behind a convolution are folded into it.

    Exact up to rounding, in evaluation mode. What cannot be folded is shared. The first
    norm of a pre-activation branch stays: its shortcut reads the same values. ReLUs work
    in place where they can.
    """
    twin = _folded(network, set(overwriting_relus(network)))
    return cast(ResidualNetwork, twin)


def _folded(module: nn.Module, overwriting: set[nn.ReLU]) -> nn.Module:
    if type(module) is nn.ReLU:
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
        return PaddedConvolution(layer[0], _with_norm(layer[1], norm))
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    statistics = norm.running_mean, norm.running_var, norm.eps
    weight, bias = fuse(layer.weight, layer.bias, *statistics, norm.weight, norm.bias)
    # As the activations are laid out, or oneDNN would do it in every call.
    layout = CHANNELS_LAST.get(weight.ndim, torch.contiguous_format)
    laid_out = nn.Parameter(
        weight.contiguous(memory_format=layout), requires_grad=weight.requires_grad
    )
    return shallow_copy(layer, parameters={"weight": laid_out, "bias": bias})


Step = Callable[[Tensor], Tensor]


class _Steps(nn.Module):
    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


CONVOLVE = {Conv2d: nn.functional.conv2d, Conv3d: nn.functional.conv3d}


def flattened(network: ResidualNetwork) -> nn.Module:
    """Twin that calls its layers one after the other, for prediction.

    Of a small network, the calls of modules within modules take longer than the rest.
    Series of unequal lengths are led past each layer, so that theirs stays as it is.
    """
    if network.spec.unequal:
        return network
    steps = _steps(network.stem) + _steps(network.stages) + _steps(network.head)
    replaced = {"stem": _Steps(steps), "stages": nn.ModuleList(), "head": nn.Sequential()}
    return shallow_copy(network, children=children_of(network) | replaced)


def _steps(module: Any) -> list[Step]:
    """What a module in evaluation mode calls."""
    # By their exact types: subclasses of a user may do otherwise.
    kind = type(module)
    if kind is nn.ReLU:
        return [torch.relu_ if module.inplace else torch.relu]
    if kind in (nn.Identity, Dropout, StochasticDepth):
        return []
    if kind in (nn.Sequential, nn.ModuleList, PaddedConvolution):
        return [step for child in module.children() for step in _steps(child)]
    if kind is Block:
        return [_block_step(module)]
    if kind is Linear:
        weights = {"weight": module.weight, "bias": module.bias}
        return [partial(nn.functional.linear, **weights)]
    if kind in CONVOLVE and module.padding_mode == "zeros":
        options = ("weight", "bias", "stride", "padding", "dilation", "groups")
        return [partial(CONVOLVE[kind], **{k: getattr(module, k) for k in options})]
    return [module.forward]


def _block_step(block: Block) -> Step:
    """`Block.forward` in one function."""
    before, branch, after = map(_steps, (block.before_fork, block.branch, block.after))
    shortcut = None if block.shortcut is None else _steps(block.shortcut)

    def step(x: Tensor) -> Tensor:
        for part in before:
            x = part(x)
        out = x
        for part in branch:
            out = part(out)
        if shortcut is not None:
            for part in shortcut:
                x = part(x)
            out = out + x
        for part in after:
            out = part(out)
        return out

    return step


def multiply_adds(network: ResidualNetwork, sides: tuple[int, ...]) -> int:
    """Multiplications of the convolutions and linear layers for one sample.

    Those of all members together.
    """

    def work(layers: nn.Module, places: tuple[int, ...]) -> int:
        return math.prod(places) * sum(w.numel() for w in kernels(layers).values())

    spec = network.spec
    blocks = [block for stage in network.stages for block in stage.children()]
    return (
        work(network.stem, spec.stem_sides(sides))
        + sum(work(b, s.sides) for b, s in zip(blocks, spec.blocks(sides), strict=True))
        + network.classifier.weight.numel()
    )


def stacked(networks: Sequence[ResidualNetwork]) -> ResidualNetwork:
    """Network whose members these are; it holds copies of their tensors.

    They may differ in their rates of dropout.
    """
    rates = [network.spec.dropout for network in networks]
    spec = replace(networks[0].spec, members=len(networks), dropout=max(rates))
    states = [network.state_dict() for network in networks]
    whole = build_network(spec)
    whole.load_state_dict(
        {
            name: torch.cat([s[name] for s in states]) if first.ndim else first.clone()
            for name, first in states[0].items()
        },
        assign=True,
    )
    for layer in whole.modules():
        if type(layer) is Dropout:
            layer.rates = rates
    return whole.train(networks[0].training)


@torch.no_grad()
def gather(whole: ResidualNetwork, networks: Sequence[ResidualNetwork]) -> None:
    """Copy the tensors of networks into those of the one whose members they are."""
    states = [network.state_dict() for network in networks]
    for name, tensor in whole.state_dict().items():
        if tensor.ndim:
            torch.cat([state[name] for state in states], out=tensor)
        else:
            tensor.copy_(states[0][name])


def members(network: ResidualNetwork) -> list[ResidualNetwork]:
    """Members of a network, as networks that share its memory."""
    return [part(network, i, i + 1) for i in range(network.spec.members)]


def separated(network: ResidualNetwork) -> list[ResidualNetwork]:
    """Members of a network, as networks of their own; one that is alone as it is."""
    if network.spec.members == 1:
        return [network]
    found = members(network)
    for single in found:
        # Also their counts of changes, by which autograd knows one from another.
        own = {name: w.clone() for name, w in single.state_dict().items()}
        single.load_state_dict(own, assign=True)
    return found


def part(network: ResidualNetwork, start: int, stop: int) -> ResidualNetwork:
    """Network of some members, which shares the memory of the whole."""
    rates = [layer.rates for layer in network.modules() if type(layer) is Dropout]
    dropout = max(rates[0][start:stop]) if rates else 0.0
    spec = replace(network.spec, members=stop - start, dropout=dropout)
    found = build_network(spec)
    found.load_state_dict(
        {
            name: slice_of(tensor, network.spec.members, start, stop)
            for name, tensor in network.state_dict().items()
        },
        assign=True,
    )
    for layer in found.modules():
        if type(layer) is Dropout:
            layer.rates = rates[0][start:stop]
    return found.train(network.training)


def slice_of(tensor: Tensor, n_members: int, start: int, stop: int) -> Tensor:
    """What belongs to some members in a tensor of all of them."""
    if tensor.ndim == 0:  # a counter, which they share
        return tensor
    size = len(tensor) // n_members
    return tensor[start * size : stop * size]


def compacted(network: ResidualNetwork) -> ResidualNetwork:
    """Network without the inner channels of its blocks that have no weight behind them.

    A channel between two convolutions of a branch is cut when all weights that read it
    are zero; one always stays. The outputs are the same up to the order of sums. Members
    keep as many channels as that of them that needs most.
    """
    if network.spec.members == 1:
        return _compacted(network, None)
    singles = members(network)
    widths = [_compacted(single, None).spec.cut_to or () for single in singles]
    most = tuple(
        tuple(max(sizes) for sizes in zip(*block, strict=True))
        for block in zip(*widths, strict=True)
    )
    return stacked([_compacted(single, most) for single in singles])


def _compacted(
    network: ResidualNetwork, at_least: tuple[tuple[int, ...], ...] | None
) -> ResidualNetwork:
    """Network of one member that is cut to no fewer channels than these in each block."""
    state = dict(network.state_dict())
    blocks = [(n, b) for n, b in network.named_modules() if isinstance(b, Block)]
    widths = [
        _cut(f"{name}.branch", block.branch, state, at_least[i] if at_least else None)
        for i, (name, block) in enumerate(blocks)
    ]
    small = build_network(replace(network.spec, cut_to=tuple(widths)))
    small.load_state_dict(state, assign=True)
    return small.train(network.training)


def _cut(
    prefix: str,
    branch: nn.Sequential,
    state: dict[str, Tensor],
    at_least: tuple[int, ...] | None,
) -> tuple[int, ...]:
    """Cut the tensors of one branch in `state`; return the channels that stay."""
    kept: list[Tensor] = []
    layers = [
        (f"{prefix}.{name}", layer)
        for name, layer in branch.named_modules()
        if isinstance(layer, (*KERNELS, *NORM_TYPES))
    ]
    names = [name for name, layer in layers if isinstance(layer, KERNELS)]
    for place in reversed(range(1, len(names))):
        weight = state[f"{names[place]}.weight"]
        # What only channels read that are cut themselves is not read.
        fewest = at_least[place - 1] if at_least else 1
        kept.insert(0, _read_channels(weight[kept[0]] if kept else weight, fewest))
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


def _read_channels(weight: Tensor, fewest: int) -> Tensor:
    """Channels that a weight is not zero for, filled up with the first of the others."""
    used = weight.transpose(0, 1).flatten(1).ne(0).any(dim=1)
    n_missing = max(0, fewest - int(used.sum()))
    used[(~used).nonzero().flatten()[:n_missing]] = True
    return used.nonzero().flatten()
