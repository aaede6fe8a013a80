"""Fitted network ↔ plain values and NumPy arrays, with the version of the format."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import sklearn
import torch
from torch import nn

from sk_resnet._input import InputSpec, are_statistics
from sk_resnet._network import ResidualNetwork, build_network, is_finite
from sk_resnet._spec import MOST_BLOCKS, NetworkSpec
from sk_resnet._target import Target, target_from_dict
from sk_resnet._version import __version__

# 2: sparse weights as masks and values; 3: the target is in the state; 4: several members;
# 5: dilations.
FORMAT = 5


class ModelFileError(ValueError):
    """A file that is no model, is damaged, or is of a newer format.

    Raised by `load`, and for a newer format by joblib and pickle too.

    Examples
    --------
    >>> from sk_resnet import ModelFileError
    >>> issubclass(ModelFileError, ValueError)
    True
    """


def network_state(
    network: ResidualNetwork, input_spec: InputSpec, target: Target
) -> dict[str, Any]:
    """All that `restored` needs, in plain values and arrays."""
    return {
        "format": FORMAT,
        "versions": versions(),
        "network": network.spec.to_dict(),
        "input": input_spec.to_dict(),
        "target": target.to_dict(),
        "weights": packed(weights_to_arrays(network)),
    }


# What reading values of other types, or of a wrong structure, ends in.
BROKEN = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError)


def restored(
    saved: Mapping[str, Any], *, classes: Any, device: torch.device
) -> tuple[ResidualNetwork, InputSpec, Target]:
    """Network, input and target of a state; `classes` for those of formats 1 and 2."""
    try:
        check_versions(saved["format"], saved["versions"])
        spec = NetworkSpec.from_dict(saved["network"])
        input_spec = InputSpec.from_dict(saved["input"])
        stored = saved.get("target")
        if stored is None:  # up to format 2 all y were labels
            stored = {"kind": "labels", "classes": classes}
        target = target_from_dict(stored)
        if target.n_outputs != spec.n_outputs:
            raise ModelFileError(
                f"The model has {spec.n_outputs} outputs, but its target needs "
                f"{target.n_outputs}."
            )
        _check_input(input_spec, spec)
        if not target.is_whole():
            raise ModelFileError(
                "The model describes a y that its network does not predict."
            )
        network = network_without_memory(spec)
        _check_shapes(network, saved["weights"])
        arrays_to_weights(network, unpacked(saved["weights"]), device)
        if not is_finite(network):
            raise ModelFileError("The network has weights that are infinite or NaN.")
    except ModelFileError:
        raise
    except (*BROKEN, RuntimeError, MemoryError) as error:
        raise ModelFileError(
            f"The state of this model is broken ({type(error).__name__}: {error}): save it "
            "again from where it came."
        ) from error
    return network, input_spec, target


def network_without_memory(spec: NetworkSpec) -> ResidualNetwork:
    """Network of a file on the meta device, which is refused where none is built so."""
    if sum(stage.n_blocks for stage in spec.stages) > MOST_BLOCKS:
        raise ModelFileError("The model has more blocks than a network may have.")
    for i, stage in enumerate(spec.stages):
        if type(stage.dilation) is not int or stage.dilation not in (1, 2**i):
            raise ModelFileError("The model has dilations that no network has.")
    return build_network(spec)


def _check_input(input_spec: InputSpec, network: NetworkSpec) -> None:
    """Refuse a description of samples that is not that of the network's."""
    shape = input_spec.network_shape
    is_whole = (
        input_spec.channel_axis in (1, -1)
        and len(shape) == network.n_dims + 1
        and shape[0] == network.in_channels
        and input_spec.unequal == network.unequal
        and (network.n_dims == 1 or not network.unequal)
        and math.prod(input_spec.sample_shape) == math.prod(input_spec.input_shape)
        and are_statistics(input_spec.mean, input_spec.scale, shape[0])
        and isinstance(input_spec.robust, bool)
    )
    if not is_whole:
        raise ModelFileError("The model describes other samples than its network reads.")


def _check_shapes(network: nn.Module, stored: Mapping[str, Any]) -> None:
    """Refuse weights that are not those of the network, before they take memory."""
    for name, tensor in network.state_dict().items():
        a = stored[name]
        shape, dtype = (
            (tuple(a["shape"]), np.asarray(a["values"]).dtype)
            if isinstance(a, Mapping)
            else (a.shape, a.dtype)
        )
        wanted = tuple(tensor.shape) or (1,)  # counters were stored with one axis
        kind = str(tensor.dtype).removeprefix("torch.")
        if (shape or (1,)) != wanted or dtype != np.dtype(kind):
            raise ModelFileError(
                f"The model holds {name} of shape {shape} and type {dtype}, but its "
                f"network needs {kind} of shape {wanted}."
            )
        if isinstance(a, Mapping) and 8 * len(a["mask"]) < math.prod(shape):
            raise ModelFileError(f"The mask of {name} is too short.")


def versions() -> dict[str, str]:
    """Versions that a saved model depends on."""
    return {
        "sk_resnet": __version__,
        "torch": torch.__version__.partition("+")[0],
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
    }


def weights_to_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Parameters and buffers by name; they share memory with a network on the CPU."""
    state = network.state_dict()
    return {
        name: np.ascontiguousarray(tensor.detach().cpu().numpy())
        for name, tensor in state.items()
    }


# Share of zeros from which a mask of bits and the other values are smaller, with a margin.
SPARSE_FROM = 0.1


def packed(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Arrays with many zeros as a mask of bits and the other values; the rest as it is.

    Zeros are those whose bits are all zero, so that unpacking gives the same bits.
    """
    return {name: _packed(a) for name, a in arrays.items()}


def _packed(a: np.ndarray) -> Any:
    if a.dtype != np.float32:
        return a
    kept = a.ravel().view(np.uint32) != 0
    if kept.mean() > 1 - SPARSE_FROM:
        return a
    values = a.ravel()[kept]
    return {"shape": list(a.shape), "mask": np.packbits(kept), "values": values}


def unpacked(stored: dict[str, Any]) -> dict[str, np.ndarray]:
    """Inverse of `packed`."""
    return {name: _unpacked(a) for name, a in stored.items()}


def _unpacked(stored: Any) -> np.ndarray:
    if not isinstance(stored, dict):
        return stored
    a = np.zeros(stored["shape"], dtype=np.float32)
    kept = np.unpackbits(np.asarray(stored["mask"]), count=a.size).astype(bool)
    a.reshape(-1)[kept] = stored["values"]
    return a


def n_bytes(stored: dict[str, Any]) -> int:
    """Bytes of the arrays in packed weights."""
    parts = [
        p for a in stored.values() for p in (a.values() if isinstance(a, dict) else [a])
    ]
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))


@torch.inference_mode(False)  # or they could never be trained again
def arrays_to_weights(
    network: ResidualNetwork, arrays: dict[str, np.ndarray], device: torch.device
) -> ResidualNetwork:
    """Put arrays into a network on the meta device, where possible without a copy."""
    state = {
        name: torch.from_numpy(a if _is_own(a) else a.copy()).to(device)
        for name, a in arrays.items()
    }
    network.load_state_dict(state, assign=True)
    return network


def _is_own(a: np.ndarray) -> bool:
    """Whether training may write into an array, and into no file through it."""
    return a.flags.writeable and getattr(a, "mode", "c") != "r+"


def check_versions(state_format: int, saved: dict[str, str]) -> None:
    """Refuse a newer format; warn where a version differs."""
    if state_format > FORMAT:
        raise ModelFileError(
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
            stacklevel=5,
        )
