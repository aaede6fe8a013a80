"""Parameters → Recipe and Execution: the mathematics of a training, and its machinery."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sk_resnet._augment import Augmentation, resolve_augmentations
from sk_resnet._machine import is_small_work, pays_in_bfloat16
from sk_resnet._optim import OPTIMIZERS
from sk_resnet._spec import Defaults, Family, NetworkSpec


@dataclass(frozen=True)
class Recipe:
    """What the mathematics of a training is."""

    n_epochs: int
    batch_size: int
    optimizer: str
    lr: float
    momentum: float
    schedule: str
    l1: float
    l1_structure: str
    l2: float
    l2_on: str
    keep_zeros: bool
    augmentations: Sequence[Augmentation]


@dataclass(frozen=True)
class Execution:
    """How the machine does a training."""

    device: torch.device
    bfloat16: bool
    compile: bool
    on_one_thread: bool


def resolve_batch_size(batch_size: int | str, n: int) -> int:
    """Samples in a step, of n samples."""
    if batch_size == 1:
        raise ValueError(
            "batch_size must be at least 2, got 1: batch norm has no variance over one "
            "sample."
        )
    if isinstance(batch_size, str):  # "auto"
        # About 16 steps an epoch, of 32 to 128 samples; of fewer in tiny sets, but of 8, or
        # one step may see the same row several times, of which batch norm has no variance.
        wanted = max(min(32, n / 4), min(128, n / 16))
        batch_size = 2 ** max(3, round(math.log2(wanted)))
    # Predictions are padded to it: not to more than there ever were in a step.
    return min(int(batch_size), n)


def resolve_epochs(max_epochs: int | str, n: int, batch_size: int) -> int:
    """Epochs over n samples."""
    if isinstance(max_epochs, str):  # "auto"
        # 30 epochs of few samples are too few steps: 50 series need 400 rather than 120.
        return min(200, max(30, math.ceil(500 / math.ceil(n / batch_size))))
    return int(max_epochs)


def default_lr(optimizer: str, defaults: Defaults) -> float:
    """Learning rate that lr="auto" stands for."""
    return OPTIMIZERS[optimizer].default_lr * defaults.lr_factor


def make_recipe(
    parameters: Mapping[str, Any],
    family: Family,
    *,
    n_dims: int,
    n_samples: int,
    n_epochs: int,
    batch_size: int,
    schedule: str,
    finetunes: bool = False,
) -> Recipe:
    """Recipe of a training over so many samples with this many spatial dimensions."""
    optimizer, lr, l2 = (parameters[name] for name in ("optimizer", "lr", "l2"))
    defaults = family.defaults(n_dims)
    return Recipe(
        n_epochs=n_epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        # Fine-tuning starts from the full rate: the rewinding of arXiv:2003.02389.
        lr=default_lr(optimizer, defaults) if lr == "auto" else float(lr),
        momentum=float(parameters["momentum"]),
        schedule=schedule,
        l1=0.0 if finetunes else float(parameters["l1"]),
        l1_structure=parameters["l1_structure"],
        l2=defaults.l2_for(n_samples) if l2 == "auto" else float(l2),
        l2_on=parameters["l2_on"],
        keep_zeros=finetunes,
        augmentations=resolve_augmentations(parameters["augment"], n_dims),
    )


def make_execution(
    precision: str,
    compile: bool,
    *,
    device: torch.device,
    network: NetworkSpec,
    sides: tuple[int, ...],
    multiply_adds: int,
    batch_size: int,
) -> Execution:
    """How a network with that much work for a sample is trained there."""
    bfloat16 = precision == "bfloat16" or (
        precision == "auto" and pays_in_bfloat16(multiply_adds, device)
    )
    if bfloat16 and not _bfloat16_is_sound(network, sides, device):
        bfloat16 = False
        if precision == "bfloat16":
            warnings.warn(
                "On the CPU, gradients in bfloat16 are wrong for volumes and for images or "
                "series that the network shrinks to one place: training in float32.",
                UserWarning,
                stacklevel=2,
            )
    return Execution(
        device=device,
        bfloat16=bfloat16,
        compile=bool(compile),
        on_one_thread=is_small_work(multiply_adds * batch_size, device),
    )


def _bfloat16_is_sound(
    network: NetworkSpec, sides: tuple[int, ...], device: torch.device
) -> bool:
    # There oneDNN returns memory that it never wrote as the gradients of kernels: torch
    # 2.13, 3x3 with stride 2 over one place, 3x3x3 over volumes of 2 places.
    return device.type != "cpu" or (len(sides) < 3 and network.keeps_two_places(sides))
