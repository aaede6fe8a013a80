"""Optimizers with a proximal L1 step, parameter groups, and schedules."""

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer, lr_scheduler

from sk_resnet._compat_torch import SGD
from sk_resnet._penalty import STRUCTURES, by_member


class _EndsSteps:
    """What follows a step: the proximal step of ``l1``, and zeros that stay zero.

    Groups may have ``l1`` with its ``structure``, and ``keep_zeros``. Options of groups
    survive pickle, deepcopy and load_state_dict; hooks on optimizers do not.
    """

    param_groups: list[dict[str, Any]]
    state: Any
    _step_size: Callable[[dict[str, Any], Tensor], Tensor | float]  # of the subclass

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        kept = [
            (w, w == 0)
            for group in self.param_groups
            if group.get("keep_zeros", False)
            for w in group["params"]
        ]
        loss = super().step(closure)  # type: ignore[misc]
        for w, proximal_, threshold in self._penalised(lambda w: w.grad is not None):
            proximal_(w, threshold)
        for w, zero in kept:
            w.masked_fill_(zero, 0.0)  # not a product: -0.0 takes a value's bytes in a file
        return loss

    @torch.no_grad()
    def settle(self, lr: float) -> None:
        """Zero what a proximal step at this learning rate would; other weights stay.

        So do weights that are frozen, or were during the training. Gradients may be gone by
        now, but an optimizer that has states has one for each weight that it moved.
        """
        for group in self.param_groups:
            group["lr"] = lr
        for w, proximal_, threshold in self._penalised(
            lambda w: w.requires_grad and (w in self.state or not self.state)
        ):
            w.masked_fill_(proximal_(w.clone(), threshold) == 0, 0.0)

    def _penalised(
        self, moves: Callable[[Tensor], bool]
    ) -> Iterator[tuple[Tensor, Callable[..., Tensor], Any]]:
        """Each weight under ``l1`` that moves, with its proximal operator and threshold."""
        for group in self.param_groups:
            if l1 := group.get("l1", 0.0):
                structure = STRUCTURES[group.get("structure", "weight")]
                proximal_ = by_member(structure.proximal_, group.get("members", 1))
                for w in filter(moves, group["params"]):
                    yield w, proximal_, self._step_size(group, w) * l1


class ProximalSGD(_EndsSteps, SGD):
    """SGD with proximal steps.

    With momentum m a gradient moves a weight by lr / (1 - m) in total, so that is what
    the threshold must weigh against: lr·l1 / (1 - m), heavy-ball or Nesterov.
    """

    def _step_size(self, group: dict[str, Any], w: Tensor) -> Tensor | float:
        return group["lr"] / (1 - group["momentum"])


class ProximalAdamW(_EndsSteps, AdamW):
    """AdamW with proximal steps.

    The threshold has Adam's own step size for each weight: lr·l1 / (√v̂ + ε).
    """

    def _step_size(self, group: dict[str, Any], w: Tensor) -> Tensor | float:
        state = self.state[w]
        correction = 1 - group["betas"][1] ** state["step"].double()
        v = (state["exp_avg_sq"] / correction).sqrt_().add_(group["eps"])
        # Not lr / v, which rounds otherwise for a number than for a tensor.
        return v.reciprocal_().mul_(group["lr"])


def make_sgd(
    groups: list[dict[str, Any]], lr: float | Tensor, momentum: float
) -> Optimizer:
    """SGD with Nesterov momentum, as arXiv:1605.07146 §3."""
    return ProximalSGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)


def make_heavy_ball(
    groups: list[dict[str, Any]], lr: float | Tensor, momentum: float
) -> Optimizer:
    """SGD with Polyak's momentum, as arXiv:1512.03385 §3.4."""
    return ProximalSGD(groups, lr=lr, momentum=momentum, fused=True)


def make_adamw(
    groups: list[dict[str, Any]], lr: float | Tensor, momentum: float
) -> Optimizer:
    """AdamW with `momentum` as its first decay rate."""
    return ProximalAdamW(
        groups,
        lr=lr,
        betas=(momentum, 0.999),
        fused=True,
        capturable=isinstance(lr, torch.Tensor),
    )


@dataclass(frozen=True)
class OptimizerKind:
    """How an optimizer is made, and its learning rates: lr="auto", and for searches."""

    make: Callable[[list[dict[str, Any]], float | Tensor, float], Optimizer]
    default_lr: float
    lr_range: tuple[float, float]


OPTIMIZERS = {
    "sgd": OptimizerKind(make_sgd, default_lr=0.1, lr_range=(3e-3, 0.5)),
    "heavy_ball": OptimizerKind(make_heavy_ball, default_lr=0.1, lr_range=(3e-3, 0.5)),
    "adamw": OptimizerKind(make_adamw, default_lr=2e-3, lr_range=(2e-4, 2e-2)),
}


def parameter_groups(
    parameters: Mapping[str, Tensor],
    *,
    kernels: Container[str],
    l1_kernels: Container[str],
    l1: float,
    structure: str,
    l2: float,
    l2_on: str,
    keep_zeros: bool,
    members: int = 1,
) -> list[dict[str, Any]]:
    """Kernels under both penalties, kernels under l2 alone, norms and biases.

    Parameters come by name, and may be those of several members.
    """
    parts: dict[str, list[Tensor]] = {"l1": [], "l2": [], "free": []}
    for name, parameter in parameters.items():
        under = "l1" if name in l1_kernels else "l2" if name in kernels else "free"
        parts[under].append(parameter)
    return [
        {
            "params": listed,
            "l1": l1 if part == "l1" else 0.0,
            "structure": structure,
            "members": members,
            "weight_decay": l2 if part != "free" or l2_on == "all" else 0.0,
            "keep_zeros": keep_zeros and part != "free",
        }
        for part, listed in parts.items()
        if listed
    ]


def _one_cycle(optimizer: Optimizer, n_steps: int) -> lr_scheduler.LRScheduler:
    # Smith & Topin 2018, arXiv:1708.07120; momentum is left alone, as tau depends on it.
    return lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[float(group["lr"]) for group in optimizer.param_groups],
        total_steps=n_steps + 1,
        pct_start=0.3,
        cycle_momentum=False,
    )


def _cosine(optimizer: Optimizer, n_steps: int) -> lr_scheduler.LRScheduler:
    return lr_scheduler.CosineAnnealingLR(optimizer, T_max=n_steps)


def _resnet_steps(optimizer: Optimizer, n_steps: int) -> lr_scheduler.LRScheduler:
    # arXiv:1512.03385 §4.2: divided by 10 at 32k and at 48k of 64k iterations.
    return lr_scheduler.MultiStepLR(optimizer, [n_steps // 2, n_steps * 3 // 4], gamma=0.1)


def _wide_steps(optimizer: Optimizer, n_steps: int) -> lr_scheduler.LRScheduler:
    # arXiv:1605.07146 §3: times 0.2 at epochs 60, 120 and 160 of 200.
    milestones = [int(n_steps * share) for share in (0.3, 0.6, 0.8)]
    return lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.2)


def _constant(optimizer: Optimizer, n_steps: int) -> lr_scheduler.LRScheduler:
    return lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)


SCHEDULES: dict[str, Callable[[Optimizer, int], lr_scheduler.LRScheduler]] = {
    "one_cycle": _one_cycle,
    "cosine": _cosine,
    "resnet_steps": _resnet_steps,
    "wide_steps": _wide_steps,
    "constant": _constant,
}
