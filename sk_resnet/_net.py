"""The skorch subclass: how an epoch and a prediction are done."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import ClassifierTags, RegressorTags
from torch import Tensor, nn
from torch.optim import Optimizer

from sk_resnet._augment import View, unchanged
from sk_resnet._batches import ArrayDataset, Batch, Batches
from sk_resnet._calibration import calibrated_loss
from sk_resnet._callbacks import (
    CALIBRATED,
    TimeLimit,
    check_passed_on,
    copied_callbacks,
    held_epoch,
    present_time,
    wants_batches,
)
from sk_resnet._compat_skorch import BareNet
from sk_resnet._compat_torch import Contents, is_called_by_torch
from sk_resnet._data import Data
from sk_resnet._input import InputSpec
from sk_resnet._machine import (
    FEW,
    fewest_alike,
    is_small_work,
    one_thread,
    prediction_size,
)
from sk_resnet._network import inner_kernels, is_finite, kernels
from sk_resnet._optim import OPTIMIZERS, parameter_groups
from sk_resnet._plan import Execution, Recipe
from sk_resnet._processes import rank_and_size
from sk_resnet._run import BatchHooks, Run, autocast
from sk_resnet._samples import Samples
from sk_resnet._surgery import flattened, folded, multiply_adds
from sk_resnet._target import Target

CPU = torch.device("cpu")
# Training samples whose outputs must be finite when a training ends. They are few because
# each call of partial_fit predicts them, and it may train on no more than a batch.
SAMPLES_OF_CHECK = 8
# Of a network that is kept ready for predictions, which takes twice as much memory beside.
MOST_KEPT_BYTES = 2**24


class DivergenceError(ValueError):
    """The training loss, or the network, became infinite or NaN."""


class NonFiniteError(ValueError):
    """Outputs of a network are infinite or NaN."""


@dataclass
class Prepared:
    """Twin of a network for prediction, and its work for a sample.

    `fewest` samples in a pass get the same bits as in one of `FEW`, or of a whole batch if
    that is smaller. It is found when the twin is used again, as that takes a few passes.
    """

    twin: Any
    multiply_adds: int
    fewest: int | None = None


class ResidualNet(BareNet):
    """skorch net over resident arrays, with one record an epoch.

    Batches reach the callbacks' batch hooks, and the loss the host, only when a callback
    overrides such a hook. Steps, sums and the schedule of one training are in a `Run`, and
    those of several networks that train as one in a `Group`.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        input_spec: InputSpec,
        target: Target,
        shuffle: torch.Generator,
        noise: torch.Generator,
        **kwargs: Any,
    ) -> None:
        self.input_spec, self.target = input_spec, target
        self.shuffle, self.noise = shuffle, noise
        self.n_epochs_before = 0
        self._kept: tuple[Prepared, Contents] | None = None
        # By column of the history: the last row that was read, and the least value so far.
        self._least: dict[str, tuple[Any, float | None]] = {}
        super().__init__(module, criterion=nn.Identity, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_kept": None}  # it holds functions

    # Steps of a training, which `Training` and `Member` take

    def prepare(
        self,
        data: Data,
        recipe: Recipe,
        execution: Execution,
        callbacks: list[Any],
        verbose: int,
        *,
        n_done: int = 0,
    ) -> tuple[Batches, Batches | None]:
        """Make callbacks and batches for a training, of which some epochs are done."""
        self.n_epochs_before = len(self.history) - n_done
        self.take_callbacks(callbacks)
        self.verbose = verbose  # PrintLog and others are silent at 0
        self.target, self.recipe = data.target, recipe
        return self._batches(data, recipe, execution.device)

    def take_callbacks(self, callbacks: list[Any]) -> None:
        """Have copies of callbacks: the parameters of an estimator stay as they are."""
        self.callbacks = copied_callbacks(callbacks)
        self.initialize_callbacks()

    def epoch(self, run: Run, training: Batches, validation: Batches | None) -> None:
        """Train and validate once over all data."""
        self.begin_epoch(training, validation)
        started = time.perf_counter()
        lr = float(self.optimizer_.param_groups[0]["lr"])
        means = run.train(training)
        self.record_training(means, lr, len(training), by_batch=run.hooks is not None)
        if validation is not None:
            means = run.validate(validation)
            self.record_validation(means, len(validation), by_batch=run.hooks is not None)
        seconds = time.perf_counter() - started
        self.end_epoch(training, validation, seconds, present_time())

    def begin_epoch(self, training: Batches, validation: Batches | None) -> None:
        """Open a row of the history."""
        self.notify("on_epoch_begin", **_datasets(training, validation))

    def record_training(
        self, means: list[float], lr: float, n_batches: int, *, by_batch: bool = False
    ) -> None:
        """Write the loss and sums of an epoch into its row."""
        self._record("train", n_batches, means, {"lr": lr}, by_batch=by_batch)

    def record_validation(
        self, means: list[float], n_batches: int, *, by_batch: bool = False
    ) -> None:
        """Write the loss and sums of a validation into the row of its epoch."""
        self._record("valid", n_batches, means, {}, by_batch=by_batch)

    def end_epoch(
        self,
        training: Batches,
        validation: Batches | None,
        seconds: float,
        ended_at: float,
    ) -> None:
        """Close the row, and tell the callbacks, which may stop the training.

        `ended_at` is the time by the clock of `TimeLimit`, for all members of a group.
        """
        self.ended_at = ended_at
        for _, callback in self.callbacks_:
            check_passed_on(callback, self.history[-1])
        if validation is not None and self._records_calibrated:
            dataset = validation.dataset
            loss = calibrated_loss(self.outputs(dataset), dataset, self.target)
            self.history.record(CALIBRATED, loss)
        self.history.record("dur", seconds)
        self.notify("on_epoch_end", **_datasets(training, validation))

    @property
    def _records_calibrated(self) -> bool:
        """Whether a callback monitors the calibrated loss, of a classifier."""
        watched = [getattr(one, "monitor", None) for _, one in self.callbacks_]
        return CALIBRATED in watched and self.target.estimator_type == "classifier"

    @property
    def n_epochs_done(self) -> int:
        """Epochs of this training that came to their end."""
        return sum("dur" in row for row in self.history[self.n_epochs_before :])

    @property
    def is_paused(self) -> bool:
        """Whether a limit of time ended this training before its last epoch."""
        limits = [one for _, one in self.callbacks_ if isinstance(one, TimeLimit)]
        return any(limit.has_stopped for limit in limits)

    @property
    def is_in_epoch(self) -> bool:
        """Whether an epoch of this training has begun that has not come to its end."""
        return len(self.history) > self.n_epochs_before and "dur" not in self.history[-1]

    def forget_unfinished_epoch(self) -> None:
        """Drop the row of an epoch that was broken off."""
        while self.is_in_epoch:
            del self.history[-1]

    def end(self, training: ArrayDataset) -> int:
        """End a training; return the epoch whose weights the network ends with."""
        held = self._end(training)
        self._check_finite(training)
        return held

    def _end(self, training: ArrayDataset) -> int:
        """Tell the callbacks, and find out whether one puts other weights back."""
        held = len(self.history)
        self.on_train_end(self, X=training, y=None)
        for _, callback in self.callbacks_:
            before = {k: v.clone() for k, v in self.module_.state_dict().items()}
            callback.on_train_end(self, X=training, y=None)
            after = self.module_.state_dict()
            if not all(torch.equal(before[name], after[name]) for name in before):
                held = held_epoch(callback, self.history) or held
        self.module_.eval()
        return held

    @torch.no_grad()
    def _check_finite(self, training: ArrayDataset) -> None:
        """Refuse a network that the last step destroyed, which no loss has shown."""
        places = torch.arange(min(len(training), SAMPLES_OF_CHECK))
        outputs = self.module_(training.inputs(places.to(training.y.device)))
        if not (outputs.isfinite().all() and is_finite(self.module_)):
            raise DivergenceError(
                "The network became infinite or NaN in the last step: lower "
                "lr or l2, or scale the input."
            )

    def _batches(
        self, data: Data, recipe: Recipe, device: torch.device
    ) -> tuple[Batches, Batches | None]:
        size = recipe.batch_size
        data.training.load(device)
        training = Batches(
            data.training,
            size,
            device,
            shuffle=self.shuffle,
            augmentations=recipe.augmentations,
            generator=self.noise,
            soften=data.target.soft,
            part=rank_and_size(),
        )
        if data.validation is None:
            return training, None
        data.validation.load(device)
        return training, Batches(data.validation, size, device)

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> "ResidualNet":
        """Optimizer of the recipe; the running averages of an earlier one are kept."""
        parameters = dict(self.module_.named_parameters())
        optimizer = make_optimizer(
            self.recipe, self.module_, parameters, device=torch.device(self.device)
        )
        earlier = getattr(self, "optimizer_", None)
        if type(earlier) is type(optimizer):
            optimizer.state.update(earlier.state)
        self.optimizer_ = optimizer
        return self

    # The history

    def _record(
        self,
        prefix: str,
        n_batches: int,
        means: list[float],
        others: dict[str, float],
        *,
        by_batch: bool,
    ) -> None:
        loss, *sums = means
        record = self.history[-1]  # once: an access takes as long as a small operation
        record.update(others)
        if prefix == "train" and not math.isfinite(loss):
            raise DivergenceError(
                f"The training loss became {loss} in epoch {record['epoch']} at a learning "
                f"rate of {record['lr']:g}: lower lr, or scale the input."
            )
        if not by_batch:
            # Callbacks such as Checkpoint look at the last batch of the history.
            record["batches"].append({f"{prefix}_loss": loss, f"{prefix}_batch_size": 1})
        name = f"{prefix}_loss"
        least = self._least_before(name)
        self._least[name] = record, loss if least is None else min(least, loss)
        record[f"{prefix}_batch_count"] = n_batches
        record[name] = loss
        record[f"{name}_best"] = least is None or loss < least
        record[f"{prefix}_{self.target.score_name}"] = self.target.score(sums)

    def _least_before(self, name: str) -> float | None:
        """Least value of a column so far; epochs of earlier fits may lack it."""
        n = len(self.history)
        row, least = self._least.get(name, (None, None))
        if row is self.history[n - 2]:
            return least
        # The first time, or the history is another one since.
        earlier = [past[name] for past in self.history[:-1] if name in past]
        return min(earlier, default=None)

    def batch_hooks(self) -> BatchHooks | None:
        """What tells the callbacks about every batch; None where none asks for it."""
        if not any(wants_batches(callback) for _, callback in self.callbacks_):
            return None

        def begin(batch: Batch, training: bool) -> None:
            self.notify("on_batch_begin", batch=batch, training=training)

        def grad_computed(batch: Batch) -> None:
            named = list(self.module_.named_parameters())
            self.notify(
                "on_grad_computed", named_parameters=named, batch=batch, training=True
            )

        def end(batch: Batch, training: bool, loss: Tensor, outputs: Tensor) -> None:
            prefix = "train" if training else "valid"
            self.history.record_batch(f"{prefix}_loss", loss.item())
            self.history.record_batch(f"{prefix}_batch_size", len(batch[0]))
            self.notify(
                "on_batch_end", batch=batch, training=training, loss=loss, y_pred=outputs
            )

        return BatchHooks(begin, grad_computed, end)

    # What callbacks of skorch call

    @property
    def classes_(self) -> NDArray[Any]:
        """Encoded classes."""
        if self.target.classes is None:
            raise AttributeError("A net of a regressor has no classes_.")
        return np.arange(len(self.target.classes))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = self.target.estimator_type
        tags.classifier_tags = ClassifierTags()
        tags.regressor_tags = RegressorTags()
        return tags

    def get_dataset(self, X: Any, y: Any = None) -> ArrayDataset:
        """Dataset over raw samples."""
        if isinstance(X, ArrayDataset):
            return X
        X = X if isinstance(X, Samples) else np.asarray(X)
        return ArrayDataset(X, self.input_spec, y)

    def get_iterator(self, dataset: ArrayDataset, training: bool = False) -> Batches:
        """Plain batches, also in training: nothing is shuffled or augmented here."""
        return Batches(dataset, self.batch_size, torch.device(self.device))

    def get_loss(self, y_pred: Tensor, y_true: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Mean loss of outputs, for an encoded y."""
        return self.target.losses(y_pred, torch.as_tensor(y_true)).mean()

    def predict(self, X: Any) -> NDArray[Any]:
        """Encoded predictions."""
        return self.target.decide(self.forward(X).numpy())

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities of the classes."""
        return self.target.probabilities(self.forward(X).numpy())

    # A prediction

    def averaged_outputs(
        self,
        X: NDArray[Any],
        *,
        bfloat16: bool = False,
        views: Sequence[View] = (unchanged,),
    ) -> NDArray[np.floating[Any]]:
        """Outputs that predict what all members do on average, over all views."""
        outputs = self.outputs_by_view(X, bfloat16=bfloat16, views=views)
        outputs = outputs.reshape(-1, *outputs.shape[-2:])
        return outputs[0] if len(outputs) == 1 else self.target.averaged(outputs)

    def _prepared(self) -> Prepared:
        """What predicts; that of a small network is kept until anything in it changes."""
        kept, network = self._kept, self.module_
        if kept is not None and kept[1].are_those_of(network):
            return kept[0]
        self._kept = None
        work = multiply_adds(network.eval(), self.input_spec.network_shape[1:])
        if any(map(is_called_by_torch, network.modules())):  # hooks see it as it is
            return Prepared(network, work)
        is_on_cpu = torch.device(self.device).type == "cpu"
        with one_thread(is_on_cpu):  # two would fold no faster, and then spin
            made = Prepared(flattened(folded(network)), work)
        n_values = sum(tensor.numel() for tensor in network.state_dict().values())
        # Comparing them would wait for a GPU.
        if 4 * n_values <= MOST_KEPT_BYTES and is_on_cpu:
            self._kept = made, Contents(network)
        return made

    def _size_of_pass(self, n: int, prepared: Prepared, *, pads_less: bool) -> int:
        """Samples in each pass of a prediction of n samples."""
        device, macs = torch.device(self.device), prepared.multiply_adds
        pads_less = pads_less and n < FEW and not self.module_.spec.unequal
        fewest = self._fewest(prepared) if pads_less else None
        return prediction_size(n, self.batch_size, macs, device, fewest=fewest)

    def _fewest(self, prepared: Prepared) -> int:
        """Least samples in a pass of a kept twin."""
        if prepared.fewest is None:
            size = min(FEW, self.batch_size)
            with one_thread(is_small_work(prepared.multiply_adds * size, CPU)):
                shape = size, *self.input_spec.network_shape
                prepared.fewest = fewest_alike(prepared.twin, shape)
        return prepared.fewest

    def outputs(
        self,
        X: NDArray[Any] | ArrayDataset,
        *,
        bfloat16: bool = False,
        features: bool = False,
    ) -> NDArray[np.float32]:
        """Outputs, or the features before the last layer, for raw or prepared samples.

        Those of several members have an axis in front.
        """
        return self.outputs_by_view(X, bfloat16=bfloat16, features=features)[0]

    @torch.inference_mode()
    def outputs_by_view(
        self,
        X: NDArray[Any] | ArrayDataset,
        *,
        bfloat16: bool = False,
        features: bool = False,
        views: Sequence[View] = (unchanged,),
    ) -> NDArray[np.float32]:
        """Outputs for each view of the samples, with an axis for the views in front."""
        dataset, device = self.get_dataset(X), torch.device(self.device)
        kept, prepared = self._kept, self._prepared()
        network = prepared.twin.features if features else prepared.twin
        spec = self.module_.spec
        n_outputs = spec.stages[-1].out_channels if features else spec.n_outputs
        members = () if spec.members == 1 else (spec.members,)
        shape = (len(views), *members, len(dataset), n_outputs)
        # There, or the CPU would wait for each batch of a GPU.
        out = torch.empty(shape, dtype=torch.float32, device=device)
        is_kept = self._kept is not None and self._kept is kept
        size = self._size_of_pass(
            len(dataset), prepared, pads_less=is_kept and not bfloat16
        )
        with one_thread(is_small_work(prepared.multiply_adds * size, device)):
            start = 0
            for x in dataset.passes(size, device):
                n = len(x)
                # Kernels are chosen by the batch's size and differ in their last bits, so
                # every batch of a call has the same: predictions do not depend on their
                # neighbours.
                if n < size:
                    x = nn.functional.pad(x, (0, 0) * (x.ndim - 1) + (0, size - n))
                for of_view, view in zip(out, views, strict=True):
                    found = autocast(network, view(x), bfloat16=bfloat16)[..., :n, :]
                    of_view[..., start : start + n, :] = found
                start += n
        outputs = out.cpu().numpy()
        if not np.isfinite(outputs).all():
            raise NonFiniteError(
                "The outputs for some samples of X are not finite: their values are too "
                "far from those that the network was trained on."
            )
        return outputs


def make_optimizer(
    recipe: Recipe,
    network: nn.Module,
    parameters: Mapping[str, Tensor],
    *,
    device: torch.device,
    members: int = 1,
) -> Optimizer:
    """Optimizer for parameters of a network, or for the slices of some of its members."""
    of_channels = recipe.l1_structure == "channel"
    groups = parameter_groups(
        parameters,
        kernels=kernels(network),
        l1_kernels=(inner_kernels if of_channels else kernels)(network),
        l1=recipe.l1,
        structure=recipe.l1_structure,
        l2=recipe.l2,
        l2_on=recipe.l2_on,
        keep_zeros=recipe.keep_zeros,
        members=members,
    )
    lr: Any = recipe.lr
    if device.type == "cuda":
        lr = torch.tensor(lr, device=device)  # a recorded step reads it there
        for group in groups:
            group["lr"] = lr.clone()  # or a change of one would be one of all
    return OPTIMIZERS[recipe.optimizer].make(groups, lr, recipe.momentum)


def _datasets(training: Batches, validation: Batches | None) -> dict[str, Any]:
    return {
        "dataset_train": training.dataset,
        "dataset_valid": validation.dataset if validation else None,
    }


def member_seed(seed: int, member: int) -> int:
    """Seed of a member of an ensemble; the first has that of a network alone."""
    if member == 0:
        return seed
    return int(np.random.SeedSequence([seed, member]).generate_state(1)[0])


def make_net(
    module: nn.Module,
    *,
    input_spec: InputSpec,
    target: Target,
    batch_size: int,
    device: torch.device,
    seed: int,
    n_epochs: int = 0,
) -> ResidualNet:
    """Net around a network that was trained for some epochs."""
    # The epochs count in the seed, so that a loaded model does not shuffle as before.
    seeds = np.random.SeedSequence([seed, n_epochs]).generate_state(2)
    shuffle, noise = map(int, seeds)
    net = ResidualNet(
        module.eval(),
        input_spec=input_spec,
        target=target,
        batch_size=batch_size,
        shuffle=torch.Generator().manual_seed(shuffle),
        noise=torch.Generator(device).manual_seed(noise),
        device=str(device),
        verbose=0,
    )
    return net.initialize()
