"""Networks that train together, as the members of one."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from sk_resnet._callbacks import CtrlC
from sk_resnet._group import Group
from sk_resnet._machine import training_settings
from sk_resnet._plan import Execution
from sk_resnet._run import NO_TURN
from sk_resnet._snapshot import state_by_name
from sk_resnet._training import Member, Outcome, Training


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
    with ctrl_c, settings:
        try:
            for training in trainings:
                by_member.append(Member(training))
            check()
            _train(by_member, execution, check, turn)
        except (Exception, KeyboardInterrupt) as error:
            for member in by_member:
                member.fail(error)
        # Ctrl-C may come before all of them have begun.
        missing: list[Outcome] = [KeyboardInterrupt()] * (len(trainings) - len(by_member))
        return [member.end() for member in by_member] + missing


def _train(
    by_member: list[Member],
    execution: Execution,
    check: Callable[[], None],
    turn: AbstractContextManager[None],
) -> None:
    """Train for all epochs, or until no member is left."""
    training = [member for member in by_member if member.is_training]
    if not training:
        return
    group = Group([member for member in by_member if member.is_present], execution)
    group.drop_ended(training)  # those that ended in an earlier run
    n_done = training[0].n_done
    try:
        for _ in range(n_done, training[0].recipe.n_epochs):
            with turn:
                _epoch(group, training, check)
            check()
            for member in training:
                if member.is_training and member.unit.error is not None:
                    member.fail(member.unit.error)
            ended = [member for member in training if not member.is_training]
            training = [member for member in group.members if member.is_training]
            group.drop_ended(training)
            for member in ended:
                held = member.end()
                if isinstance(held, int):
                    lr = float(member.net.optimizer_.param_groups[0]["lr"])
                    member.keep(state_by_name(member.net), lr, held)
            n_done += 1
            is_last = not training or n_done == group.n_epochs
            group.write_due(by_member, n_done, is_last=is_last)
            if not training:
                break
    finally:
        group.dissolve()


def _epoch(group: Group, members: list[Member], check: Callable[[], None]) -> None:
    for member in members:
        member.attempt(member.net.begin_epoch, member.batches, member.validation)
    started = time.perf_counter()
    rates = group.rates()
    means = group.train(check)
    validated = group.validate(check)
    # The share of one member, so that the seconds of all of them add up.
    seconds = (time.perf_counter() - started) / len(group.members)
    for i, member in enumerate(group.members):
        net = member.net
        n_batches = len(member.batches)
        member.attempt(net.record_training, means[i], rates[i], n_batches)
        if member.validation is not None:
            n_batches = len(member.validation)
            member.attempt(net.record_validation, validated[i], n_batches)
        member.attempt(net.end_epoch, member.batches, member.validation, seconds)
