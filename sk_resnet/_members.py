"""Networks that train together, as the members of one."""

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from sk_resnet._callbacks import CtrlC, present_time
from sk_resnet._group import Group
from sk_resnet._machine import lacks_memory, training_settings
from sk_resnet._plan import Execution
from sk_resnet._record import CUDA_WARMUP
from sk_resnet._run import NO_TURN
from sk_resnet._snapshot import state_by_name
from sk_resnet._training import Member, Outcome, Training

# First epochs whose steps are undone where memory does not suffice. By then each kind of
# step was done, and recorded on a GPU: later ones fail only where others take memory.
# Copies in every epoch would take a tenth of the time of small networks, so what a later
# epoch did before it failed stays.
EPOCHS_TO_UNDO = CUDA_WARMUP + 1


def train_together(
    trainings: Sequence[Training],
    *,
    is_cancelled: Callable[[], bool] = lambda: False,
    turn: AbstractContextManager[None] = NO_TURN,
) -> list[Outcome]:
    """Train networks of one architecture as one; return what each training ends in.

    Each member sees its own samples in its own order, and has its own rates and
    penalties: it is the network that it would have been alone, up to rounding. Callbacks
    run here, each for its own network. An error, a divergence or an early stop ends the
    training of one member; the others go on. Ctrl-C ends all of them. Each epoch is done
    within `turn`.
    """
    execution = trainings[0].execution
    settings = training_settings(
        execution.device,
        on_one_thread=execution.on_one_thread,
        # Also of small networks: the tensors of all members together are large.
        keep_memory=execution.device.type == "cpu",
    )
    ctrl_c = CtrlC()

    def check() -> None:
        if ctrl_c.came or is_cancelled() or all(m.unit.error for m in by_member):
            raise KeyboardInterrupt

    by_member: list[Member] = []
    # What those end in that have not begun; Ctrl-C raises at any place.
    stopped_by: BaseException = KeyboardInterrupt()
    with ctrl_c, settings:
        try:
            for training in trainings:
                by_member.append(Member(training))
            check()
            _train(by_member, execution, check, turn)
        except (Exception, KeyboardInterrupt) as error:
            stopped_by = error
            for member in by_member:
                member.fail(error)
        ended = [member.end() for member in by_member]
        return [*ended, *[stopped_by] * (len(trainings) - len(by_member))]


def _train(
    by_member: list[Member],
    execution: Execution,
    check: Callable[[], None],
    turn: AbstractContextManager[None],
) -> None:
    """Train all members; by halves, one after the other, where memory does not suffice."""
    parts = [by_member]
    while parts:
        part = parts.pop(0)
        try:
            has_ended = _train_part(part, execution, check, turn)
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            for member in part:
                member.fail(error)
            has_ended = True
        if not has_ended:
            parts[:0] = _halves(part)
        elif parts:  # whose errors are none of theirs
            for member in part:
                member.end()


def _halves(members: list[Member]) -> list[list[Member]]:
    """Two parts of what does not fit into memory, the first with those that ended."""
    training = [member for member in members if member.is_training]
    warnings.warn(
        f"{len(training)} networks that train as one do not fit into memory: they go on as "
        "two groups, one after the other. Lower n_jobs, n_estimators or batch_size.",
        UserWarning,
        stacklevel=2,
    )
    for member in members:
        member.is_present = member.is_training
    second = training[(len(training) + 1) // 2 :]
    return [[member for member in members if member not in second], second]


def _train_part(
    by_member: list[Member],
    execution: Execution,
    check: Callable[[], None],
    turn: AbstractContextManager[None],
) -> bool:
    """Train for all epochs, or until no member is left.

    False where several do not fit into memory: they can go on from their last epoch.
    """
    training = [member for member in by_member if member.is_training]
    if not training:
        return True
    try:
        group = Group([member for member in by_member if member.is_present], execution)
    except (MemoryError, RuntimeError) as error:
        if _would_fit_in_parts(training, error):
            return False
        raise
    group.drop_ended(training)  # those that ended in an earlier run
    n_done = training[0].n_done
    first_to_keep = n_done + EPOCHS_TO_UNDO
    try:
        while training and n_done < group.n_epochs:
            copies = group.copies() if n_done < first_to_keep else None
            rates = dict(zip(group.members, group.rates(), strict=True))
            try:
                with turn:
                    _epoch(group, training, check)
            except (MemoryError, RuntimeError) as error:
                if not _would_fit_in_parts(training, error):
                    raise
                if copies is not None:
                    group.put_back(copies)
                for member in training:
                    member.n_done, member.lr = n_done, rates[member]
                return False
            check()
            n_done += 1
            _pause(group, by_member, training, n_done)
            training = _going_on(group, training)
            is_last = not training or n_done == group.n_epochs
            group.write_due(by_member, n_done, is_last=is_last)
    finally:
        group.dissolve()
    return True


def _would_fit_in_parts(training: list[Member], error: BaseException) -> bool:
    return len(training) > 1 and lacks_memory(error)


def _pause(
    group: Group, by_member: list[Member], training: list[Member], n_done: int
) -> None:
    """Keep what members have reached whose time is up, to go on from with more."""
    paused = [m for m in training if m.progress is not None and m.net.is_paused]
    if paused:
        group.keep(by_member, [*paused, *(m for m in training if m.is_training)], n_done)
    for member in paused:
        assert member.progress is not None
        member.progress.checkpoint.is_paused = True


def _going_on(group: Group, training: list[Member]) -> list[Member]:
    """Members that train on behind an epoch; the others leave the group."""
    for member in training:
        if member.is_training and member.unit.error is not None:
            member.fail(member.unit.error)
    left = [member for member in group.members if member.is_training]
    ended = [member for member in training if not member.is_training]
    group.drop_ended(left)
    for member in ended:
        held = member.end()
        if isinstance(held, int) and not member.net.is_paused:
            lr = float(member.net.optimizer_.param_groups[0]["lr"])
            member.keep(state_by_name(member.net), lr, held)
    return left


def _epoch(group: Group, members: list[Member], check: Callable[[], None]) -> None:
    for member in members:
        if not member.net.is_in_epoch:  # which only goes on, in less memory
            member.attempt(member.net.begin_epoch, member.batches, member.validation)
    started = time.perf_counter()
    rates = group.rates()
    means = group.train(check)
    validated = group.validate(check)
    # The share of one member, so that the seconds of all of them add up.
    seconds = (time.perf_counter() - started) / len(group.members)
    ended_at = present_time()
    for i, member in enumerate(group.members):
        net = member.net
        n_batches = len(member.batches)
        member.attempt(net.record_training, means[i], rates[i], n_batches)
        if member.validation is not None:
            n_batches = len(member.validation)
            member.attempt(net.record_validation, validated[i], n_batches)
        epoch = (member.batches, member.validation, seconds, ended_at)
        member.attempt(net.end_epoch, *epoch)
