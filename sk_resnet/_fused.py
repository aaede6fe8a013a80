"""Fits that meet and train as one network: groups of trainings, and joblib's backend."""

import copy
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import joblib
import torch
from joblib.parallel import (
    ParallelBackendBase,
    SequentialBackend,
    ThreadingBackend,
    register_parallel_backend,
)
from sklearn import config_context, get_config

from sk_resnet._batches import batch_bounds
from sk_resnet._callbacks import CtrlC, is_ours
from sk_resnet._members import train_together
from sk_resnet._processes import rank_and_size
from sk_resnet._record import is_recordable
from sk_resnet._run import NO_TURN
from sk_resnet._training import Outcome, Training, Unit

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
    groups: list[list[int]] = []
    for places in by_key.values():
        size = _group_size(trainings[places[0]], len(places), n_processors)
        for i in range(0, len(places), size):
            # Fits that go on from checkpoints have done different numbers of epochs.
            by_progress: dict[int, list[int]] = {}
            for place in places[i : i + size]:
                by_progress.setdefault(trainings[place].n_done, []).append(place)
            groups += by_progress.values()
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
        training.began,  # running averages count the steps of earlier trainings
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


class Turns:
    """Few of some parties act at once; those that wait follow in their order.

    Nobody acts before all are there, or one would be ahead of the others.
    """

    def __init__(self, n_at_once: int, n_parties: int) -> None:
        self._changed = threading.Condition()
        self._n_free, self._n_to_come = n_at_once, n_parties
        self._queue = deque[object]()

    def come(self) -> None:
        """Count a party as there."""
        with self._changed:
            self._n_to_come -= 1
            self._changed.notify_all()

    def open(self) -> None:
        """Wait for nobody who is to come."""
        with self._changed:
            self._n_to_come = 0
            self._changed.notify_all()

    def begin(self) -> None:
        """Wait for a turn."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            self._changed.wait_for(
                lambda: self._n_free and self._n_to_come <= 0 and self._queue[0] is ticket
            )
            self._queue.popleft()
            self._n_free -= 1
            self._changed.notify_all()

    def end(self) -> None:
        """End a turn."""
        with self._changed:
            self._n_free += 1
            self._changed.notify_all()


class Turn:
    """Context of one party's turns."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.is_there = turns, False

    def come(self) -> None:
        """Be there, or be waited for no longer."""
        if not self.is_there:
            self.is_there = True
            self.turns.come()

    def __enter__(self) -> None:
        self.come()
        self.turns.begin()

    def __exit__(self, *exception: object) -> None:
        self.turns.end()


def train_all(
    trainings: Sequence[Training],
    *,
    n_processors: int,
    is_cancelled: Callable[[], bool] = lambda: False,
    in_turns: bool = False,
) -> list[Outcome]:
    """Train networks, together where they can; return what each ends in.

    Groups that compute on one thread each run side by side on the processors. With
    `in_turns` all groups are under way at once, and take turns after each epoch.
    """
    if not all(training.execution.on_one_thread for training in trainings):
        n_processors = 1
    outcomes: list[Outcome] = [KeyboardInterrupt()] * len(trainings)
    groups = groups_of(trainings, n_processors)
    turns, is_over = Turns(n_processors, len(groups)), False
    settings = present_settings()

    def has_ended() -> bool:
        return is_over or is_cancelled()

    def do(places: list[int]) -> None:
        turn = Turn(turns)
        try:
            with same_settings(*settings):
                do_in(turn if in_turns else NO_TURN, places)
        finally:
            turn.come()

    def do_in(turn: AbstractContextManager[None], places: list[int]) -> None:
        chosen = [trainings[place] for place in places]
        if len(chosen) == 1:
            found = [_alone(chosen[0], has_ended, turn)]
        else:
            found = train_together(chosen, is_cancelled=has_ended, turn=turn)
        for place, outcome in zip(places, found, strict=True):
            outcomes[place] = outcome

    n_threads = min(len(groups), len(groups) if in_turns else n_processors)
    if n_threads == 1:
        for places in groups:
            do(places)
    else:
        with ThreadPoolExecutor(n_threads, initializer=_wait_no_more) as threads:
            try:
                list(threads.map(do, groups))
            except BaseException as error:  # such as a thread that cannot start
                for training in trainings:
                    training.unit.fail(error)
                is_over = True
                turns.open()
                raise
    return outcomes


