"""Fits that meet and train as one network: groups of trainings, and joblib's backend."""

import os
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import joblib
from joblib.parallel import SequentialBackend, ThreadingBackend, register_parallel_backend

from sk_resnet._batches import batch_bounds
from sk_resnet._callbacks import CtrlC, is_ours
from sk_resnet._members import Outcome, Training, train_together
from sk_resnet._processes import rank_and_size
from sk_resnet._record import is_recordable

# Members of a group on a CPU, and bytes of the activations behind their widest layer in one
# batch. More do not fit its caches, and take longer than two groups.
MOST_ON_CPU, WIDEST_BYTES = 24, 2**20
# A group of fewer members is not split among processors.
FEWEST = 8
# On a CPU convolutions gain from groups only where several members fit.
FEWEST_OF_CONVOLUTIONS = 4
# Of one network on a GPU, which has memory for that many.
MOST_ON_GPU = 64


def groups_of(trainings: Sequence[Training], n_processors: int) -> list[list[int]]:
    """Places of the trainings that are done together, and alone where no other joins."""
    by_key: dict[Hashable, list[int]] = {}
    for place, training in enumerate(trainings):
        by_key.setdefault(_group_key(training, place), []).append(place)
    groups = []
    for places in by_key.values():
        size = _group_size(trainings[places[0]], len(places), n_processors)
        groups += [places[i : i + size] for i in range(0, len(places), size)]
    return groups


