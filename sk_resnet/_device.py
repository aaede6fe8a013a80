"""Which device a network is on, and which of several GPUs belongs to a worker."""

import multiprocessing
import os
from typing import Any

import torch


def resolve_device(device: Any) -> torch.device:
    """Device for the parameter of that name; 'auto' is a GPU where there is one."""
    if isinstance(device, str) and device == "auto":
        n_gpus = torch.cuda.device_count()
        # Workers take the GPUs in turn.
        place = f"cuda:{worker_number() % n_gpus}" if n_gpus else "cpu"
        return torch.device(place)
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise ValueError(
            "device must be 'auto' or a device of torch such as 'cpu', 'cuda' or 'cuda:1', "
            f"got {device!r}."
        ) from None
    if not _is_available(resolved):
        raise ValueError(
            f"device={device!r} was asked for, but torch finds no such device here: use "
            "device='auto'."
        )
    return resolved


def worker_number() -> int:
    """Number of this process among the workers of torchrun, joblib or dask; else 0."""
    if "LOCAL_RANK" in os.environ:
        return int(os.environ["LOCAL_RANK"])
    identity = multiprocessing.current_process()._identity  # counts from 1
    return identity[-1] - 1 if identity else 0


def _is_available(device: torch.device) -> bool:
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    return device.type == "cpu"


def device_or_cpu(device: str) -> torch.device:
    """The device that a model was trained on, or the CPU where it is missing."""
    resolved = torch.device(device)
    return resolved if _is_available(resolved) else torch.device("cpu")
