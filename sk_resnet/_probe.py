"""Norms of gradients and activations, measured on a copy of the network."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import Tensor, nn

from sk_resnet._batches import ArrayDataset
from sk_resnet._layers import Dropout
from sk_resnet._network import Block, kernels

# Part of the training samples in a probe: an epoch costs that much more.
PROBE_SHARE = 0.03
PROBE_LEAST = 8


@dataclass(frozen=True)
class Probe:
    """Euclidean norms of the gradient by kernel, and root mean squares by block."""

    gradient_norms: dict[str, float]
    activation_norms: dict[str, float]


def probe(module: nn.Module, x: Tensor, y: Tensor) -> Probe:
    """Forward and backward pass in training mode, without dropout, on a copy."""
    # A copy, so that batch norm's running statistics and the gradients stay.
    twin = _without_generators(module).train()
    activations: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            activations[name] = output.detach().square().mean().sqrt()

        return hook

    for name, layer in twin.named_modules():
        if isinstance(layer, Block) or name == "stem":
            layer.register_forward_hook(keep(name))
        if isinstance(layer, Dropout):
            layer.eval()
    with torch.enable_grad():
        nn.functional.cross_entropy(twin(x), y).backward()
    norms = {name: w.grad.norm() for name, w in kernels(twin).items() if w.grad is not None}
    return Probe(_floats(norms), _floats(activations))


def _without_generators(module: nn.Module) -> nn.Module:
    # Generators cannot be copied; the twin draws nothing.
    memo = {
        id(layer.generator): None
        for layer in module.modules()
        if isinstance(layer, Dropout) and layer.generator is not None
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

    twin = _without_generators(module).eval()
    for layer in twin.modules():
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(hook)
    with torch.inference_mode():
        twin(x)
    return 1 - float(torch.cat(alive).float().mean())


class GradientFlow(Callback):
    """Record norms of gradients and activations after each epoch.

    A forward and backward pass over a few samples, the same in every epoch, on a copy of
    the network: training itself goes on as without it, at its full speed. ``history_``
    gets ``gradient_norms`` by kernel and ``activation_norms`` by block.

    Parameters
    ----------
    n_samples : int or "auto", default="auto"
        Samples in the pass. "auto" takes 3 % of the training set, at least 8 and at most
        a batch.

    See Also
    --------
    GradientFlowDisplay : Draws what was recorded.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sk_resnet import ResNetClassifier
    >>> from sk_resnet.inspection import GradientFlow
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ResNetClassifier(depth=4, max_epochs=2, callbacks=[GradientFlow()])
    >>> list(model.fit(X, y).history_[0]["activation_norms"])
    ['stem', 'stages.0.0']
    """

    def __init__(self, n_samples: int | str = "auto") -> None:
        self.n_samples = n_samples

    def __repr__(self) -> str:
        return f"GradientFlow(n_samples={self.n_samples!r})"

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Choose the samples: evenly over the training set."""
        n, size = len(X), self.n_samples
        if size == "auto":
            size = max(PROBE_LEAST, min(net.recipe.batch_size, round(PROBE_SHARE * n)))
        elif not isinstance(size, int) or size < 2:
            raise ValueError(f"n_samples must be 'auto' or at least 2, got {size!r}.")
        places = np.unique(np.linspace(0, n - 1, min(n, size)).astype(np.int64))
        self.places_ = torch.from_numpy(places)

    def on_epoch_end(self, net: Any, dataset_train: Any = None, **kwargs: Any) -> None:
        """Measure, and record."""
        found = probe_samples(net, dataset_train, self.places_)
        net.history.record("gradient_norms", found.gradient_norms)
        net.history.record("activation_norms", found.activation_norms)


def probe_samples(net: Any, dataset: ArrayDataset, places: Tensor) -> Probe:
    """Probe of a net by some samples of a dataset."""
    places = places.to(torch.device(net.device))
    x, y = dataset.inputs(places), dataset.y.to(places.device)[places]
    return probe(net.module_, x, y)
