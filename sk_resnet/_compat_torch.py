"""Private names of torch: all that the package uses stand here."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as of_all_modules

try:
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.weak import WeakIdKeyDictionary
except ImportError as error:
    raise ImportError(
        f"sk_resnet cannot use this version of torch ({error}): install one that its "
        "pyproject.toml names."
    ) from error

# The operator behind `Tensor.item`.
READS_A_VALUE = torch.ops.aten._local_scalar_dense.default

__all__ = [
    "READS_A_VALUE",
    "TorchDispatchMode",
    "WeakIdKeyDictionary",
    "are_unchanged",
    "children_of",
    "contents",
    "has_hooks",
    "is_compilation_error",
    "is_mutable",
    "kernel_of",
    "qualified_name",
    "shallow_copy",
]


def children_of(module: nn.Module) -> dict[str, nn.Module]:
    """Direct children by name; one that stands twice is there twice."""
    return {k: v for k, v in module._modules.items() if v is not None}


def shallow_copy(
    module: Any,
    *,
    children: Mapping[str, nn.Module] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Module of the same type and options with other children or parameters."""
    twin = copy.copy(module)
    if children is not None:
        twin._modules = dict(children)
    if parameters is not None:
        twin._parameters = dict(parameters)
    return twin


Contents = list[tuple[dict[str, Any], str, Any, int]]


def contents(module: nn.Module) -> Contents:
    """Tensors, layers and modes of a module, as `are_unchanged` compares them."""
    found: Contents = []
    for part in module.modules():
        found.append((vars(part), "training", part.training, -1))
        for held in (part._parameters, part._buffers, part._modules):
            found += [(held, name, value, _version(value)) for name, value in held.items()]
    return found


def _version(value: Any) -> int:
    """Number of writes to a tensor; -1 for what has none, also in inference mode."""
    if not isinstance(value, torch.Tensor) or value.is_inference():
        return -1
    return value._version


def are_unchanged(earlier: Contents) -> bool:
    """Whether none of these was replaced, and no tensor was written to."""
    return all(
        (version < 0 or value._version == version) and held.get(name) is value
        for held, name, value, version in earlier
    )


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks are registered on a module, its parameters, or all modules."""
    places = {**vars(of_all_modules), **vars(module)}
    return any(value for name, value in places.items() if "_hooks" in name) or any(
        parameter._backward_hooks or parameter._post_accumulate_grad_hooks
        for parameter in module.parameters(recurse=False)
    )


def qualified_name(operator: Any) -> str:
    """Name of an operator of a dispatch mode, such as ``aten::add``."""
    return operator._schema.name


def is_mutable(operator: Any) -> bool:
    """Whether an operator writes into its arguments."""
    return operator._schema.is_mutable


def kernel_of(operator: Any) -> Any:
    """What an operator calls; the operator itself where torch hides it."""
    return getattr(operator, "_op", operator)


def is_compilation_error(error: Exception) -> bool:
    """Whether `torch.compile` failed, and not what it compiled."""
    # Not imported above: the compiler takes seconds to import.
    return isinstance(error, torch._dynamo.exc.TorchDynamoException)
