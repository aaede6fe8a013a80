"""Early stopping, the progress bar, and the bridge to scikit-learn's callbacks."""

import copy
import math
import operator
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from pickle import PicklingError
from types import FrameType
from typing import Any

from sklearn.callback import CallbackContext
from skorch import NeuralNet
from skorch.callbacks import (
    BatchScoring,
    Callback,
    EpochScoring,
    LRScheduler,
    PassthroughScoring,
)
from skorch.history import History
from torch import Tensor
from tqdm import tqdm

# Of skorch; without samples to validate on they record nothing, in silence.
SCORINGS = (EpochScoring, BatchScoring, PassthroughScoring)
BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_grad_computed")


# Columns of skorch's history that `history_` names otherwise or leaves out.
RENAMED = {"dur": "seconds"}
HIDDEN = ("_batch_count", "_best")


class CallbackError(ValueError):
    """A parameter of a callback cannot be."""


class EarlyStopping(Callback):
    """Stop training when a monitored quantity no longer improves.

    The estimators hold out a validation set when a callback monitors a quantity whose name
    starts with ``valid`` (see their parameter `validation_split`).

    Parameters
    ----------
    monitor : str, default="valid_loss"
        Column of ``history_`` to watch. A name that ends in ``loss`` is minimised,
        every other is maximised. "valid_calibrated_loss" is that of a classifier whose
        outputs are divided by the temperature that `calibrate` would fit then [2]_. It is
        recorded where a callback monitors it, and takes a further pass over the validation
        set.
    patience : int, default=10
        Epochs without improvement after which training stops, at least 1.
    min_delta : float, default=0.0
        Improvement, in units of the monitored quantity, below which an epoch does not
        count as better.
    restore_best : bool, default=True
        Whether the network ends with the weights of its best epoch, also when training
        ran to its last epoch. If False it keeps those of the last one.

    Attributes
    ----------
    best_epoch_ : int
        Epoch of the best value, counted from 1.
    best_value_ : float
        That value.
    stopped_epoch_ : int or None
        Epoch at which training was stopped; None if it ran to its end.

    Raises
    ------
    ValueError
        At fit, for a patience that is no number or below 1, a `min_delta` that is no number
        or negative, or a `monitor` that is not recorded.

    See Also
    --------
    skorch.callbacks.EarlyStopping : Relative thresholds.

    References
    ----------
    .. [1] L. Prechelt, Early Stopping - But When?, Neural Networks: Tricks of the Trade,
       1998.
    .. [2] E. Berta et al., Rethinking Early Stopping: Refine, Then Calibrate, 2025,
       arXiv:2501.19195.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import EarlyStopping, ResNetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> stop = EarlyStopping(patience=3)
    >>> model = ResNetClassifier(n_estimators=1, callbacks=[stop], random_state=0)
    >>> model.fit(X, y).best_epoch_ <= model.n_epochs_
    True
    """

    def __init__(
        self,
        monitor: str = "valid_loss",
        patience: int = 10,
        min_delta: float = 0.0,
        restore_best: bool = True,
    ) -> None:
        self.monitor = monitor
        self.patience = patience
        self.min_delta = min_delta
        self.restore_best = restore_best

    def __repr__(self) -> str:
        parameters = ", ".join(f"{k}={v!r}" for k, v in self.get_params().items())
        return f"EarlyStopping({parameters})"

    def on_train_begin(
        self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any
    ) -> None:
        """Check the parameters and forget an earlier run."""
        if not isinstance(self.monitor, str):
            raise CallbackError(
                "monitor must be the name of a column of history_, such as 'valid_loss', "
                f"got {self.monitor!r}."
            )
        if not _is_at_least(self.patience, 1):
            raise CallbackError(
                f"patience must be a number of epochs, at least 1, got {self.patience!r}."
            )
        if not _is_at_least(self.min_delta, 0):
            raise CallbackError(
                f"min_delta must be a number, at least 0, got {self.min_delta!r}."
            )
        self.best_epoch_ = 0
        self.best_value_ = math.inf if self._minimises else -math.inf
        self.stopped_epoch_: int | None = None
        self._best_state: dict[str, Any] | None = None

    @property
    def _minimises(self) -> bool:
        return self.monitor.endswith("loss")

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Compare the epoch with the best so far."""
        record = net.history[-1]
        value, epoch = monitored(self, self.monitor, record), record["epoch"]
        gain = self.best_value_ - value if self._minimises else value - self.best_value_
        if gain > self.min_delta:
            self.best_value_, self.best_epoch_ = value, epoch
            if self.restore_best:
                state = net.module_.state_dict()
                self._best_state = {name: w.clone() for name, w in state.items()}
        elif epoch - self.best_epoch_ >= self.patience:
            self.stopped_epoch_ = epoch
            raise KeyboardInterrupt  # skorch's way to stop

    def on_train_end(
        self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any
    ) -> None:
        """Put the weights of the best epoch back."""
        if self._best_state is not None and self.best_epoch_ < len(net.history):
            net.module_.load_state_dict(self._best_state)
        self._best_state = None

    def state_dict(self) -> tuple[dict[str, Any], list[Tensor]]:
        """Plain values for a checkpoint, and the tensors of the best weights."""
        plain = {
            "best_epoch": self.best_epoch_,
            "best_value": self.best_value_,
            "stopped_epoch": self.stopped_epoch_,
            "has_best": self._best_state is not None,
        }
        return plain, list((self._best_state or {}).values())

    def load_state_dict(self, plain: dict[str, Any], best: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.best_epoch_ = operator.index(plain["best_epoch"])
        self.best_value_ = float(plain["best_value"])
        stopped = plain["stopped_epoch"]
        self.stopped_epoch_ = None if stopped is None else operator.index(stopped)
        self._best_state = best if plain["has_best"] else None


def shown_row(record: dict[str, Any]) -> dict[str, Any]:
    """Row of skorch's history as `history_` shows it."""
    names = [n for n in record if n != "batches" and not n.endswith(HIDDEN)]
    return {RENAMED.get(n, n): record[n] for n in names}


