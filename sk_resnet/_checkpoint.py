"""Checkpoints: what a fit has reached, kept in a file that the same fit goes on from."""

import json
import marshal
import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import PicklingError
from types import FunctionType
from typing import Any

import joblib
import numpy as np
import torch
from joblib.hashing import NumpyHasher
from numpy.typing import NDArray

from sk_resnet._archive import UNREADABLE, read_archive, skops_io, write_archives
from sk_resnet._callbacks import follows_estimator
from sk_resnet._input import to_numpy
from sk_resnet._net import ResidualNet
from sk_resnet._plan import Recipe
from sk_resnet._snapshot import (
    Snapshot,
    check_rows,
    check_snapshot,
    restore,
    restore_callbacks,
    state_by_name,
    take_snapshot,
    whole_weights,
)
from sk_resnet._spec import NetworkSpec
from sk_resnet._state import BROKEN, ModelFileError, network_without_memory

# 2: one array of each type; 3: histories, and weights of networks and of the model, once.
CHECKPOINT_FORMAT = 3
# Of the time of a fit that its checkpoints may take.
MOST_SHARE = 0.01
# Before the first of them: shorter fits are kept at their end alone, as two files would
# cost them a notable share.
SECONDS_TO_FIRST = 10.0


@dataclass
class Checkpoint:
    """File of one fit, with the states of its networks by their number.

    `values` are those of the estimator: its seed, the training that it is in (the second
    is the fine-tuning), and what it had when that began. `fitted` and `ended` are the model
    and the networks that a fit ended with. One whose time was up has `states` as well, from
    which it goes on when it is given more.
    """

    path: Path
    identity: dict[str, str]
    values: dict[str, Any] = field(default_factory=dict)
    states: dict[int, Snapshot] = field(default_factory=dict)
    ended: dict[int, Snapshot] = field(default_factory=dict)
    fitted: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self._lock, self._has_warned, self.is_written = threading.Lock(), False, False
        self.is_paused, self.n_networks = False, 0
        self._next = time.monotonic() + SECONDS_TO_FIRST

    @property
    def n_done(self) -> int:
        """Epochs of the present training that every network has done."""
        return min((state.n_own for state in self.states.values()), default=0)

    def check(self, rows: Any, n_networks: int, n_epochs: Sequence[int]) -> None:
        """Refuse to go on with other rows than the fit began with, or from a broken state.

        `n_epochs` are those of each of its trainings.
        """
        drawn = joblib.hash(rows)
        if self.values.setdefault("rows", drawn) != drawn:
            raise ValueError(
                f"The checkpoint {self.path} is of a fit that held out other samples: "
                "give validation_split a splitter with a random_state."
            )
        if "stage" not in self.values:
            return
        with refusing_broken(self.path):
            stage = self.values["stage"]
            if (
                stage not in range(len(n_epochs))
                or max(self.states, default=0) >= n_networks
            ):
                raise ValueError("it is of other trainings or networks")
            check_rows(self.values["history"], {"epoch", "train_loss", "seconds"})
            # A file may be written before all networks have begun the fine-tuning.
            possible = range(1 if stage == 0 else 0, n_epochs[stage] + 1)
            for state in self.states.values():
                check_snapshot(state, possible)
            of_optimizers = {
                frozenset((name, key) for name, key, *_ in state.values["optimizer"])
                for state in self.states.values()
                if state.n_own
            }
            if len(of_optimizers) > 1:
                raise ValueError("its networks have other optimizers")

    def is_done(self, max_seconds: float | None) -> bool:
        """Whether an earlier run ended the fit, and more time would not take it further."""
        had = self.values.pop("ended_after", None)
        if had is not None and (max_seconds is None or max_seconds > had):
            self.fitted, self.ended = None, {}
        return self.fitted is not None

    def is_past(self, stage: int) -> bool:
        """Whether an earlier run came to the end of that training."""
        return stage < self.values.get("stage", -1)

    def begin(
        self,
        stage: int,
        nets: Sequence[ResidualNet],
        recipe: Recipe,
        history: list[dict[str, Any]],
    ) -> list[dict[str, Any]]:
        """Begin a training, or bring its networks to where an earlier run was.

        Returns the history of the fit before the training began.
        """
        self.n_networks = len(nets)
        if stage == self.values.get("stage", -1):
            with refusing_broken(self.path):
                for place, state in self.states.items():
                    restore(nets[place], state, recipe)
                return list(self.values["history"])
        self.values |= {"stage": stage, "history": list(history)}
        # A file may be written before all networks have begun the fine-tuning.
        self.states = {
            place: take_snapshot(net, state_by_name(net), n_before=len(net.history))
            for place, net in enumerate(nets if stage else [])
        }
        return history

    def is_due(self) -> bool:
        """Whether the time since the last one was long enough for another."""
        return time.monotonic() >= self._next

    def keep(self, place: int, state: Snapshot) -> None:
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
            kept = {"states": self.states, "ended": self.ended}
            plain: dict[str, Any] = {"identity": self.identity, **self.values}
            histories: list[Any] = []  # networks of an ensemble end with the same one
            for kind, of in kept.items():
                plain[kind] = {place: dict(state.values) for place, state in of.items()}
                for values in plain[kind].values():
                    if values["history"] not in histories:
                        histories.append(values["history"])
                    values["history"] = histories.index(values["history"])
            plain["histories"] = histories
            named = [
                ((kind, place, name), array)
                for kind, of in kept.items()
                for place, state in of.items()
                for name, array in state.arrays.items()
            ]
            plain["layout"], arrays = _joined(named)
            fitted = None if self.fitted is None else dict(self.fitted)
            if fitted is not None:
                # skops takes a tenth of a millisecond for each epoch, and for each array.
                plain["fitted_history"] = fitted.pop("history_")
                saved = fitted["_saved"]
                plain["network"] = saved["network"]
                fitted["_saved"] = {
                    name: saved[name]
                    for name in saved
                    if name not in ("network", "weights")
                }
            return {
                "checkpoint": CHECKPOINT_FORMAT,
                "plain": json.dumps(plain),
                "arrays": arrays,
                "fitted": fitted,
            }

    def finish(
        self,
        fitted: dict[str, Any],
        nets: Sequence[ResidualNet],
        max_seconds: float | None,
    ) -> None:
        """Write what a fit ended with, and what a further training goes on from."""
        self.fitted = fitted
        self.ended = {
            place: take_snapshot(net, state_by_name(net), held=0)
            for place, net in enumerate(nets)
        }
        if self.is_paused:
            self.values["ended_after"] = max_seconds
        else:
            self.states = {}
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
    def state(self) -> Snapshot | None:
        """What the network had reached in its training, if that has begun."""
        state = self.checkpoint.states.get(self.place)
        return state if state is not None and (state.n_own or state.has_ended) else None

    def restore_callbacks(self, net: ResidualNet) -> None:
        """Bring the callbacks of the network to where they were."""
        if (state := self.state) is not None:
            with refusing_broken(self.checkpoint.path):
                restore_callbacks(net, state)

    def keep(self, state: Snapshot) -> None:
        """Take in what it has reached now."""
        self.checkpoint.keep(self.place, state)