def _group_size(training: Training, n: int, n_processors: int) -> int:
    """Members of a group, of n that could be in one."""
    if training.execution.device.type != "cpu":
        return MOST_ON_GPU
    spec = training.net.module_.spec
    widest = spec.widest_layer(training.net.input_spec.network_shape[1:])
    most = min(MOST_ON_CPU, WIDEST_BYTES // (4 * widest * training.recipe.batch_size))
    if spec.n_dims and most < FEWEST_OF_CONVOLUTIONS:
        return 1
    n_groups = max(-(-n // max(1, most)), min(n_processors, n // FEWEST), 1)
    return -(-n // n_groups)


def _group_key(training: Training, place: int) -> Hashable:
    """Equal for trainings that can be done together."""
    net, recipe = training.net, training.recipe
    if not _can_join(training):
        return place
    n, size = len(training.data.training), recipe.batch_size
    return (
        replace(net.module_.spec, dropout=0.0),
        net.input_spec.network_shape,
        training.data.target.kind,
        training.execution,
        recipe.n_epochs,
        size,
        len(batch_bounds(n, size, trains=True)),
        recipe.optimizer,
        recipe.schedule,
        any(augmentation.mixes for augmentation in recipe.augmentations),
        # Running averages of earlier trainings, which count their steps.
        len(net.history) if hasattr(net, "optimizer_") else None,
    )


def _can_join(training: Training) -> bool:
    net = training.net
    callbacks = [cb[1] if isinstance(cb, tuple) else cb for cb in training.callbacks]
    return (
        all(map(is_ours, callbacks))
        and not training.execution.compile
        and training.execution.device.type in ("cpu", "cuda")
        and rank_and_size()[1] == 1
        and is_recordable(net.module_)
        and all(parameter.requires_grad for parameter in net.module_.parameters())
    )


def train_all(
    trainings: Sequence[Training],
    *,
    n_processors: int,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Train networks, together where they can; return what each ends in.

    Groups that compute on one thread each run side by side on the processors.
    """
    if not all(training.execution.on_one_thread for training in trainings):
        n_processors = 1
    outcomes: list[Outcome] = [KeyboardInterrupt()] * len(trainings)

    def do(places: list[int]) -> None:
        chosen = [trainings[place] for place in places]
        if len(chosen) == 1:
            found = [_alone(chosen[0], is_cancelled)]
        else:
            found = train_together(chosen, is_cancelled=is_cancelled)
        for place, outcome in zip(places, found, strict=True):
            outcomes[place] = outcome

    groups = groups_of(trainings, n_processors)
    if len(groups) == 1 or n_processors == 1:
        for places in groups:
            do(places)
    else:
        with ThreadPoolExecutor(n_processors) as threads:
            list(threads.map(do, groups))
    return outcomes


def _alone(training: Training, is_cancelled: Callable[[], bool]) -> Outcome:
    if is_cancelled():
        return KeyboardInterrupt()
    try:
        return training.run(is_cancelled)
    except BaseException as error:
        return error


# That threads of a cancelled meeting get.
SECONDS_TO_END = 2.0
_this_thread = threading.local()


class _Request:
    """Trainings of one fit that waits for others."""

    def __init__(self, trainings: Sequence[Training]) -> None:
        self.trainings = trainings
        self.outcomes: list[Outcome] | None = None


class Meeting:
    """Where the fits of parallel tasks wait for each other, and then train together.

    A task is under way from its submission until its results are taken and the next is
    submitted. When all that run at once wait in a fit, one of them trains for all. A task
    that never fits, or ends in an error, is no longer under way then; nobody waits for it.
    """

    def __init__(self, n_at_once: int) -> None:
        self.n_at_once = n_at_once
        self._changed = threading.Condition()
        self._n_tasks = self._n_running = 0
        self._process = os.getpid()
        self._waiting: list[_Request] = []
        self._is_open = False
        self.is_cancelled = False
        self.ctrl_c = CtrlC()

    def begin_task(self) -> None:
        """Count a task that was submitted."""
        with self._changed:
            self._n_tasks += 1

    def end_task(self) -> None:
        """Count it no longer."""
        with self._changed:
            self._n_tasks -= 1
            self._changed.notify_all()

    def open(self, is_open: bool) -> None:
        """Let fits begin: all tasks that can run at once are submitted."""
        with self._changed:
            self._is_open = is_open
            self._changed.notify_all()

    def cancel(self) -> None:
        """End all fits that wait or train, as Ctrl-C would.

        Their threads come to their end too, or the process could not end cleanly; those
        that do something else are not waited for long.
        """
        with self._changed:
            if self.is_cancelled:
                return
            self.is_cancelled = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._n_running == 0, SECONDS_TO_END)

    @contextmanager
    def attended(self) -> Iterator[None]:
        """Let the fits of this thread take part."""
        before = getattr(_this_thread, "meeting", None)
        _this_thread.meeting = self
        self._count_running(1)
        try:
            yield
        finally:
            _this_thread.meeting = before
            self._count_running(-1)

    @contextmanager
    def task(self) -> Iterator[None]:
        """Do a task in this thread, whose fits take part."""
        if getattr(_this_thread, "meeting", None) is self or not self.is_here():
            yield  # a task within a task, or in a process that was forked off
            return
        self.begin_task()
        try:
            with self.attended():
                yield
        finally:
            self.end_task()

    def _count_running(self, change: int) -> None:
        with self._changed:
            self._n_running += change
            self._changed.notify_all()

    def train(self, trainings: Sequence[Training]) -> list[Outcome]:
        """Wait for the other fits, and train with them."""
        request = _Request(trainings)
        with self._changed:
            self._waiting.append(request)
            self._changed.notify_all()
            try:
                self._changed.wait_for(
                    lambda: (
                        request.outcomes is not None or self.is_cancelled or self._is_full()
                    )
                )
                if self.is_cancelled:
                    return [KeyboardInterrupt()] * len(trainings)
                if request.outcomes is not None:
                    return request.outcomes
                requests, self._waiting = self._waiting, []
            finally:  # also by Ctrl-C
                if request in self._waiting:
                    self._waiting.remove(request)
        _this_thread.meeting = None  # fits in callbacks do not wait
        try:
            self._train(requests)
        except BaseException as error:
            for one in requests:
                one.outcomes = [error] * len(one.trainings)
        finally:
            _this_thread.meeting = self
        with self._changed:
            self._changed.notify_all()
        assert request.outcomes is not None
        return request.outcomes

    def is_here(self) -> bool:
        """Whether this is the process of the meeting, not one that was forked off."""
        return os.getpid() == self._process

    def _is_full(self) -> bool:
        n_running = min(self._n_tasks, self.n_at_once)
        return self._is_open and 0 < n_running <= len(self._waiting)

    def _train(self, requests: list[_Request]) -> None:
        trainings = [training for one in requests for training in one.trainings]
        outcomes = train_all(
            trainings,
            n_processors=joblib.cpu_count(),
            # The interrupt may be lost on its way to the thread that waits for results.
            is_cancelled=lambda: self.is_cancelled or self.ctrl_c.came,
        )
        for one in requests:
            n = len(one.trainings)
            one.outcomes, outcomes = outcomes[:n], outcomes[n:]


def train(trainings: Sequence[Training]) -> list[int]:
    """Train networks; return the epochs whose weights they end with.

    In a task of the backend "fused" the fits of other tasks join. The first error of the
    trainings is raised.
    """
    meeting: Meeting | None = getattr(_this_thread, "meeting", None)
    if meeting is not None and meeting.is_here():
        outcomes = meeting.train(trainings)
    elif len(trainings) == 1:
        return [trainings[0].run(lambda: False)]
    else:
        # One group after the other: callbacks of the user are not called from two threads,
        # and the first error, or Ctrl-C, ends the ensemble.
        by_place: dict[int, Outcome] = {}
        for places in groups_of(trainings, 1):
            found = train_all([trainings[i] for i in places], n_processors=1)
            by_place.update(zip(places, found, strict=True))
            if any(isinstance(outcome, BaseException) for outcome in found):
                break
        outcomes = [by_place[i] for i in sorted(by_place)]
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, int)]


class FusedBackend(ThreadingBackend):
    """Backend "fused" of joblib: a thread for each task, whose fits train together."""

    default_n_jobs = 64

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Tasks at once; a negative number stands for the default."""
        n = super().effective_n_jobs(n_jobs)
        return self.default_n_jobs if n_jobs is not None and n_jobs < 0 else n

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, **backend_kwargs: Any
    ) -> int:
        """Prepare for the tasks of one call."""
        n_jobs = super().configure(n_jobs, parallel, **backend_kwargs)
        self._meeting = Meeting(n_jobs)
        return n_jobs

    def compute_batch_size(self) -> int:
        """One task at a time, or tasks would wait behind others in their thread."""
        return 1

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """Tasks within a task run one after the other: their fits meet those of others."""
        level = (self.nesting_level or 0) + 1
        return SequentialBackend(nesting_level=level), None

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Schedule a task."""
        meeting = self._meeting
        meeting.begin_task()

        def task(**kwargs: Any) -> Any:
            with meeting.attended():
                return func(**kwargs)

        def done(result: Any) -> None:
            try:
                if callback is not None:
                    callback(result)  # which submits the next task
            finally:
                meeting.end_task()

        return super().submit(task, done)

    @contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """While results are awaited, fits may begin."""
        meeting = self._meeting
        meeting.open(True)
        try:
            with meeting.ctrl_c:
                yield
        except BaseException:
            meeting.cancel()
            raise
        finally:
            meeting.open(False)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End all tasks after an error or Ctrl-C."""
        self._meeting.cancel()
        super().abort_everything(ensure_ready)


register_parallel_backend("fused", FusedBackend)
