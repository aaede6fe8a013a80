"""How a network is trained: what the parameters of an estimator come to for some data."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from sk_resnet._augment import Augmentation, resolve_augmentations
from sk_resnet._engine import is_small_work, pays_in_bfloat16, pays_to_compile
from sk_resnet._input import InputSpec
from sk_resnet._network import multiply_adds
from sk_resnet._optim import OPTIMIZERS
from sk_resnet._spec import keeps_two_places


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: the optimization and regularization parameters."""

    optimizer: str
    lr: float
    momentum: float
    schedule: str
    batch_size: int
    l1: float
    l1_structure: str
    l2: float
    l2_on: str
    label_smoothing: float
    augmentations: Sequence[Augmentation]
    bfloat16: bool = False
    compile: bool = False
    is_small: bool = False
    keep_zeros: bool = False


def resolve_batch_size(estimator: Any, n: int) -> int:
    """Samples in a step, of n samples."""
    size = estimator.batch_size
    if size == 1:
        raise ValueError(
            "batch_size must be at least 2, got 1: batch norm has no variance over one "
            "sample."
        )
    if size == "auto":
        # About 16 steps an epoch, of 32 to 128 samples; of fewer in tiny sets.
        wanted = max(min(32, n / 4), min(128, n / 16))
        return 2 ** max(2, round(math.log2(wanted)))
    # Predictions are padded to it: not to more than there ever were in a step.
    return min(int(size), n)


def resolve_epochs(estimator: Any, n: int) -> int:
    """Epochs over n samples, of an estimator that knows its batch size."""
    if estimator.max_epochs != "auto":
        return int(estimator.max_epochs)
    # 30 epochs of 50 series are 120 steps, too few: 0.84 on folds of the training part of
    # GunPoint, against 0.92 for 400 steps.
    return min(200, max(30, math.ceil(500 / math.ceil(n / estimator.batch_size_))))


def plain_recipe(estimator: Any, n_dims: int) -> Recipe:
    """What the parameters say, in float32."""
    kind = OPTIMIZERS[estimator.optimizer]
    l2 = estimator.l2
    return Recipe(
        optimizer=estimator.optimizer,
        lr=kind.default_lr if estimator.lr == "auto" else float(estimator.lr),
        momentum=float(estimator.momentum),
        schedule=estimator.schedule,
        batch_size=estimator.batch_size_,
        l1=float(estimator.l1),
        l1_structure=estimator.l1_structure,
        l2_on=estimator.l2_on,
        l2=estimator._default_l2[n_dims > 0] if l2 == "auto" else float(l2),
        label_smoothing=float(estimator.label_smoothing),
        augmentations=resolve_augmentations(estimator.augment, n_dims),
    )


def training_recipe(estimator: Any, spec: InputSpec, n: int) -> Recipe:
    """The same, with what is chosen for training on n samples in all its epochs."""
    net = estimator.net_
    device = torch.device(net.device)
    macs = multiply_adds(net.module_, spec.network_shape[1:])
    bfloat16 = estimator.precision == "bfloat16" or (
        estimator.precision == "auto" and pays_in_bfloat16(macs, device)
    )
    bfloat16 = bfloat16 and _bfloat16_is_sound(estimator, device, spec)
    is_compiled = estimator.compile is True or (
        estimator.compile == "auto"
        and estimator.dropout == 0
        and pays_to_compile(n, macs, device, bfloat16=bfloat16)
    )
    return replace(
        plain_recipe(estimator, len(spec.network_shape) - 1),
        bfloat16=bfloat16,
        compile=is_compiled,
        is_small=is_small_work(macs * estimator.batch_size_, device),
    )


def _bfloat16_is_sound(estimator: Any, device: torch.device, spec: InputSpec) -> bool:
    # There oneDNN returns memory that it never wrote as the gradients of kernels: torch
    # 2.13, 3x3 with stride 2 over one place, 3x3x3 over volumes of 2 places.
    spatial, network = spec.network_shape[1:], estimator.net_.module_.spec
    if device.type != "cpu" or (len(spatial) < 3 and keeps_two_places(network, spatial)):
        return True
    if estimator.precision == "bfloat16":
        warnings.warn(
            "On the CPU, gradients in bfloat16 are wrong for volumes and for images or "
            "series that the network shrinks to one place: training in float32.",
            UserWarning,
            stacklevel=2,
        )
    return False
