"""Fitted network ↔ NumPy arrays, with the version of the format."""

import warnings
from importlib.metadata import version

import numpy as np
import torch
from torch import nn

from sk_resnet._version import __version__

FORMAT = 1


def versions() -> dict[str, str]:
    """Versions that a saved model depends on."""
    return {
        "sk_resnet": __version__,
        "torch": version("torch").partition("+")[0],
        "scikit-learn": version("scikit-learn"),
        "numpy": version("numpy"),
    }


def weights_to_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Parameters and buffers by name; they share memory with a network on the CPU."""
    state = network.state_dict()
    return {
        name: np.ascontiguousarray(tensor.detach().cpu().numpy())
        for name, tensor in state.items()
    }


def arrays_to_weights(
    network: nn.Module, arrays: dict[str, np.ndarray], device: torch.device
) -> nn.Module:
    """Put arrays into a network on the meta device, without a copy on the CPU."""
    state = {
        name: torch.from_numpy(a if a.flags.writeable else a.copy()).to(device)
        for name, a in arrays.items()
    }
    network.load_state_dict(state, assign=True)
    return network


def check_versions(state_format: int, saved: dict[str, str]) -> None:
    """Refuse a newer format; warn where a version differs."""
    if state_format > FORMAT:
        raise ValueError(
            f"This model was saved in format {state_format} by sk_resnet "
            f"{saved.get('sk_resnet')}, but sk_resnet {__version__} reads formats up to "
            f"{FORMAT}: upgrade sk_resnet."
        )
    here = versions()
    skew = [f"{k} {v} (here {here.get(k)})" for k, v in saved.items() if here.get(k) != v]
    if skew:
        warnings.warn(
            f"This model was saved with {', '.join(skew)}: check its predictions, or "
            "load it with those versions.",
            UserWarning,
            stacklevel=4,
        )
