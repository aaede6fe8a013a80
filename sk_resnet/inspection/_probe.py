"""Norms of gradients and activations, and dead units."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import Tensor, nn

from sk_resnet._batches import ArrayDataset
from sk_resnet._layers import NORM_TYPES, Dropout
from sk_resnet._net import ResidualNet
from sk_resnet._network import Block, kernels

# Part of the training samples in a probe, which is in float32: twice the time of bfloat16.
PROBE_SHARE = 0.02
PROBE_LEAST = 8
# Steps between two probes at least: on small sets a probe costs one to two.
PROBE_STEPS = 48


@dataclass(frozen=True)
class Probe:
    """Euclidean norms of the gradient by kernel, and root mean squares by block."""

    gradient_norms: dict[str, float]
    activation_norms: dict[str, float]


def probe(
    module: nn.Module, x: Tensor, y: Tensor, losses: Callable[[Tensor, Tensor], Tensor]
) -> Probe:
    """Forward and backward pass in training mode, without dropout; all stays as it was.

    The gradient is that of the mean of `losses`, which takes outputs and encoded y.
    """
    weights = kernels(module)
    with _probed(module) as activations, torch.enable_grad():
        loss = losses(module(x), y).mean()
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    found = zip(weights, gradients, strict=True)
    norms = {name: g.norm() for name, g in found if g is not None}
    return Probe(_floats(norms), _floats(activations))


@contextmanager
def _probed(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Batch norm without running statistics, no dropout, and the outputs of the blocks."""
    activations: dict[str, Tensor] = {}
    was_training, hooks, norms = module.training, [], []

    def keep(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            activations[name] = output.detach().square().mean().sqrt()

        return hook

    module.train()
    for name, layer in module.named_modules():
        if isinstance(layer, Block) or name == "stem":
            hooks.append(layer.register_forward_hook(keep(name)))
        elif isinstance(layer, Dropout):
            layer.eval()
        elif isinstance(layer, NORM_TYPES):
            layer.track_running_stats = False
            norms.append(layer)
    try:
        yield activations
    finally:
        for hook in hooks:
            hook.remove()
        for layer in norms:
            layer.track_running_stats = True
        module.train(was_training)


def without_generators(module: nn.Module) -> nn.Module:
    """Copy of a network that draws nothing."""
    # Generators cannot be copied.
    memo = {
        id(generator): None
        for layer in module.modules()
        if isinstance(layer, Dropout)
        for generator in layer.generators
        if generator is not None
    }
    return copy.deepcopy(module, memo)


def _floats(values: dict[str, Tensor]) -> dict[str, float]:
    if not values:
        return {}
    listed = torch.stack(list(values.values())).tolist()
    return dict(zip(values, listed, strict=True))


def dead_share(module: nn.Module, x: Tensor) -> float:
    """Share of the channels behind a ReLU that are zero for all samples."""
    alive: list[Tensor] = []

    def hook(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        alive.append(output.transpose(0, 1).flatten(1).gt(0).any(1))

    twin = without_generators(module).eval()
    for layer in twin.modules():
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(hook)
    with torch.inference_mode():
        twin(x)
    return 1 - float(torch.cat(alive).float().mean())


class GradientFlow(Callback):
    """Record norms of gradients and activations after epochs.

    A forward and backward pass over a few samples, the same every time, beside the
    training, which gives the same network as without. ``history_`` gets
    ``gradient_norms`` by kernel and ``activation_norms`` by block.

    Parameters
    ----------
    n_samples : int or "auto", default="auto"
        Samples in the pass. "auto" takes 2 % of the training set, at least 8 and at most
        a batch.
    every : int or "auto", default="auto"
        Epochs from one record to the next, from the first epoch on. "auto" is 1 for epochs
        of at least 48 steps, and more for shorter ones, so that the time of training grows
        by less than 5 %.

    See Also
    --------
    GradientFlowDisplay : Draws what was recorded.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.inspection import GradientFlow
    >>> X, y = load_iris(return_X_y=True)
    >>> flow = GradientFlow(every=1)
    >>> model = ResNetClassifier(depth=4, max_epochs=2, callbacks=[flow])
    >>> list(model.fit(X, y).history_[0]["activation_norms"])
    ['stem', 'stages.0.0']
    """

    def __init__(self, n_samples: int | str = "auto", every: int | str = "auto") -> None:
        self.n_samples = n_samples
        self.every = every

    def __repr__(self) -> str:
        return f"GradientFlow(n_samples={self.n_samples!r}, every={self.every!r})"

    def on_train_begin(
        self, net: ResidualNet, X: Any = None, y: Any = None, **kwargs: Any
    ) -> None:
        """Choose the samples: evenly over the training set."""
        n, size = len(X), self.n_samples
        if size == "auto":
            size = max(PROBE_LEAST, min(net.batch_size, round(PROBE_SHARE * n)))
        elif not isinstance(size, Integral) or size < 2:
            raise ValueError(f"n_samples must be 'auto' or at least 2, got {size!r}.")
        if self.every == "auto":
            self.every_ = math.ceil(PROBE_STEPS / math.ceil(n / net.batch_size))
        elif isinstance(self.every, Integral) and self.every >= 1:
            self.every_ = self.every
        else:
            raise ValueError(f"every must be 'auto' or at least 1, got {self.every!r}.")
        self.n_seen_ = 0
        places = np.unique(np.linspace(0, n - 1, min(n, size)).astype(np.int64))
        self.places_ = torch.from_numpy(places)

    def on_epoch_end(
        self, net: ResidualNet, dataset_train: Any = None, **kwargs: Any
    ) -> None:
        """Measure, and record."""
        self.n_seen_ += 1
        if (self.n_seen_ - 1) % self.every_:
            return
        found = probe_samples(net, dataset_train, self.places_)
        net.history.record("gradient_norms", found.gradient_norms)
        net.history.record("activation_norms", found.activation_norms)


def probe_samples(
    net: ResidualNet, dataset: ArrayDataset, places: Tensor, *, on_a_copy: bool = False
) -> Probe:
    """Probe of a net by some samples of a dataset; a copy leaves other threads alone."""
    places = places.to(torch.device(net.device))
    x, y = dataset.inputs(places), dataset.y.to(places.device)[places]
    module = without_generators(net.module_) if on_a_copy else net.module_
    return probe(module, x, y, net.target.to(places.device).training_losses)
