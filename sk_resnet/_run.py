"""What lives for one training: steps, their sums, the schedule, and Ctrl-C."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from sk_resnet._batches import Batch, Batches
from sk_resnet._callbacks import CtrlC
from sk_resnet._layers import Dropout
from sk_resnet._machine import compiled
from sk_resnet._network import ResidualNetwork
from sk_resnet._optim import SCHEDULES
from sk_resnet._plan import Execution, Recipe
from sk_resnet._processes import all_reduce, broadcast_buffers, rank_and_size
from sk_resnet._record import is_recordable, recorded
from sk_resnet._target import Target

# For epochs that need not wait for those of other trainings.
NO_TURN: AbstractContextManager[None] = nullcontext()


class BatchHooks(NamedTuple):
    """What callbacks are told about every batch."""

    begin: Callable[[Batch, bool], None]
    grad_computed: Callable[[Batch], None]
    end: Callable[[Batch, bool, Tensor, Tensor], None]


class Run:
    """One training of a network. It ends with the training, and nothing outlives it.

    Sums stay on the device until the end of an epoch, unless there are `hooks`, which get
    the loss of every batch. Without them, steps are recorded where `records` allows it.
    """

    def __init__(
        self,
        network: ResidualNetwork,
        optimizer: Optimizer,
        target: Target,
        recipe: Recipe,
        execution: Execution,
        *,
        n_steps: int,
        noise: torch.Generator,
        is_cancelled: Callable[[], bool],
        hooks: BatchHooks | None,
        records: bool,
    ) -> None:
        self.network, self.optimizer, self.hooks = network, optimizer, hooks
        self.device, self.bfloat16 = execution.device, execution.bfloat16
        self.target = target.to(self.device)
        self.scheduler = SCHEDULES[recipe.schedule](optimizer, n_steps)
        self.ctrl_c, self.is_cancelled = CtrlC(), is_cancelled
        self.totals = torch.zeros(1 + target.n_sums, device=self.device)
        is_alone = rank_and_size()[1] == 1
        self.forward: Callable[[Tensor], Tensor] = network.forward
        if not is_alone:
            self.forward = DistributedDataParallel(network).__call__
        if execution.compile:
            self.forward = compiled(self.forward, recipe.batch_size)
        for layer in network.modules():
            if isinstance(layer, Dropout):
                layer.generators = [noise]
        self._step: Callable[..., None] = self._whole_step
        # Neither a compiler's own code on a CPU nor what processes exchange is recorded.
        has_kernels = self.device.type == "cuda" or (
            self.device.type == "cpu" and not execution.compile
        )
        if records and is_alone and has_kernels and is_recordable(network):
            self._step = recorded(
                self._whole_step,
                optimizer.param_groups,
                device=self.device,
                n_steps=n_steps,
                generators=[noise],
            )

    def train(self, batches: Batches) -> list[float]:
        """Train for an epoch; the loss and sums for the score, for a mean weight of 1."""
        self.network.train()
        self.totals.zero_()
        for batch in batches:
            if self.hooks is not None:
                self._hooked_step(batch, self.hooks)
            else:
                self._step(*batch, batch.weight)
            self.scheduler.step()
            self._raise_ctrl_c()
        all_reduce(self.totals)
        broadcast_buffers(self.network)
        return self._means(batches)

    def validate(self, batches: Batches) -> list[float]:
        """Loss and sums of a validation set."""
        self.network.eval()
        self.totals.zero_()
        for batch in batches:
            if self.hooks is not None:
                self.hooks.begin(batch, False)
                self.network.eval()
            loss, outputs = self._validation_step(batch)
            self.totals += self._sums(batch, loss, outputs)
            if self.hooks is not None:
                self.hooks.end(batch, False, loss, outputs)
            self._raise_ctrl_c()
        return self._means(batches)

    def _whole_step(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        """A step without hooks; its sums are added to `totals`."""
        self.optimizer.zero_grad()
        batch = Batch(x, y, weight)
        loss, outputs = self._backward(batch)
        self.optimizer.step()
        self.optimizer.zero_grad()  # or they would lie beside those of replays
        self.totals += self._sums(batch, loss, outputs)

    def _hooked_step(self, batch: Batch, hooks: BatchHooks) -> None:
        hooks.begin(batch, True)
        self.network.train()
        self.optimizer.zero_grad()
        loss, outputs = self._backward(batch)
        hooks.grad_computed(batch)
        self.optimizer.step()
        self.totals += self._sums(batch, loss, outputs)
        hooks.end(batch, True, loss, outputs)

    def _backward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        x, y = batch
        outputs = autocast(self.forward, x, bfloat16=self.bfloat16)
        losses = self.target.training_losses(outputs, y)
        loss = losses.dot(batch.weight / len(losses))
        loss.backward()
        return loss.detach(), outputs.detach()

    @torch.no_grad()
    def _validation_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        x, y = batch
        outputs = autocast(self.network, x, bfloat16=self.bfloat16)
        losses = self.target.losses(outputs, y)
        return losses.dot(batch.weight) / len(losses), outputs

    def _sums(self, batch: Batch, loss: Tensor, outputs: Tensor) -> Tensor:
        x, y = batch
        return self.target.sums(loss * len(x), outputs, y, batch.weight)

    def _means(self, batches: Batches) -> list[float]:
        return (self.totals / len(batches.dataset)).tolist()

    def is_interrupted(self) -> bool:
        """Whether Ctrl-C came, or the task that this training belongs to was cancelled."""
        return self.ctrl_c.came or self.is_cancelled()

    def _raise_ctrl_c(self) -> None:
        if self.is_interrupted():
            raise KeyboardInterrupt


def autocast(network: Callable[[Tensor], Tensor], x: Tensor, *, bfloat16: bool) -> Tensor:
    """Outputs in float32, of a network that may convolve in bfloat16."""
    if not bfloat16:
        return network(x)
    with torch.autocast(x.device.type, dtype=torch.bfloat16, cache_enabled=False):
        return network(x).float()
