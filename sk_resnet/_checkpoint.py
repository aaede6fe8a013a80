"""Checkpoints: what a fit has reached, kept in a file that the same fit goes on from."""

import json
import os
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer, lr_scheduler

from sk_resnet._archive import read_archive, skops_io, write_archives
from sk_resnet._callbacks import OncePerEpoch
from sk_resnet._net import ResidualNet, make_optimizer
from sk_resnet._plan import Recipe
from sk_resnet._state import BROKEN, ModelFileError

CHECKPOINT_FORMAT = 1
# Of the time of a fit that its checkpoints may take.
MOST_SHARE = 0.01
# Before the first of them: shorter fits are kept at their end alone.
SECONDS_TO_FIRST = 1.0


@dataclass
class State:
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


def state_of(
    net: ResidualNet,
    optimizer: Mapping[str, Mapping[str, Any]],
    *,
    lr: float,
    began: int | None,
    held: int | None = None,
    n_before: int | None = None,
) -> State:
    """State of a network; `optimizer` by the names of parameters, `held` once it ended.

    `n_before` epochs were done before its training; those that it knows itself by default.
    """
    kept = [
        (name, key, value) for name, of in optimizer.items() for key, value in of.items()
    ]
    tensors = [value for _, _, value in kept if isinstance(value, Tensor)]
    callbacks = [callback.state_dict() for callback in _with_state(net)]
    history = [{k: v for k, v in row.items() if k != "batches"} for row in net.history]
    values = {
        "n_before": net.n_epochs_before if n_before is None else n_before,
        "began": began,
        "held": held,
        "is_present": True,
        # Of its group, which may have gone on when it had ended.
        "n_done": net.n_epochs_done,
        "lr": lr,
        "history": history,
        "callbacks": [plain for plain, _ in callbacks],
        "optimizer": [
            [name, key, list(value.shape), _dtype(value)]
            if isinstance(value, Tensor)
            else [name, key, value]
            for name, key, value in kept
        ],
    }
    arrays = {
        **generators(net),
        **_flat("weights", net.module_.state_dict().values()),
        **_flat("optimizer", tensors),
    }
    for i, (_, best) in enumerate(callbacks):
        arrays |= _flat(f"callback{i}", best)
    return State(values, arrays)


def generators(net: ResidualNet) -> dict[str, NDArray[Any]]:
    """States of the generators of a network."""
    return {
        "shuffle": net.shuffle.get_state().numpy(),
        "noise": net.noise.get_state().numpy(),
    }


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
    by_type: dict[str, list[NDArray[Any]]] = {}
    for tensor in tensors:
        values = tensor.detach().cpu().numpy().reshape(-1)
        by_type.setdefault(str(values.dtype), []).append(values)
    return {f"{prefix}.{name}": np.concatenate(v) for name, v in by_type.items()}


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


@torch.no_grad()
def restore(net: ResidualNet, state: State, recipe: Recipe) -> None:
    """Bring a network to where a training with that recipe was."""
    weights = _Values("weights", state.arrays)
    for tensor in net.module_.state_dict().values():
        tensor.copy_(weights.take(_dtype(tensor), tensor.shape))
    for name, generator in (("shuffle", net.shuffle), ("noise", net.noise)):
        generator.set_state(torch.from_numpy(state.arrays[name].copy()))
    net.history.clear()
    for row in state.values["history"]:
        net.history.new_epoch()
        for name, value in row.items():
            net.history.record(name, value)
    parameters = dict(net.module_.named_parameters())
    device = torch.device(net.device)
    optimizer = make_optimizer(recipe, net.module_, parameters, device=device)
    kept = _Values("optimizer", state.arrays)
    for name, key, *of in state.values["optimizer"]:
        w, found = parameters[name], of[0]
        if len(of) == 2:
            shape, dtype = of
            found = kept.take(dtype, shape)
            if shape:  # counts of steps stay on the CPU, where torch has them
                found = torch.empty_like(w).copy_(found)
        optimizer.state[w][key] = found
    net.take_optimizer(optimizer)


def restore_callbacks(net: ResidualNet, state: State) -> None:
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


