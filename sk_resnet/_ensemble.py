"""The networks of an estimator: those of its members, and the one that predicts for all.

Where there is one member, both are the same network.
"""

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer

from sk_resnet._callbacks import shown_row
from sk_resnet._input import InputSpec
from sk_resnet._net import ResidualNet, make_net, member_seed
from sk_resnet._network import ResidualNetwork, build_network
from sk_resnet._state import arrays_to_weights, weights_to_arrays
from sk_resnet._surgery import gather, separated, stacked
from sk_resnet._target import Target

# An epoch of a training, as `history_` shows it.
Row = dict[str, Any]


def make_nets(
    modules: Sequence[ResidualNetwork],
    input_spec: InputSpec,
    target: Target,
    *,
    batch_size: int,
    device: torch.device,
    seed: int,
    history: Sequence[Row],
) -> tuple[ResidualNet, list[ResidualNet]]:
    """Net that predicts, and those of the members, trained for the epochs of a history."""

    def made(module: ResidualNetwork, member: int = 0) -> ResidualNet:
        net = make_net(
            module,
            input_spec=input_spec,
            target=target,
            batch_size=batch_size,
            device=device,
            seed=member_seed(seed, member),
            n_epochs=len(history),
        )
        fill_history(net, history)
        return net

    nets = [made(module, i) for i, module in enumerate(modules)]
    return (nets[0] if len(nets) == 1 else made(stacked(modules))), nets


def gather_members(net: ResidualNet, nets: Sequence[ResidualNet]) -> None:
    """Bring the weights of the members into the network that predicts."""
    if len(nets) > 1:
        gather(net.module_, [member.module_ for member in nets])


def settle(nets: Sequence[ResidualNet], lr: float) -> None:
    """End a training under `l1` with zeros where its steps would make them.

    The noise of batches keeps moving weights off zero, which schedules let end ever
    closer to it, and not at it.
    """
    for net in nets:
        optimizer: Any = net.optimizer_
        optimizer.settle(lr)


# The history


def joined_history(
    before: Sequence[Row], nets: Sequence[ResidualNet]
) -> tuple[list[Row], list[int]]:
    """History with the epochs that the members did since, and how many each has done."""
    rows = [
        [shown_row(epoch) for epoch in net.history if "train_loss" in epoch] for net in nets
    ]
    n_before = len(before) if len(nets) > 1 else 0
    new = zip_longest(*(of_member[n_before:] for of_member in rows))
    joined = [*before[:n_before], *map(_mean_row, new)]
    if len(nets) > 1:  # or they would differ in length after early stops
        for net in nets:
            fill_history(net, joined)
    return joined, [len(of_member) for of_member in rows]


def fill_history(net: ResidualNet, rows: Sequence[Row]) -> None:
    """Let skorch's history be that of a fit."""
    net.history.clear()
    for row in rows:
        net.history.new_epoch()
        for name, value in row.items():
            net.history.record("dur" if name == "seconds" else name, value)


def _mean_row(rows: tuple[Row | None, ...]) -> Row:
    """Means over the members that were still training; seconds are added up."""
    given = [row for row in rows if row is not None]
    if len(rows) == 1:
        return given[0]
    means = {
        name: float(np.mean([row[name] for row in given]))
        if isinstance(value, float)
        else value
        for name, value in given[0].items()
        if all(name in row for row in given)
    }
    if "seconds" in means:
        means["seconds"] = sum(row["seconds"] for row in given)
    return means


# Copies


def copied(net: ResidualNet, *, seed: int, history: Sequence[Row]) -> ResidualNet:
    """Net with the weights that another has now."""
    device, module = torch.device(net.device), build_network(net.module_.spec)
    arrays_to_weights(module, copied_weights(net), device)
    return make_nets(
        [module],
        net.input_spec,
        net.target,
        batch_size=net.batch_size,
        device=device,
        seed=seed,
        history=history,
    )[0]


def copied_weights(net: ResidualNet) -> dict[str, NDArray[Any]]:
    """Weights of a network, which its training does not change."""
    return {name: w.copy() for name, w in weights_to_arrays(net.module_).items()}


@dataclass(frozen=True)
class Backup:
    """Networks before a further training, which may fail."""

    net: ResidualNet
    nets: list[ResidualNet]
    target: Target
    weights: dict[str, NDArray[Any]]
    optimizers: list[Optimizer | None]

    @classmethod
    def of(cls, net: ResidualNet, nets: list[ResidualNet]) -> "Backup":
        """Copy all that a training changes."""
        optimizers = [_copied_optimizer(member) for member in nets]
        return cls(net, nets, net.target, copied_weights(net), optimizers)

    def restored(
        self, *, batch_size: int, seed: int, history: Sequence[Row]
    ) -> tuple[ResidualNet, list[ResidualNet]]:
        """Undo what a training did to the networks."""
        net, nets = self.net, self.nets
        if len(nets) > 1 or _differs(net.module_, self.weights):
            device = torch.device(net.device)
            module = arrays_to_weights(
                build_network(net.module_.spec), self.weights, device
            )
            net, nets = make_nets(
                separated(module),
                net.input_spec,
                self.target,
                batch_size=batch_size,
                device=device,
                seed=seed,
                history=history,
            )
        else:
            net.target = self.target
            del net.history[len(history) :]
        for earlier, now, optimizer in zip(self.nets, nets, self.optimizers, strict=True):
            if optimizer is not None:
                _move_optimizer(optimizer, earlier.module_, now.module_)
                now.take_optimizer(optimizer)
        return net, nets


def _differs(module: torch.nn.Module, weights: dict[str, NDArray[Any]]) -> bool:
    now = weights_to_arrays(module)
    return not all(np.array_equal(now[name], w) for name, w in weights.items())


def _copied_optimizer(net: ResidualNet) -> Optimizer | None:
    """Optimizer with averages of its own, as a further training changes them in place."""
    optimizer: Any = copy.copy(getattr(net, "optimizer_", None))
    if optimizer is not None:
        copies = {w: _clones(kept) for w, kept in optimizer.state.items()}
        optimizer.state = defaultdict(dict, copies)
    return optimizer


def _clones(values: dict[str, Any]) -> dict[str, Any]:
    tensors = {k: v.clone() for k, v in values.items() if isinstance(v, torch.Tensor)}
    return {**values, **tensors}


def _move_optimizer(
    optimizer: Optimizer, module: torch.nn.Module, copied: torch.nn.Module
) -> None:
    """Let an optimizer act on the parameters of a copy of its network."""
    pairs = zip(module.parameters(), copied.parameters(), strict=True)
    new: dict[torch.Tensor, torch.Tensor] = dict(pairs)
    optimizer.state = defaultdict(dict, {new[w]: s for w, s in optimizer.state.items()})
    optimizer.param_groups = [
        {**group, "params": [new[w] for w in group["params"]]}
        for group in optimizer.param_groups
    ]
