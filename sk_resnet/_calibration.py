"""Temperature: how sure a classifier is, fitted on samples that it was not trained on."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from sk_resnet._batches import ArrayDataset
from sk_resnet._target import Target

# Deviation of log T that is expected before any sample is seen. Few validation samples may
# all be classified well, and would let T go to 0.
PRIOR_DEVIATION = 0.5
BOUNDS = (np.log(0.05), np.log(20.0))


def fitted_temperature(
    outputs: Sequence[NDArray[np.float32]],
    validation: Sequence[ArrayDataset],
    target: Target,
) -> float:
    """Temperature T of least validation loss, where outputs are divided by T.

    Guo et al. 2017, arXiv:1706.04599 §4.2. `outputs` are those of each member for its own
    validation set. Where members share one set, T is that of their average. Where each has
    a fold of its own, T of single members is too high for their average, which is less sure
    already: see `of_average`.
    """
    shares_one = all(own is validation[0] for own in validation)
    if shares_one:
        parts = [(np.stack(outputs), validation[0])]
    else:
        parts = [(out[None], own) for out, own in zip(outputs, validation, strict=True)]
    best = _best_temperature(parts, target.to(torch.device("cpu")))
    return best if shares_one else of_average(best)


def calibrated_loss(
    outputs: NDArray[np.float32], validation: ArrayDataset, target: Target
) -> float:
    """Mean loss at the temperature that the same samples tell.

    It judges how well classes are told apart, not how sure predictions are: Berta et al.
    2025, arXiv:2501.19195.
    """
    part, target = (outputs[None], validation), target.to(torch.device("cpu"))
    return _loss_at(_best_temperature([part], target), *part, target) / len(validation)


def _best_temperature(
    parts: Sequence[tuple[NDArray[np.float32], ArrayDataset]], target: Target
) -> float:
    """Temperature for outputs (members, n, outputs), of several sets of samples."""
    n = sum(len(own) for _, own in parts)

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        prior = 0.5 * (log_temperature / PRIOR_DEVIATION) ** 2
        return (prior + sum(_loss_at(temperature, *part, target) for part in parts)) / n

    found = minimize_scalar(loss, bounds=BOUNDS, method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))


def _loss_at(
    temperature: float, outputs: NDArray[np.float32], own: ArrayDataset, target: Target
) -> float:
    """Loss of all samples together, of the average of members."""
    cooled = torch.from_numpy(target.averaged(outputs / temperature))
    # In float64: the least of rounded losses lies anywhere near the true one.
    y = own.y.cpu()
    losses = target.losses(cooled, y.double() if y.is_floating_point() else y)
    return float(losses.dot(own.weight.cpu().double()))


def of_average(temperature: float) -> float:
    """Temperature of an average of networks, of which each alone needs the one given.

    Networks that need little of it differ by about as much as they are too sure, so that
    their average needs none. Those that need much have learned the noise of the labels by
    heart, and all the same noise: their average is nearly as sure as each of them.
    """
    return temperature - 1 + 1 / temperature if temperature > 1 else temperature