# Recorded for callbacks that monitor it.
CALIBRATED = "valid_calibrated_loss"


def monitored(callback: Callback, monitor: str, record: dict[str, Any]) -> float:
    """Value that a callback looks at, by its name in `history_`."""
    shown = shown_row(record)
    if monitor not in shown:
        raise CallbackError(
            f"{type(callback).__name__} monitors {monitor!r}, which is not recorded: use "
            f"one of {sorted(shown)}, and give a validation set for those of validation."
        )
    return float(shown[monitor])


def _is_at_least(value: Any, least: float) -> bool:
    """Whether it is a number, not NaN, and so large."""
    return isinstance(value, Real) and float(value) >= least


def present_time() -> float:
    """Seconds on the clock by which `TimeLimit` counts."""
    return time.monotonic()


class TimeLimit(Callback):
    """Stops a training at the end of the epoch in which its time is up.

    Copies count from the same start: members that train one after the other share it. Those
    that train as one also share the time at which an epoch ended, and stop together.
    """

    has_stopped = False

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start = present_time()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Stop where the time is up; a training that is done needs no stop."""
        training: Any = net  # which skorch's own type does not know
        is_up = training.ended_at - self.start >= self.seconds
        if is_up and training.n_epochs_done < training.recipe.n_epochs:
            self.has_stopped = True
            raise KeyboardInterrupt  # skorch's way to stop


class EpochProgress(Callback):
    """Moves a bar over the epochs, and shows the losses beside it."""

    def __init__(self, bar: tqdm) -> None:
        self.bar = bar

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Advance by one epoch."""
        record = net.history[-1]
        shown = ("train_loss", "valid_loss", f"valid_{net.target.score_name}")
        losses = {k: f"{record[k]:.3f}" for k in shown if k in record}
        # A refresh would show them beside the number of the epoch before.
        self.bar.set_postfix(losses, refresh=False)
        self.bar.update()


@contextmanager
def epoch_progress(n_epochs: int, n_done: int, *, shown: bool) -> Iterator[list[Callback]]:
    """Callback of a bar, where it is shown; the bar is closed at the end and on errors."""
    if not shown:
        yield []
        return
    bar = tqdm(total=n_epochs, initial=n_done, unit="epoch", dynamic_ncols=True)
    with bar:
        yield [EpochProgress(bar)]


class OncePerEpoch(Callback):
    """Tells other callbacks of each epoch of an ensemble once, by one of its members.

    All members have trained by then; `begin` brings their weights together. Members have
    shallow copies of this callback, which share what was told.
    """

    def __init__(self, callbacks: list[Any], begin: Callable[[], None]) -> None:
        self.inner = [item[1] if isinstance(item, tuple) else item for item in callbacks]
        self.begin = begin
        # By event and epoch, with the stop or error that it led to.
        self.told: dict[tuple[str, int], BaseException | None] = {}
        self.one_at_a_time = threading.Lock()

    def _tell(self, event: str, net: NeuralNet, epoch: int, **kwargs: Any) -> None:
        with self.one_at_a_time:
            key = event, epoch
            if key not in self.told:
                self.told[key] = self._found(event, net, **kwargs)
        if (stop := self.told[key]) is not None:
            raise stop  # all members stop, not only the one that told

    def _found(self, event: str, net: NeuralNet, **kwargs: Any) -> BaseException | None:
        try:
            if event == "on_epoch_end":
                self.begin()
            for callback in self.inner:
                getattr(callback, event)(net, **kwargs)
        except (Exception, KeyboardInterrupt) as stop:
            return stop
        return None

    def on_train_begin(
        self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any
    ) -> None:
        """Pass it on."""
        self._tell("on_train_begin", net, 0, X=X, y=y, **kwargs)

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Pass it on."""
        self._tell("on_epoch_begin", net, len(net.history), **kwargs)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Pass it on."""
        self._tell("on_epoch_end", net, len(net.history), **kwargs)

    def on_train_end(
        self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any
    ) -> None:
        """Pass it on."""
        self._tell("on_train_end", net, 0, X=X, y=y, **kwargs)