@dataclass
class Checkpoint:
    """File of one fit, with the states of its networks by their number.

    `values` are those of the estimator: its seed, the training that it is in (the second
    is the fine-tuning), and what it had when that began.
    """

    path: Path
    identity: dict[str, str]
    values: dict[str, Any] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)
    fitted: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self._lock, self._has_warned, self.is_written = threading.Lock(), False, False
        self._next = time.monotonic() + SECONDS_TO_FIRST

    @property
    def n_done(self) -> int:
        """Epochs of the training that it is in, of the network that is behind."""
        return min((state.n_own for state in self.states.values()), default=0)

    def check_rows(self, rows: Any) -> None:
        """Refuse to go on with other rows than the training began with."""
        drawn = joblib.hash(rows)
        if self.values.setdefault("rows", drawn) != drawn:
            raise ValueError(
                f"The checkpoint {self.path} is of a fit that held out other samples: "
                "give validation_split a splitter with a random_state."
            )

    def is_due(self) -> bool:
        """Whether the time since the last one was long enough for another."""
        return time.monotonic() >= self._next

    def keep(self, place: int, state: State) -> None:
        """Take in the state of a network, for the next file."""
        with self._lock:
            self.states[place] = state

    def write(self, others: Sequence["Checkpoint"] = ()) -> None:
        """Write a file, in place of an earlier one. Where that fails, warn.

        The files of `others` are written with it, all at once: fits that train as one go
        on from the same epoch, or they would not train as one again.
        """
        started, every = time.monotonic(), [self, *others]
        try:
            write_archives({one.path: one._content() for one in every})
        except OSError as error:
            if not self._has_warned:
                warnings.warn(
                    f"The checkpoint {self.path} was not written ({error}): the fit goes "
                    "on without it.",
                    UserWarning,
                    stacklevel=2,
                )
            self._has_warned = True
        ended = time.monotonic()
        for one in every:
            one.is_written = True
            one._next = ended + (ended - started) / MOST_SHARE

    def _content(self) -> dict[str, Any]:
        with self._lock:
            plain = {
                "identity": self.identity,
                **self.values,
                "states": {place: state.values for place, state in self.states.items()},
            }
            arrays = {
                f"{place}.{name}": array
                for place, state in self.states.items()
                for name, array in state.arrays.items()
            }
            return {
                "checkpoint": CHECKPOINT_FORMAT,
                "plain": json.dumps(plain),
                "arrays": arrays,
                "fitted": self.fitted,
            }

    def finish(self, fitted: dict[str, Any], states: dict[int, State]) -> None:
        """Write what a fit ended with."""
        self.fitted, self.states = fitted, states
        self.write()


@dataclass(frozen=True)
class Progress:
    """Place of one network in a checkpoint."""

    checkpoint: Checkpoint
    place: int

    @classmethod
    def of(cls, checkpoint: Checkpoint | None, place: int) -> "Progress | None":
        """Place in a checkpoint, if there is one."""
        return None if checkpoint is None else cls(checkpoint, place)

    @property
    def state(self) -> State | None:
        """What the network had reached in its training, if that has begun."""
        state = self.checkpoint.states.get(self.place)
        return state if state is not None and (state.n_own or state.has_ended) else None

    def keep(self, state: State) -> None:
        """Take in what it has reached now."""
        self.checkpoint.keep(self.place, state)


def open_checkpoint(
    path: str | os.PathLike[str], parts: Mapping[str, Any], *, seed: int
) -> Checkpoint:
    """Checkpoint of a fit; with what an earlier run of the same fit left there.

    In a folder each fit has a file of its own. `parts` are what the fit depends on, by
    name, and tell it from others. An earlier run's seed takes the place of `seed`.
    """
    skops_io()  # or an error now, not after the first epochs
    identity = {name: joblib.hash(value) for name, value in parts.items()}
    target = Path(path).absolute()  # the fit may change its folder
    is_folder = os.fspath(path).endswith(("/", os.sep))
    if target.is_dir():
        target = target / f"{joblib.hash(identity)}.checkpoint"
    elif is_folder or not target.parent.is_dir():
        raise FileNotFoundError(
            f"checkpoint={os.fspath(path)!r}: the folder does not exist, make it."
        )
    new = Checkpoint(target, identity, {"seed": seed})
    if not target.exists():
        return new
    try:
        content = read_archive(target, "checkpoint")
        if int(content["checkpoint"]) > CHECKPOINT_FORMAT:
            raise ModelFileError(
                f"its format is {content['checkpoint']}, but this sk_resnet reads formats "
                f"up to {CHECKPOINT_FORMAT}"
            )
        plain = json.loads(content["plain"])
        earlier = plain.pop("identity")
        arrays: dict[str, dict[str, Any]] = {}
        for name, array in content["arrays"].items():
            place, _, rest = name.partition(".")
            arrays.setdefault(place, {})[rest] = array
        states = plain.pop("states")
        new.states = {int(k): State(values, arrays[k]) for k, values in states.items()}
        new.values, new.fitted = plain, content["fitted"]
    except BROKEN as error:
        raise ModelFileError(
            f"{target} is no checkpoint that can be read ({error}): delete it to start "
            "anew, or name another file."
        ) from error
    names = sorted({*identity, *earlier})
    if other := [name for name in names if identity.get(name) != earlier.get(name)]:
        raise ValueError(
            f"The checkpoint {target} is of a fit with another {', '.join(other)}: go on "
            "with what it had, delete the file to start anew, or give checkpoint a folder, "
            "in which each fit has a file of its own."
        )
    return new