def _alone(
    training: Training, is_cancelled: Callable[[], bool], turn: AbstractContextManager[None]
) -> Outcome:
    unit = training.unit

    def has_failed() -> bool:
        return unit.error is not None or is_cancelled()

    if has_failed():
        return unit.fail(KeyboardInterrupt())
    try:
        return training.run(has_failed, turn)
    except BaseException as error:
        return unit.fail(error)


# That threads of a cancelled meeting get.
SECONDS_TO_END = 2.0
# That a task waits to act while none that does comes to an end.
SECONDS_TO_ACT = 1.0
# Fits wait no longer for tasks of which none computes: one that holds a lock may wait in a
# fit for one that waits for the lock. In so many seconds, and a share of the processor.
SECONDS_TO_STALL, LEAST_SHARE = 3.0, 0.05
# With the meeting that fits wait in, whether they are part of a task, its place among the
# others, and its unit.
_this_thread = threading.local()


def _wait_no_more() -> None:
    """Let the fits of this thread, which trains, not wait for others."""
    _this_thread.meeting, _this_thread.is_in_task = None, True


def is_in_task() -> bool:
    """Whether this thread does a task, or trains for one."""
    return getattr(_this_thread, "is_in_task", False)


class _Request:
    """Trainings of one fit that waits for others, with the place of its task."""

    def __init__(self, trainings: Sequence[Training], place: int) -> None:
        self.trainings, self.place = trainings, place
        self.outcomes: list[Outcome] | None = None