class SklearnCallbacks(Callback):
    """Tells the callbacks of ``estimator.set_callbacks`` about every epoch.

    `arguments` are those that scikit-learn's callbacks get: the estimator and its data.
    """

    def __init__(self, context: CallbackContext, arguments: dict[str, Any]) -> None:
        self.context, self.arguments = context, arguments

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Open a task under the fit."""
        self.task_ = self.context.subcontext(task_name="epoch")
        self.task_.call_on_fit_task_begin(**self.arguments)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Close it, and stop where a callback asks for that."""
        if self.task_.call_on_fit_task_end(**self.arguments):
            raise KeyboardInterrupt


class CtrlC:
    """Context that notes Ctrl-C, in the main thread, where alone it arrives.

    Callbacks of skorch stop by ``raise KeyboardInterrupt``, so the exception does not tell
    who raised it. It may also never arrive: Python drops what is raised while it clears a
    weak reference. Both are settled by `came`.
    """

    came = False

    def __enter__(self) -> "CtrlC":
        self._previous = None
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):  # neither ignored nor left to the system
                self._previous = handler
                signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        assert self._previous is not None
        self._previous(number, frame)

    def __exit__(self, *exception: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)


def interrupt_of_main_thread() -> KeyboardInterrupt | None:
    """Ctrl-C that the main thread handles, as it does while it waits for its threads."""
    found = sys._current_exceptions().get(threading.main_thread().ident or 0)
    error = found[1] if isinstance(found, tuple) else found  # so before Python 3.12
    return error if isinstance(error, KeyboardInterrupt) else None


def as_callbacks(items: Any) -> list[Any]:
    """Callbacks, alone or as (name, callback); classes and functions are called."""
    _check_names(items)
    result = []
    for item in items or []:
        callback = _made(item[1] if _is_pair(item) else item)
        if not isinstance(callback, Callback):
            raise ValueError(
                "callbacks must be skorch callbacks, or pairs of a name and a callback, "
                f"got {item!r}: see skorch.callbacks, and set_callbacks for those of "
                "scikit-learn."
            )
        result.append((item[0], callback) if _is_pair(item) else callback)
    return result


def _made(given: Any) -> Any:
    """Callback, which a class or a function may stand for."""
    return given() if callable(given) and not isinstance(given, Callback) else given


def copied_callbacks(items: list[Any]) -> list[Any]:
    """Shallow copies of callbacks; one that holds another holds its copy."""
    alone = [item[1] if _is_pair(item) else item for item in items]
    copies = {id(callback): copy.copy(callback) for callback in alone}
    for callback in copies.values():
        for name, value in list(vars(callback).items()):
            if id(value) in copies:
                setattr(callback, name, copies[id(value)])
    return [
        (item[0], copies[id(item[1])]) if _is_pair(item) else copies[id(item)]
        for item in items
    ]


def cloned_callbacks(items: Any) -> Any:
    """Deep copies, but for callbacks that say how scikit-learn is to clone them."""
    listed = items if isinstance(items, (list, tuple)) else [items]
    alone = [item[1] if _is_pair(item) else item for item in listed]
    memo = {
        id(callback): callback.__sklearn_clone__()
        for callback in alone
        if hasattr(callback, "__sklearn_clone__") and not isinstance(callback, type)
    }
    return deep_copied(items, memo)


# What copies of locks, of writers and of tensors with a gradient end in.
UNCOPYABLE = (TypeError, RuntimeError, PicklingError)


def deep_copied(items: Any, memo: dict[int, Any] | None = None) -> Any:
    """Deep copies of callbacks as they are given; what cannot be copied is named."""
    try:
        return copy.deepcopy(items, memo)
    except UNCOPYABLE as error:
        for item in items if isinstance(items, (list, tuple)) else [items]:
            try:
                copy.deepcopy(item)
            except UNCOPYABLE:
                name = type(item[1] if _is_pair(item) else item).__name__
                raise TypeError(
                    f"{name} in callbacks cannot be copied ({error}): give a class or a "
                    "function that makes the callback in its place, such as "
                    f"callbacks=[lambda: {name}(...)]."
                ) from error
        raise


