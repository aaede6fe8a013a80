"""The one skorch subclass: how a step, an epoch and a prediction are done."""

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNetClassifier
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sk_resnet._batches import ArrayDataset, Batch, Batches
from sk_resnet._callbacks import CtrlC, wants_batches
from sk_resnet._capture import (
    CapturedStep,
    capture_on,
    what_steps_depend_on,
)
from sk_resnet._engine import (
    add_up,
    compiled,
    flushed_denormals,
    is_small_work,
    kept_memory,
    one_thread,
    own_stream,
    prediction_size,
    share_buffers,
    world,
)
from sk_resnet._input import InputSpec
from sk_resnet._layers import Dropout
from sk_resnet._network import (
    folded,
    inner_kernels,
    kernels,
    multiply_adds,
    overwriting_relus,
)
from sk_resnet._optim import OPTIMIZERS, SCHEDULES, parameter_groups
from sk_resnet._recipe import Recipe


class DivergenceError(ValueError):
    """The training loss became infinite or NaN."""


class ResidualNet(NeuralNetClassifier):
    """skorch net over resident arrays, with one record an epoch.

    Batches reach the callbacks' batch hooks, and the loss the host, only when a callback
    overrides such a hook.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        input_spec: InputSpec,
        recipe: Recipe,
        shuffle: torch.Generator,
        noise: torch.Generator,
        **kwargs: Any,
    ) -> None:
        self.input_spec, self.recipe = input_spec, recipe
        self.shuffle, self.noise = shuffle, noise
        super().__init__(module, **kwargs)

    @property
    def _default_callbacks(self) -> list[Any]:
        return []

    def _initialize_optimizer(self, reason: Any = None) -> "ResidualNet":
        # Left to `train`: the first optimizer of a process imports torch's compiler, which
        # takes seconds that a model that only predicts need not wait for.
        return self

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> "ResidualNet":
        """Optimizer of the recipe; the running averages of an earlier one are kept."""
        recipe = self.recipe
        of_channels = recipe.l1_structure == "channel"
        groups = parameter_groups(
            self.module_,
            kernels(self.module_),
            l1=recipe.l1,
            l1_kernels=(inner_kernels if of_channels else kernels)(self.module_),
            structure=recipe.l1_structure,
            l2=recipe.l2,
            l2_on=recipe.l2_on,
            keep_zeros=recipe.keep_zeros,
        )
        lr: Any = recipe.lr
        if torch.device(self.device).type == "cuda":
            lr = torch.tensor(lr, device=self.device)  # a captured step reads it there
            for group in groups:
                group["lr"] = lr.clone()  # or a change of one would be one of all
        optimizer = OPTIMIZERS[recipe.optimizer].make(groups, lr, recipe.momentum)
        earlier = getattr(self, "optimizer_", None)
        if type(earlier) is type(optimizer):
            optimizer.state.update(earlier.state)
        self.optimizer_ = optimizer
        return self

    def train(
        self,
        training: ArrayDataset,
        validation: ArrayDataset | None,
        *,
        recipe: Recipe,
        callbacks: list[Any],
        n_epochs: int,
        verbose: int,
    ) -> "ResidualNet":
        """Train for `n_epochs` more epochs, or until a callback stops."""
        # Copies: the parameters of an estimator stay as the user gave them.
        self.callbacks = [_copied(item) for item in callbacks]
        self.initialize_callbacks()
        self.recipe = recipe
        self.verbose = 0  # or skorch says that there is an optimizer already
        super()._initialize_optimizer()
        self.verbose = verbose  # PrintLog and others are silent at 0
        self._n_earlier_epochs = len(self.history)
        n_steps = n_epochs * len(self.get_iterator(training, training=True))
        self._scheduler = SCHEDULES[recipe.schedule](self.optimizer_, n_steps)
        self._prepare_engine(training, validation, n_steps)
        for layer in self.module_.modules():
            if isinstance(layer, Dropout):
                layer.generator = self.noise
        self._ctrl_c = ctrl_c = CtrlC()
        device = torch.device(self.device)
        self.notify("on_train_begin", X=training, y=None)
        try:
            with (
                ctrl_c,
                flushed_denormals(),
                one_thread(recipe.is_small),
                kept_memory(device.type == "cpu" and not recipe.is_small),
                overwriting_relus(self.module_),
                own_stream(device),
            ):
                self.fit_loop(training, epochs=n_epochs)
        except KeyboardInterrupt:
            if ctrl_c.came:
                raise
        finally:
            del self._validation, self._forward, self._step, self._ctrl_c
        self.notify("on_train_end", X=training, y=None)
        return self

    def _prepare_engine(
        self, training: ArrayDataset, validation: ArrayDataset | None, n_steps: int
    ) -> None:
        """Choose how steps are done; all that is set here ends with the training."""
        device, batch_size = torch.device(self.device), self.recipe.batch_size
        for dataset in (training, validation):
            if dataset is not None:
                dataset.load(device)
        self._validation = validation
        self._per_batch = any(wants_batches(cb) for _, cb in self.callbacks_)
        self._forward: Callable[[Tensor], Tensor] = self.module_.forward
        if world()[1] > 1:
            self._forward = DistributedDataParallel(self.module_).__call__
        if self.recipe.compile:
            self._forward = compiled(self._forward, batch_size)
        self._totals = torch.zeros(3, device=device)
        capture, warmup = capture_on(device, [self.noise], self._groups, n_steps)
        self._step = CapturedStep(self._whole_step, capture, warmup, self._captured_of)

    def _groups(self) -> list[dict[str, Any]]:
        return self.optimizer_.param_groups

    def _captured_of(self) -> Any:
        kind = torch.device(self.device).type
        # Neither a compiler's own code on a CPU nor what processes exchange is recorded.
        if world()[1] > 1 or kind not in ("cpu", "cuda"):
            return None
        if self.recipe.compile and kind == "cpu":
            return None
        rates = [group["lr"] for group in self._groups()]
        if kind == "cuda" and not all(isinstance(rate, Tensor) for rate in rates):
            return None  # a graph would keep a number as it was
        return what_steps_depend_on(self.module_, self.optimizer_, self.recipe)

    def _whole_step(self, x: Tensor, y: Tensor, weight: Tensor) -> None:
        """What skorch's train_step does, without its hooks; sums go to `_totals`."""
        self.optimizer_.zero_grad()
        batch = Batch(x, y, weight)
        step = self.train_step_single(batch)
        self.optimizer_.step()
        self.optimizer_.zero_grad()  # or they would lie beside those of replays
        self._totals += _batch_sums(batch, step)

    def on_epoch_begin(self, net: Any, *args: Any, **kwargs: Any) -> None:
        """Open the epoch's record."""
        super().on_epoch_begin(net, *args, **kwargs)
        self._epoch_started = time.perf_counter()
        self.history.record("lr", float(self.optimizer_.param_groups[0]["lr"]))

    def on_epoch_end(self, net: Any, *args: Any, **kwargs: Any) -> None:
        """Close it, before the callbacks read it."""
        super().on_epoch_end(net, *args, **kwargs)
        self.history.record("dur", time.perf_counter() - self._epoch_started)

    def get_split_datasets(
        self, X: ArrayDataset, y: Any = None, **fit_params: Any
    ) -> tuple[ArrayDataset, ArrayDataset | None]:
        """Training and validation set as given to `train`."""
        return X, self._validation

    def get_dataset(self, X: Any, y: Any = None) -> ArrayDataset:
        """Dataset over raw samples."""
        if isinstance(X, ArrayDataset):
            return X
        return ArrayDataset(np.asarray(X), self.input_spec, y)

    def get_iterator(self, dataset: ArrayDataset, training: bool = False) -> Batches:
        """Shuffled, augmented batches for training; plain ones otherwise."""
        recipe, device = self.recipe, torch.device(self.device)
        if not training:
            return Batches(dataset, recipe.batch_size, device)
        return Batches(
            dataset,
            recipe.batch_size,
            device,
            shuffle=self.shuffle,
            augmentations=recipe.augmentations,
            generator=self.noise,
            n_classes=len(self.classes),
            part=world(),
        )

    def run_single_epoch(
        self, iterator: Batches | None, training: bool, prefix: str, step_fn: Any, **_: Any
    ) -> None:
        """One pass over the batches; sums stay on the device until its end."""
        if iterator is None:
            return
        self._set_training(training)
        self._totals.zero_()  # loss, weight of the right ones, weight
        if training and self.callbacks_:
            self._step.check()  # they may have changed what steps do
        for batch in iterator:
            if self._per_batch:
                self._step_with_hooks(batch, training, prefix, step_fn)
            elif training:
                self._step(*batch, batch.weight)
            else:
                self._totals += _batch_sums(batch, step_fn(batch))
            if training:
                self._scheduler.step()
            if self._ctrl_c.came:
                raise KeyboardInterrupt
        if training:
            add_up(self._totals)
            share_buffers(self.module_)
        self._record_epoch(prefix, len(iterator), self._totals / len(iterator.dataset))

    def _step_with_hooks(
        self, batch: Batch, training: bool, prefix: str, step_fn: Any
    ) -> None:
        self.notify("on_batch_begin", batch=batch, training=training)
        self._set_training(training)
        step = step_fn(batch)
        self._totals += _batch_sums(batch, step)
        self.history.record_batch(f"{prefix}_loss", step["loss"].item())
        self.history.record_batch(f"{prefix}_batch_size", len(batch[0]))
        self.notify("on_batch_end", batch=batch, training=training, **step)

    def _record_epoch(self, prefix: str, n_batches: int, means: Tensor) -> None:
        loss, right, weight = means.tolist()
        record = self.history[-1]
        if prefix == "train" and not math.isfinite(loss):
            raise DivergenceError(
                f"The training loss became {loss} in epoch {record['epoch']} at a learning "
                f"rate of {record['lr']:g}: lower lr, or standardize the input."
            )
        if not self._per_batch:
            # Callbacks such as Checkpoint look at the last batch of the history.
            self.history.new_batch()
            self.history.record_batch(f"{prefix}_loss", loss)
            self.history.record_batch(f"{prefix}_batch_size", 1)
        name = f"{prefix}_loss"  # which earlier fits may lack
        earlier = [past[name] for past in self.history[:-1] if name in past]
        self.history.record(f"{prefix}_batch_count", n_batches)
        self.history.record(f"{prefix}_loss", loss)
        self.history.record(f"{prefix}_loss_best", not earlier or loss < min(earlier))
        self.history.record(f"{prefix}_accuracy", right / weight)

    def train_step_single(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Forward and backward pass for one batch."""
        x, y = batch
        logits = self._logits(self._forward, x, self.recipe.bfloat16)
        losses = nn.functional.cross_entropy(
            logits, y, reduction="none", label_smoothing=self.recipe.label_smoothing
        )
        loss = losses.dot(batch.weight / len(losses))
        loss.backward()
        return {"loss": loss.detach(), "y_pred": logits.detach()}

    @torch.no_grad()
    def validation_step(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Loss of one batch, without label smoothing."""
        x, y = batch
        logits = self._logits(self.module_, x, self.recipe.bfloat16)
        losses = nn.functional.cross_entropy(logits, y, reduction="none")
        return {"loss": losses.dot(batch.weight) / len(losses), "y_pred": logits}

    def _logits(
        self, network: Callable[[Tensor], Tensor], x: Tensor, bfloat16: bool
    ) -> Tensor:
        if not bfloat16:
            return network(x)
        kind = torch.device(self.device).type
        with torch.autocast(kind, dtype=torch.bfloat16, cache_enabled=False):
            return network(x).float()

    @torch.inference_mode()
    def outputs(
        self, X: NDArray[Any], *, batch_size: int, bfloat16: bool, features: bool = False
    ) -> NDArray[np.float32]:
        """Logits, or the features before the classifier, for raw samples in one buffer."""
        self._set_training(False)
        dataset, twin = self.get_dataset(X), folded(self.module_)
        network: Any = twin.features if features else twin
        layer = self.module_.classifier
        n_outputs = layer.in_features if features else layer.out_features
        device, start = torch.device(self.device), 0
        # There, or the CPU would wait for each batch of a GPU.
        out = torch.empty(len(dataset), n_outputs, dtype=torch.float32, device=device)
        macs = multiply_adds(self.module_, self.input_spec.network_shape[1:])
        size = prediction_size(len(dataset), batch_size, macs, device)
        with kept_memory(device.type == "cpu" and not is_small_work(macs * size, device)):
            for x, _ in Batches(dataset, size, device):
                n = len(x)
                # Kernels are chosen by the batch's size and differ in their last bits, so
                # every batch of a call has the same: predictions do not depend on their
                # neighbours.
                if n < size:
                    x = nn.functional.pad(x, (0, 0) * (x.ndim - 1) + (0, size - n))
                out[start : start + n] = self._logits(network, x, bfloat16)[:n]
                start += n
        return out.cpu().numpy()


def _copied(item: Any) -> Any:
    if isinstance(item, (tuple, list)):
        name, callback = item
        return name, _copied(callback)
    return item if isinstance(item, type) else copy.copy(item)


def _batch_sums(batch: Batch, step: dict[str, Tensor]) -> Tensor:
    x, y = batch
    y = y.argmax(1) if y.ndim == 2 else y
    right = (step["y_pred"].argmax(1) == y).to(batch.weight.dtype)
    return torch.stack((step["loss"] * len(x), right.dot(batch.weight), batch.weight.sum()))
