"""Snapshots: what the training of one network has reached, and the way back to it."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from sk_resnet._callbacks import OncePerEpoch
from sk_resnet._net import ResidualNet, make_optimizer
from sk_resnet._plan import Recipe


@dataclass
class Snapshot:
    """What the training of one network has reached at the end of an epoch."""

    values: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    @property
    def n_own(self) -> int:
        """Epochs that the network did of this training."""
        return len(self.values["history"]) - int(self.values["n_before"])

    @property
    def has_ended(self) -> bool:
        """Whether the network has its last weights, perhaps before the last epoch."""
        return self.values["held"] is not None


def check_snapshot(state: Snapshot, possible: range) -> None:
    """Refuse values that no training has, which may have done `possible` epochs."""
    values, n_all = state.values, len(state.values["history"])
    check_rows(values["history"], {"epoch", "train_loss", "dur"})
    if not np.isfinite(float(values["lr"])):
        raise ValueError(f"its learning rate is {values['lr']!r}")
    if not all(np.isfinite(a).all() for a in state.arrays.values() if a.dtype.kind == "f"):
        raise ValueError("it holds infinite weights or NaN")
    if not isinstance(values["is_present"], bool):
        raise TypeError(f"is_present is {values['is_present']!r}")
    n_before, n_done = operator.index(values["n_before"]), operator.index(values["n_done"])
    given = [values[name] for name in ("began", "held") if values[name] is not None]
    is_own = n_before >= 0 and state.n_own in possible
    # The group may go on after a member has ended.
    is_of_group = state.n_own == 0 or n_done in range(state.n_own, possible.stop)
    if not (
        is_own and is_of_group and {*map(operator.index, given)} <= {*range(n_all + 1)}
    ):
        raise ValueError("it has other numbers of epochs than its training")


def check_rows(rows: Any, needed: set[str]) -> None:
    """Refuse a history in which these numbers of an epoch are missing, or no number."""
    for row in rows:
        is_plain = all(isinstance(value, (int, float)) for value in row.values())
        if not (is_plain and needed <= row.keys()):
            raise ValueError(f"a row of its history is no epoch: {row}")


def take_snapshot(
    net: ResidualNet,
    optimizer: Mapping[str, Mapping[str, Any]],
    *,
    lr: float = 0.0,
    began: int | None = None,
    held: int | None = None,
    n_before: int | None = None,
) -> Snapshot:
    """Snapshot of a network; `optimizer` by the names of parameters, `held` once it ended.

    `n_before` epochs were done before its training; those that it knows itself by default.
    """
    kept = [
        (name, key, value) for name, of in optimizer.items() for key, value in of.items()
    ]
    callbacks = [callback.state_dict() for callback in _with_state(net)]
    history = [{k: v for k, v in row.items() if k != "batches"} for row in net.history]
    values = {
        "n_before": net.n_epochs_before if n_before is None else n_before,
        "began": began,
        "held": held,
        "is_present": True,
        # The group may go on after this member has ended.
        "n_done": net.n_epochs_done,
        "lr": lr,
        "history": history,
        "callbacks": [plain for plain, _ in callbacks],
        "optimizer": [
            [name, key, list(value.shape), _dtype(value)] for name, key, value in kept
        ],
    }
    arrays = {
        **generators(net),
        **_flat("weights", net.module_.state_dict().values()),
        **_flat("optimizer", [value for _, _, value in kept]),
    }
    for i, (_, best) in enumerate(callbacks):
        arrays |= _flat(f"callback{i}", best)
    return Snapshot(values, arrays)


def state_by_name(net: ResidualNet) -> dict[str, dict[str, Any]]:
    """States that a training left in the optimizer of a net, by the names of parameters."""
    optimizer = getattr(net, "optimizer_", None)
    if optimizer is None:
        return {}
    named = net.module_.named_parameters()
    return {name: optimizer.state[w] for name, w in named if w in optimizer.state}


def generators(net: ResidualNet) -> dict[str, NDArray[Any]]:
    """States of the generators of a network."""
    return {
        "shuffle": net.shuffle.get_state().numpy(),
        "noise": net.noise.get_state().numpy(),
    }


def set_generators(net: ResidualNet, states: Mapping[str, NDArray[Any]]) -> None:
    """Bring the generators of a network to where they were."""
    for name, generator in (("shuffle", net.shuffle), ("noise", net.noise)):
        generator.set_state(torch.from_numpy(states[name].copy()))


def _with_state(net: ResidualNet) -> list[Any]:
    """Callbacks that a checkpoint holds the state of, also those told once per epoch."""
    every = [one for _, callback in net.callbacks_ for one in _told_by(callback)]
    return [callback for callback in every if hasattr(callback, "state_dict")]


def _told_by(callback: Any) -> list[Any]:
    return callback.inner if isinstance(callback, OncePerEpoch) else [callback]


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _flat(prefix: str, tensors: Any) -> dict[str, NDArray[Any]]:
    """All values of tensors in a row, by their type."""
    # By dtype, not by its name: NumPy makes the name anew each time that it is asked for.
    by_type: dict[np.dtype[Any], list[NDArray[Any]]] = {}
    for tensor in tensors:
        values = tensor.detach().cpu().numpy().reshape(-1)
        by_type.setdefault(values.dtype, []).append(values)
    return {f"{prefix}.{dtype}": np.concatenate(v) for dtype, v in by_type.items()}


class _Values:
    """Tensors of what `_flat` laid in a row, in the same order."""

    def __init__(self, prefix: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.prefix, self.arrays = prefix, arrays
        self.places: dict[str, int] = {}

    def take(self, dtype: str, shape: Any) -> Tensor:
        """Next values of that type."""
        start = self.places.get(dtype, 0)
        stop = self.places[dtype] = start + int(np.prod(shape, dtype=int))
        values = self.arrays[f"{self.prefix}.{dtype}"][start:stop]
        return torch.from_numpy(values.reshape(tuple(shape)).copy())


def whole_weights(network: nn.Module, members: Sequence[Snapshot]) -> dict[str, Any]:
    """Parameters and buffers by name, for a network of these members."""
    values = [_Values("weights", member.arrays) for member in members]
    found = {}
    for name, tensor in network.state_dict().items():
        # All but counters hold the members along their first axis.
        shape = tensor.shape and (tensor.shape[0] // len(members), *tensor.shape[1:])
        own = [of_one.take(_dtype(tensor), shape).numpy() for of_one in values]
        found[name] = np.concatenate(own) if shape else own[0]
    return found


@torch.no_grad()
def restore(net: ResidualNet, state: Snapshot, recipe: Recipe) -> None:
    """Bring a network to where a training with that recipe was."""
    weights = _Values("weights", state.arrays)
    for tensor in net.module_.state_dict().values():
        tensor.copy_(weights.take(_dtype(tensor), tensor.shape))
    set_generators(net, state.arrays)
    net.history.clear()
    for row in state.values["history"]:
        net.history.new_epoch()
        for name, value in row.items():
            net.history.record(name, value)
    parameters = dict(net.module_.named_parameters())
    device = torch.device(net.device)
    optimizer = make_optimizer(recipe, net.module_, parameters, device=device)
    kept = _Values("optimizer", state.arrays)
    for name, key, shape, dtype in state.values["optimizer"]:
        w = parameters[name]
        # torch's steps read as many values as the parameter has, without a check.
        if list(shape) != ([] if key == "step" else list(w.shape)):
            raise ValueError(f"{key} of {name} has another shape")
        found = kept.take(dtype, shape)
        # Counts of steps stay on the CPU, where torch has them.
        optimizer.state[w][key] = torch.empty_like(w).copy_(found) if shape else found
    if len({frozenset(of) for of in optimizer.state.values()}) > 1:
        raise ValueError("its optimizer has other values of some parameters")
    net.take_optimizer(optimizer)


def restore_callbacks(net: ResidualNet, state: Snapshot) -> None:
    """Bring the callbacks of a network to where they were."""
    weights = net.module_.state_dict()
    pairs = zip(_with_state(net), state.values["callbacks"], strict=True)
    for i, (callback, plain) in enumerate(pairs):
        values = _Values(f"callback{i}", state.arrays)
        best = {
            name: values.take(_dtype(w), w.shape)
            for name, w in weights.items()
            if plain["has_best"]
        }
        callback.load_state_dict(plain, best)


def skip_steps(
    scheduler: lr_scheduler.LRScheduler, optimizer: Optimizer, n_steps: int, lr: float
) -> None:
    """Bring a new schedule to where it is after some steps, with the rate that it has."""
    scheduler.last_epoch = n_steps
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