def _is_pair(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and len(item) == 2


def _check_names(items: Any) -> None:
    """Refuse names that set_params could not find between two of ``__``."""
    names = [item[0] for item in items or [] if _is_pair(item)]
    for name in names:
        if not isinstance(name, str) or not name or "__" in name:
            raise ValueError(
                "The name of a callback must be a string without '__', such as 'stop', "
                f"got {name!r}: rename it."
            )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"callbacks must have names of their own, got {twice} twice: rename one."
        )


def _named(items: Any) -> dict[str, Any]:
    """Callbacks that are given as pairs of a name and a callback."""
    items = items if isinstance(items, (tuple, list)) else []
    pairs = [item for item in items if _is_pair(item)]
    return {name: callback for name, callback in pairs if isinstance(name, str)}


def callback_parameters(items: Any) -> dict[str, Any]:
    """Named callbacks and their parameters, as ``callbacks__name__parameter``."""
    found: dict[str, Any] = {}
    for name, callback in _named(items).items():
        found[f"callbacks__{name}"] = callback
        if isinstance(callback, Callback):
            for key, value in callback.get_params(deep=False).items():
                found[f"callbacks__{name}__{key}"] = value
    return found


def with_parameters(items: Any, changes: dict[str, Any]) -> list[Any]:
    """Callbacks of which copies take the changes that name them."""
    _check_names(items)
    named = _named(items)
    for key, value in sorted(changes.items()):  # a callback before its parameters
        _, name, *parameter = key.split("__", 2)
        if name not in named:
            raise ValueError(
                f"{key} names no callback: those with a name are {sorted(named)}. Give "
                "callbacks as pairs, such as callbacks=[('stop', EarlyStopping())]."
            )
        named[name] = (
            _with_parameter(named[name], key, parameter[0], value) if parameter else value
        )
    changed = [(i[0], named[i[0]]) if _is_pair(i) else i for i in items]
    # None switches a callback off, as in skorch.
    return [i for i in changed if not (_is_pair(i) and i[1] is None)]


def _with_parameter(callback: Any, key: str, parameter: str, value: Any) -> Callback:
    """Copy of a callback with another value; `key` names both, for errors."""
    own = copy.copy(_made(callback))
    if not isinstance(own, Callback):
        raise ValueError(
            f"{key} needs a callback of skorch that has the parameter, got {callback!r}: "
            "leave the parameter out, or give the callback."
        )
    own.set_params(**{parameter: value})
    return own


def wants_batches(callback: Callback) -> bool:
    """Whether a callback overrides a hook that is called for every batch."""
    return any(
        getattr(type(callback), hook, None) is not getattr(Callback, hook)
        for hook in BATCH_HOOKS
    )


def is_ours(callback: Callback) -> bool:
    """Whether a callback is of this package, and changes nothing that steps depend on."""
    return type(callback).__module__.startswith("sk_resnet.")


def follows_estimator(item: Any) -> bool:
    """Whether a callback looks at the estimator, not at one network of an ensemble."""
    callback = item[1] if isinstance(item, (tuple, list)) else item
    return getattr(callback, "follows_estimator", False)


def sets_learning_rate(callbacks: list[Any]) -> bool:
    """Whether one of the callbacks, alone or as (name, callback), is a schedule."""
    alone = [item[1] if isinstance(item, (tuple, list)) else item for item in callbacks]
    return any(isinstance(callback, LRScheduler) for callback in alone)


def held_epoch(callback: Callback, history: History) -> int | None:
    """Epoch whose weights a callback put back, if it tells."""
    if found := getattr(callback, "best_epoch_", None):
        return int(found)
    event = getattr(callback, "event_name", None)  # of Checkpoint
    epochs = [row["epoch"] for row in history if row.get(event)]
    return epochs[-1] if epochs else None


def monitors_validation(callbacks: list[Any]) -> bool:
    """Whether one of the callbacks, alone or as (name, callback), needs validation."""
    for item in callbacks:
        callback = item[1] if isinstance(item, (tuple, list)) else item
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and monitor.startswith("valid"):
            return True
        if isinstance(callback, SCORINGS) and not callback.on_train:
            return True
    return False


def check_passed_on(callback: Callback, record: dict[str, Any]) -> None:
    """Refuse to pass on a score that no batch has, which skorch leaves out in silence."""
    if not isinstance(callback, PassthroughScoring):
        return
    scores = {name for batch in record["batches"] for name in batch}
    if callback.name not in scores:
        names = sorted(name for name in scores if not name.endswith("batch_size"))
        raise CallbackError(
            f"PassthroughScoring passes on {callback.name!r}, which no batch has: use one "
            f"of {names}, or a BatchScoring of that name before it."
        )
