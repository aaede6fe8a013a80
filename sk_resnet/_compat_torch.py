"""Private names of torch: all that the package uses stand here."""

import copy
from collections.abc import Iterator, Mapping
from itertools import chain, starmap
from operator import is_
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules import module as of_all_modules

try:
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.weak import WeakIdKeyDictionary
except ImportError as error:
    raise ImportError(
        f"sk_resnet cannot use this version of torch ({error}): install one that its "
        "pyproject.toml names."
    ) from error

if not hasattr(torch.optim.SGD, "_init_group"):
    raise ImportError(
        f"sk_resnet cannot use torch {torch.__version__}, whose SGD has other inner "
        "functions: install a version that its pyproject.toml names."
    )

# Modules whose attributes do not matter to a prediction, beside their children and hooks.
WITHOUT_OPTIONS = (nn.Sequential, nn.ModuleList, nn.ReLU, nn.Identity)
# The operator behind `Tensor.item`.
READS_A_VALUE = torch.ops.aten._local_scalar_dense.default

__all__ = [
    "READS_A_VALUE",
    "SGD",
    "Contents",
    "TorchDispatchMode",
    "WeakIdKeyDictionary",
    "children_of",
    "has_hooks",
    "is_called_by_torch",
    "is_compilation_error",
    "is_mutable",
    "kernel_of",
    "qualified_name",
    "shallow_copy",
]


class SGD(torch.optim.SGD):
    """SGD whose fused step works where some weights move for the first time, others not.

    That of torch fails there.
    """

    def _init_group(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        momentum_buffer_list: list[Tensor | None],
    ) -> bool:
        is_sparse = super()._init_group(group, params, grads, momentum_buffer_list)
        if not all(buffer is None for buffer in momentum_buffer_list):
            for i, buffer in enumerate(momentum_buffer_list):
                if buffer is None:
                    momentum_buffer_list[i] = torch.zeros_like(params[i])
        return is_sparse


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


class Contents:
    """What a network is made of, and the values of its tensors, to compare it with later.

    By value: writes through ``.data`` and NumPy leave no other trace. Tensors that lie in
    memory without gaps are compared all at once.
    """

    def __init__(self, module: nn.Module) -> None:
        self.parts = list(module.modules())
        self.types = list(map(type, self.parts))
        of_all = "_global_forward_hooks", "_global_forward_pre_hooks"
        self.dicts = [getattr(of_all_modules, name) for name in of_all]
        for part in self.parts:
            self.dicts += [vars(part), part._parameters, part._buffers, part._modules]
            self.dicts += [part._forward_hooks, part._forward_pre_hooks]
        self.sizes = list(map(len, self.dicts))
        plain = [vars(part) for part in self.parts if type(part) in WITHOUT_OPTIONS]
        left_out = set(map(id, plain))
        self.filled = [held for held in self.dicts if held and id(held) not in left_out]
        self.objects = list(_values(self.filled))
        tensors = [*module.parameters(), *module.buffers()]
        self.flat = [x for x in tensors if x.is_contiguous()]
        self.others = [(x, x.detach().clone()) for x in tensors if not x.is_contiguous()]
        self.places = _places(self.flat)
        # Views keep the memory alive: other memory has another address.
        self.views = [x.detach().view(-1).view(torch.uint8).numpy() for x in self.flat]
        self.words = self._words()

    def _words(self) -> NDArray[Any]:
        # NumPy compares integers many times faster than torch, and than bytes, which it
        # would copy first. It uses one thread: more would copy no faster. Only tensors of
        # two bytes a value may leave a rest.
        found = np.concatenate(self.views)
        return found.view(np.uint8 if found.size % 4 else np.uint32)

    def are_those_of(self, module: nn.Module) -> bool:
        """Whether a network is this one, and nothing in it has changed."""
        return (
            module is self.parts[0]
            and list(map(type, self.parts)) == self.types
            and list(map(len, self.dicts)) == self.sizes
            and all(map(is_, _values(self.filled), self.objects))
            and _places(self.flat) == self.places
            and bool((self._words() == self.words).all())
            and all(starmap(torch.equal, self.others))
        )


def _values(dicts: list[dict[str, Any]]) -> Iterator[Any]:
    return chain.from_iterable(map(dict.values, dicts))


def _places(tensors: list[Tensor]) -> list[Any]:
    """What lies where in memory; the sizes give the strides of contiguous tensors."""
    parts = (Tensor.data_ptr, Tensor.size, Tensor.is_contiguous)
    return [list(map(part, tensors)) for part in parts]


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks are registered on a module, its parameters, or all modules."""
    places = {**vars(of_all_modules), **vars(module)}
    return any(value for name, value in places.items() if "_hooks" in name) or any(
        parameter._backward_hooks or parameter._post_accumulate_grad_hooks
        for parameter in module.parameters(recurse=False)
    )


def is_called_by_torch(module: nn.Module) -> bool:
    """Whether a call of a module does more than its class's `forward`."""
    return has_hooks(module) or "forward" in vars(module)


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