class Meeting:
    """Where the fits of parallel tasks wait for each other, and then train together.

    A task is under way from its submission until its results are taken and the next is
    submitted. When all that run at once wait in a fit, one of them trains for all. A task
    that never fits, or ends in an error, is no longer under way then; nobody waits for it.
    For `linger` seconds after the end of a task it is assumed that another will begin.
    """

    def __init__(
        self, n_at_once: int | None = None, *, linger: float = 0.0, in_turns: bool = False
    ) -> None:
        self.n_at_once, self.linger, self.in_turns = n_at_once, linger, in_turns
        self._changed = threading.Condition()
        self._n_tasks = self._n_running = self._n_awaited = 0
        self._awaited_until = 0.0
        self._process = os.getpid()
        self._waiting: list[_Request] = []
        self._is_open = False
        # Tasks act in few threads at once, or they would spend more time on waiting for
        # Python's lock than on what they do. Those that wait in a fit are not counted.
        self._n_processors = min(joblib.cpu_count(), torch.get_num_threads())
        self._may_act, self._n_acting, self._n_ended = threading.Condition(), 0, 0
        self.is_cancelled = False
        self.ctrl_c = CtrlC()

    def begin_tasks(self, n: int = 1) -> None:
        """Count tasks that were submitted."""
        with self._changed:
            self._n_tasks += n
            self._n_awaited = max(0, self._n_awaited - n)

    def end_task(self) -> None:
        """Count one no longer."""
        with self._changed:
            self._n_tasks -= 1
            if self.linger:
                self._n_awaited += 1
                self._awaited_until = time.monotonic() + self.linger
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
            with self._may_act:
                self._may_act.notify_all()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._n_running == 0, SECONDS_TO_END)

    @contextmanager
    def attended(self, place: int, unit: Unit | None = None) -> Iterator[None]:
        """Let the fits of this thread take part, and those of one unit fail as one.

        Fits are members in the order of their places, whoever comes first: the places of
        members change their results by rounding.
        """
        before = dict(vars(_this_thread))
        _this_thread.meeting, _this_thread.is_in_task = self, True
        _this_thread.place, _this_thread.unit = place, unit
        acts_already = before.get("meeting") is self
        if not acts_already:
            self._begin_to_act()
        self._count_running(1)
        try:
            if self.is_cancelled:
                raise KeyboardInterrupt
            yield
        finally:
            vars(_this_thread).clear()
            vars(_this_thread).update(before)
            self._count_running(-1)
            if not acts_already:
                self._end_to_act()

    def _begin_to_act(self) -> None:
        """Wait until few others act, or none of them comes to an end for a while.

        One of them may wait for this one.
        """

        def is_free() -> bool:
            return self._n_acting < self._n_processors or self.is_cancelled

        with self._may_act:
            n_ended = self._n_ended
            while not self._may_act.wait_for(is_free, SECONDS_TO_ACT):
                if self._n_ended == n_ended:
                    break
                n_ended = self._n_ended
            self._n_acting += 1

    def _end_to_act(self) -> None:
        with self._may_act:
            self._n_acting -= 1
            self._n_ended += 1
            self._may_act.notify()

    def _count_running(self, change: int) -> None:
        with self._changed:
            self._n_running += change
            self._changed.notify_all()

    def train(self, trainings: Sequence[Training]) -> list[Outcome]:
        """Wait for the other fits, and train with them."""
        self._end_to_act()
        try:
            return self._trained(trainings)
        finally:
            self._begin_to_act()

    def _trained(self, trainings: Sequence[Training]) -> list[Outcome]:
        if (unit := _this_thread.unit) is not None:
            trainings = [replace(training, unit=unit) for training in trainings]
        request = _Request(trainings, _this_thread.place)
        with self._changed:
            self._waiting.append(request)
            self._changed.notify_all()
            try:
                while not (
                    request.outcomes is not None or self.is_cancelled or self._is_full()
                ):
                    if self._is_stalled() and request in self._waiting:
                        break
                if self.is_cancelled:
                    return [KeyboardInterrupt()] * len(trainings)
                if request.outcomes is not None:
                    return request.outcomes
                requests = sorted(self._waiting, key=lambda one: one.place)
                self._waiting = []
            finally:  # also by Ctrl-C
                if request in self._waiting:
                    self._waiting.remove(request)
        _wait_no_more()  # for those in callbacks
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
        n_running = min(self._n_tasks, self.n_at_once or self._n_tasks)
        is_full = self._is_open and 0 < n_running <= len(self._waiting)
        return is_full and self._seconds_to_linger() is None

    def _is_stalled(self) -> bool:
        """Wait for a change; whether none comes, and nothing computes meanwhile."""
        seconds, used = self._seconds_to_linger(), time.process_time()
        if self._changed.wait(seconds or SECONDS_TO_STALL) or seconds is not None:
            return False
        return time.process_time() - used < LEAST_SHARE * SECONDS_TO_STALL

    def _seconds_to_linger(self) -> float | None:
        """Time that tasks are still waited for which are about to begin."""
        seconds = self._awaited_until - time.monotonic()
        return seconds if self._n_awaited and seconds > 0 else None

    def _train(self, requests: list[_Request]) -> None:
        trainings = [training for one in requests for training in one.trainings]
        outcomes = train_all(
            trainings,
            n_processors=self._n_processors,
            # The interrupt may be lost on its way to the thread that waits for results.
            is_cancelled=lambda: self.is_cancelled or self.ctrl_c.came,
            in_turns=self.in_turns,
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


@contextmanager
def same_settings(config: dict[str, Any], joblib_config: dict[str, Any]) -> Iterator[None]:
    """Have the settings of scikit-learn and joblib that another thread has."""
    backend = joblib_config["backend"]
    if isinstance(backend, ParallelBackendBase):
        # It holds what belongs to one call of Parallel at a time.
        backend = copy.copy(backend)
    settings = {**joblib_config, "backend": backend}
    with config_context(**config), joblib.parallel_config(**settings):
        yield


def present_settings() -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of scikit-learn and joblib, which other threads do not inherit."""
    with joblib.parallel_config() as joblib_config:
        return get_config(), dict(joblib_config)


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
        self._meeting, self._places = Meeting(n_jobs), itertools.count()
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
        meeting, place = self._meeting, next(self._places)
        meeting.begin_tasks()

        def task(**kwargs: Any) -> Any:
            with meeting.attended(place):
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
