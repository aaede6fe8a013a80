"""Cutting channels that nothing reads out of a network."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from sk_resnet._layers import KERNELS, NORM_TYPES
from sk_resnet._network import Block, ResidualNetwork, build_network


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