def identity_of_fit(
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Any],
    callbacks: Sequence[Any],
    *,
    seed: int,
) -> dict[str, Any]:
    """What a fit depends on, by name, in values that two runs of it hash alike."""
    alone = [item[1] if isinstance(item, tuple) else item for item in callbacks]
    # Not those of their subclasses, which may have more.
    if others := [type(c).__name__ for c in alone if "state_dict" not in vars(type(c))]:
        raise ValueError(
            f"A checkpoint does not hold the state of {', '.join(others)}: use "
            "EarlyStopping alone, or checkpoint=None."
        )
    left_out = (
        "checkpoint",
        "verbose",
        "random_state",
        "test_time_augmentation",
        "max_seconds",  # a fit that is broken off may go on for longer
    )
    parts = {name: value for name, value in parameters.items() if name not in left_out}
    if parameters["random_state"] is not None:
        parts["random_state"] = seed
    parts["callbacks"] = [c for c in alone if not follows_estimator(c)]
    return parts | {name: _plain(value) for name, value in inputs.items()}


class _Hasher(NumpyHasher):
    """That of joblib, which hashes tensors by their address, and refuses lambdas."""

    def save(self, obj: Any) -> None:
        if isinstance(obj, torch.Tensor) and obj.layout is torch.strided:
            flat = obj.detach().cpu().contiguous().view(-1).view(torch.uint8)
            obj = "tensor", str(obj.dtype), tuple(obj.shape), flat.numpy()
        elif isinstance(obj, FunctionType) and "<" in obj.__qualname__:
            # Version 2 of marshal gives equal code the same bytes in every process.
            cells = [cell.cell_contents for cell in obj.__closure__ or ()]
            code = marshal.dumps(obj.__code__, 2)
            obj = "function", code, obj.__defaults__, obj.__kwdefaults__, cells
        super().save(obj)


