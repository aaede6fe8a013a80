"""One training, alone or as a member of a group: what it needs, and what it has reached."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from sk_resnet._batches import Batches
from sk_resnet._callbacks import is_ours
from sk_resnet._checkpoint import Progress
from sk_resnet._data import Data
from sk_resnet._machine import training_settings
from sk_resnet._net import ResidualNet
from sk_resnet._network import in_place, overwriting_relus
from sk_resnet._plan import Execution, Recipe
from sk_resnet._run import NO_TURN, Run
from sk_resnet._snapshot import (
    Snapshot,
    skip_steps,
    state_by_name,
    take_snapshot,
)


class Unit:
    """Trainings that fail as one: those of an ensemble, or of the folds of a trial."""

    error: BaseException | None = None

    def fail(self, error: BaseException) -> BaseException:
        """Note an error of one; return the first, which ends all of them."""
        self.error = self.error or error
        return self.error


@dataclass(frozen=True)
class Training:
    """All that one training needs."""

    net: ResidualNet
    data: Data
    recipe: Recipe
    execution: Execution
    callbacks: list[Any]
    verbose: int = 0
    unit: Unit = field(default_factory=Unit)
    progress: Progress | None = None

    @property
    def state(self) -> Snapshot | None:
        """What an earlier run of the fit had reached."""
        return self.progress.state if self.progress else None

    @property
    def n_done(self) -> int:
        """Epochs that its group had done before, also those after this member ended."""
        return int(self.state.values["n_done"]) if self.state else 0

    @property
    def began(self) -> int | None:
        """Epochs behind the running averages of the optimizer; None of a new optimizer."""
        if self.state is not None:
            began: int | None = self.state.values["began"]
            return began
        return len(self.net.history) if hasattr(self.net, "optimizer_") else None

    def restore_callbacks(self) -> None:
        """Bring the callbacks of the network to where an earlier run of the fit was."""
        if self.progress:
            self.progress.restore_callbacks(self.net)

    def run(
        self,
        is_cancelled: Callable[[], bool],
        turn: AbstractContextManager[None] = NO_TURN,
    ) -> int:
        """Train alone; return the epoch whose weights the network ends with.

        Each epoch is done within `turn`.
        """
        net, state, began = self.net, self.state, self.began
        if state is not None and state.has_ended:
            net.take_callbacks(self.callbacks)
            self.restore_callbacks()
            return int(state.values["held"])
        training, validation = net.prepare(
            self.data,
            self.recipe,
            self.execution,
            self.callbacks,
            self.verbose,
            n_done=self.n_done,
        )
        net.make_optimizer()
        run = self._new_run(len(training), is_cancelled)
        try:
            net.notify("on_train_begin", X=self.data.training, y=None)
            if state is not None:
                n_steps = self.n_done * len(training)
                skip_steps(run.scheduler, net.optimizer_, n_steps, state.values["lr"])
                self.restore_callbacks()
            self._epochs(run, training, validation, turn, began)
        finally:
            net.module_.eval()
        held = net.end(self.data.training)
        if not net.is_paused:
            self._keep(began, held)
        return held

    def _new_run(self, n_batches: int, is_cancelled: Callable[[], bool]) -> Run:
        net, hooks = self.net, self.net.batch_hooks()
        return Run(
            net.module_,
            net.optimizer_,
            self.data.target,
            self.recipe,
            self.execution,
            n_steps=self.recipe.n_epochs * n_batches,
            noise=net.noise,
            is_cancelled=is_cancelled,
            hooks=hooks,
            records=hooks is None and all(is_ours(cb) for _, cb in net.callbacks_),
        )

    def _epochs(
        self,
        run: Run,
        training: Batches,
        validation: Batches | None,
        turn: AbstractContextManager[None],
        began: int | None,
    ) -> None:
        """Train until the last epoch, or until a callback stops by KeyboardInterrupt."""
        net, execution = self.net, self.execution
        settings = training_settings(
            execution.device,
            on_one_thread=execution.on_one_thread,
            keep_memory=execution.device.type == "cpu" and not execution.on_one_thread,
        )
        n_epochs = self.recipe.n_epochs - self.n_done
        try:
            with run.ctrl_c, settings, in_place(overwriting_relus(net.module_)):
                for _ in range(n_epochs):
                    with turn:
                        net.epoch(run, training, validation)
                        if self.progress and self.progress.checkpoint.is_due():
                            self._keep(began)
                            self.progress.checkpoint.write()
        except KeyboardInterrupt:
            if run.is_interrupted() or net.n_epochs_done == 0:
                raise
            if net.is_paused and self.progress:  # before callbacks put weights back
                self._keep(began)
                self.progress.checkpoint.is_paused = True
        finally:
            net.forget_unfinished_epoch()

    def _keep(self, began: int | None, held: int | None = None) -> None:
        """Bring what the network has reached into its checkpoint."""
        if self.progress:
            net = self.net
            lr = float(net.optimizer_.param_groups[0]["lr"])
            self.progress.keep(
                take_snapshot(net, state_by_name(net), lr=lr, began=began, held=held)
            )


# What a training ends in: the epoch whose weights the network has, or an error.
Outcome = int | BaseException


class Member:
    """One training in a group, with what it has reached."""

    batches: Batches
    validation: Batches | None

    def __init__(self, training: Training) -> None:
        self.net, self.data = training.net, training.data
        self.recipe, self.target = training.recipe, training.data.target
        self.unit, self.progress = training.unit, training.progress
        self.began, self.n_done = training.began, 0
        self.lr: float | None = None  # to go on with
        self.target_on_device = self.target.to(training.execution.device)
        self.outcome: Outcome | None = None
        self.is_training, self.is_present = True, True
        self.attempt(self._begin, training)
        state = training.state
        if self.is_training and state is not None:
            self.n_done, self.lr = training.n_done, state.values["lr"]
            # One that ended may still have a place in the network of all.
            self.is_present = bool(state.values["is_present"])
            if state.has_ended:
                self.is_training, self.outcome = False, int(state.values["held"])

    def _begin(self, training: Training) -> None:
        self.batches, self.validation = self.net.prepare(
            training.data,
            training.recipe,
            training.execution,
            training.callbacks,
            training.verbose,
            n_done=training.state.n_own if training.state else 0,
        )
        self.net.notify("on_train_begin", X=self.data.training, y=None)
        training.restore_callbacks()

    def attempt(self, act: Callable[..., None], *args: Any) -> None:
        """Do something of this member alone: its errors end its training only."""
        if not self.is_training:
            return
        try:
            act(*args)
        except KeyboardInterrupt as stop:  # of a callback, as skorch stops a training
            self.is_training = False
            if self.net.n_epochs_done == 0:
                self.fail(stop)
        except Exception as error:  # whatever it is, the others train on
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End in an error, and with it the others of the unit."""
        self.is_training = False
        self.outcome = self.outcome or self.unit.fail(error)

    def keep(
        self, optimizer: Mapping[str, Mapping[str, Any]], lr: float, held: int | None = None
    ) -> None:
        """Bring what it has reached into its checkpoint."""
        if self.progress is not None:
            state = take_snapshot(self.net, optimizer, lr=lr, began=self.began, held=held)
            self.progress.keep(state)

    def end(self) -> Outcome:
        """Outcome, behind the callbacks' last words."""
        self.net.module_.eval()
        self.net.forget_unfinished_epoch()
        if self.outcome is None:
            try:
                self.outcome = self.net.end(self.data.training)
            except BaseException as error:
                self.fail(error)
        assert self.outcome is not None
        return self.outcome
