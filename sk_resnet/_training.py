"""One training, alone or as a member of a group: what it needs, and what it has reached."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from sk_resnet._batches import Batches, batch_bounds
from sk_resnet._checkpoint import Progress
from sk_resnet._data import Data
from sk_resnet._net import ResidualNet
from sk_resnet._plan import Execution, Recipe
from sk_resnet._run import NO_TURN, Run
from sk_resnet._snapshot import (
    Snapshot,
    restore_callbacks,
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
    def n_batches(self) -> int:
        """Steps of an epoch."""
        n = len(self.data.training)
        return len(batch_bounds(n, self.recipe.batch_size, trains=True))

    @property
    def began(self) -> int | None:
        """Epochs behind the running averages of the optimizer; None of a new optimizer."""
        if self.state is not None:
            began: int | None = self.state.values["began"]
            return began
        return len(self.net.history) if hasattr(self.net, "optimizer_") else None

    def run(
        self,
        is_cancelled: Callable[[], bool],
        turn: AbstractContextManager[None] = NO_TURN,
    ) -> int:
        """Train alone; return the epoch whose weights the network ends with."""
        net, state, began = self.net, self.state, self.began
        if state is not None and state.has_ended:
            return int(state.values["held"])

        def begun(run: Run) -> None:
            if state is not None:
                n_steps = self.n_done * self.n_batches
                skip_steps(run.scheduler, net.optimizer_, n_steps, state.values["lr"])
                restore_callbacks(net, state)

        def keep(held: int | None = None) -> None:
            if self.progress:
                lr = float(net.optimizer_.param_groups[0]["lr"])
                optimizer = state_by_name(net)
                self.progress.keep(
                    take_snapshot(net, optimizer, lr=lr, began=began, held=held)
                )

        def reached() -> None:
            if self.progress and self.progress.checkpoint.is_due():
                keep()
                self.progress.checkpoint.write()

        held = net.train(
            self.data,
            self.recipe,
            self.execution,
            callbacks=self.callbacks,
            verbose=self.verbose,
            is_cancelled=is_cancelled,
            turn=turn,
            n_done=self.n_done,
            begun=begun,
            reached=reached,
        )
        keep(held)
        return held


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
        if training.state is not None:
            restore_callbacks(self.net, training.state)

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