def _hash(name: str, value: Any) -> str:
    """Hash of a part of a fit, the same in every process."""
    try:
        found: str = _Hasher(hash_name="md5").hash(value)
    except (PicklingError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"checkpoint tells fits apart by what they are given, but {name} has a part "
            f"that cannot be compared ({error}): leave it out, or give checkpoint=None."
        ) from error
    return found


def _plain(values: Any) -> Any:
    values = to_numpy(values)
    return np.ascontiguousarray(values) if isinstance(values, np.ndarray) else values


@contextmanager
def refusing_broken(path: Path) -> Iterator[None]:
    """Turn what reading a broken file ends in into an error that names it."""
    try:
        yield
    except (*BROKEN, *UNREADABLE) as error:
        raise ModelFileError(
            f"{path} is no checkpoint that can be read ({error}). Name another file, or "
            "delete this one to start anew."
        ) from error


def open_checkpoint(
    path: str | os.PathLike[str], parts: Mapping[str, Any], *, seed: int
) -> Checkpoint:
    """Checkpoint of a fit; with what an earlier run of the same fit left there.

    In a folder each fit has a file of its own. `parts` are what the fit depends on, by
    name, and tell it from others. An earlier run's seed takes the place of `seed`.
    """
    skops_io()  # or an error now, not after the first epochs
    if not os.fspath(path):
        raise ValueError("checkpoint must name a file or a folder, got an empty string.")
    identity = {name: _hash(name, value) for name, value in parts.items()}
    target = Path(path).absolute()  # the fit may change its folder
    is_folder = os.fspath(path).endswith(("/", os.sep))
    if target.is_dir():
        target = target / f"{joblib.hash(identity)}.checkpoint"
    elif is_folder or not target.parent.is_dir():
        raise FileNotFoundError(
            f"checkpoint={os.fspath(path)!r}: the folder does not exist, make it."
        )
    if not target.exists():
        return Checkpoint(target, identity, {"seed": seed})
    try:
        content = read_archive(target, "checkpoint")
    except ModelFileError as error:
        raise ModelFileError(
            f"{error} Name another file, or delete this one to start anew."
        ) from error
    with refusing_broken(target):
        found = _from_content(target, content)
    names = sorted({*identity, *found.identity})
    other = [name for name in names if identity.get(name) != found.identity.get(name)]
    if "class" in other:  # which has other parameters
        other = ["class"]
    if other:
        advice = (
            "A new estimator goes on with a first fit; a warm start is a fit of its own. "
            if "model before" in other
            else ""
        )
        raise ValueError(
            f"The checkpoint {target} is of a fit with another {', '.join(other)}: go on "
            "with what it had, delete the file to start anew, or give checkpoint a folder, "
            f"in which each fit has a file of its own. {advice}".rstrip()
        )
    return found


def _from_content(path: Path, content: dict[str, Any]) -> Checkpoint:
    """Checkpoint that was read from a file of any format."""
    version = int(content["checkpoint"])
    if version > CHECKPOINT_FORMAT:
        raise ValueError(
            f"its format is {version}, but this sk_resnet reads formats up to "
            f"{CHECKPOINT_FORMAT}"
        )
    plain, fitted = json.loads(content["plain"]), content["fitted"]
    if version == 1:
        _bring_to_format_2(plain, content)
    if version < 3:
        _bring_to_format_3(plain)
    if not isinstance(plain["identity"], dict):
        raise ValueError("it does not say what fit it is of")
    histories = plain.pop("histories")
    arrays: dict[tuple[str, int], dict[str, Any]] = {}
    for (kind, place, name), array in _split(plain.pop("layout"), content["arrays"]):
        arrays.setdefault((kind, place), {})[name] = array
    kept: dict[str, dict[int, Snapshot]] = {}
    for kind in ("states", "ended"):
        kept[kind] = {}
        for place, values in plain.pop(kind).items():
            values["history"] = histories[values["history"]]
            kept[kind][int(place)] = Snapshot(values, arrays[kind, int(place)])
    if fitted is not None:
        fitted["history_"] = plain.pop("fitted_history")
        check_rows(fitted["history_"], {"epoch", "train_loss", "seconds"})
        for state in kept["ended"].values():
            n_epochs = len(fitted["history_"])
            check_snapshot(state, range(n_epochs + 1))
            if len(state.values["history"]) != n_epochs:
                raise ValueError("a network has another history than the model")
    if (network := plain.pop("network", None)) is not None:
        whole = network_without_memory(NetworkSpec.from_dict(network))
        members = [state for _, state in sorted(kept["ended"].items())]
        weights = whole_weights(whole, members)
        fitted["_saved"] |= {"network": network, "weights": weights}
    if type(plain["seed"]) is not int or not 0 <= plain["seed"] < 2**32:
        raise ValueError(f"its seed is {plain['seed']!r}")
    if plain.get("ended_after") is not None:
        plain["ended_after"] = float(plain["ended_after"])
    return Checkpoint(path, plain.pop("identity"), plain, **kept, fitted=fitted)


def _bring_to_format_2(plain: dict[str, Any], content: dict[str, Any]) -> None:
    """Name and join arrays as is done now; a fit that is done kept no other states."""
    fitted = content["fitted"]
    kind = "states" if fitted is None else "ended"
    plain |= {"states": {}, "ended": {}, kind: plain["states"]}
    if fitted is not None:
        plain["fitted_history"] = fitted.pop("history_")
    named = []
    for long_name, array in content["arrays"].items():
        place, _, name = long_name.partition(".")
        named.append(((kind, int(place), name), array))
    plain["layout"], content["arrays"] = _joined(named)


def _bring_to_format_3(plain: dict[str, Any]) -> None:
    """Name histories by their place; a fit that is done kept its weights itself."""
    plain["histories"] = []
    for kind in ("states", "ended"):
        for values in plain[kind].values():
            plain["histories"].append(values["history"])
            values["history"] = len(plain["histories"]) - 1


# A name, the type of its array, and how many values that has.
Place = tuple[tuple[str, int, str], str, int]


def _joined(
    named: Sequence[tuple[tuple[str, int, str], NDArray[Any]]],
) -> tuple[list[Place], dict[str, NDArray[Any]]]:
    """Layout of arrays, and one array of each type: every member of a file costs time."""
    by_type: dict[str, list[NDArray[Any]]] = {}
    for _, array in named:
        by_type.setdefault(str(array.dtype), []).append(array)
    layout = [(name, str(array.dtype), len(array)) for name, array in named]
    return layout, {dtype: np.concatenate(of) for dtype, of in by_type.items()}


def _split(
    layout: Sequence[Place], arrays: Mapping[str, NDArray[Any]]
) -> Iterator[tuple[tuple[str, int, str], NDArray[Any]]]:
    """Arrays by name, inverse of `_joined`."""
    for dtype, array in arrays.items():
        if str(array.dtype) != dtype or array.ndim != 1:
            raise ValueError(f"{array.dtype} stands where {dtype} should")
    starts = dict.fromkeys(arrays, 0)
    for name, dtype, n in layout:
        start = starts[dtype]
        starts[dtype] = start + n
        yield name, arrays[dtype][start : start + n]
