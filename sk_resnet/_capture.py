"""Steps that are recorded once and replayed: operations on a CPU, kernels on a GPU."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from numbers import Number
from types import BuiltinFunctionType, MethodDescriptorType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as of_all_layers
from torch.optim import optimizer as of_all_optimizers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

Step = Callable[..., None]
# Records a step while it is done for these inputs, and returns it for others.
Capture = Callable[[Step, Sequence[Tensor]], Step]
# Parameter groups of an optimizer, which may get others.
Groups = Callable[[], list[dict[str, Any]]]

# Recording takes as long as some ten steps, which twice as many replays bring back.
CPU_WARMUP = 8
# As torch recommends; libraries choose their kernels meanwhile.
CUDA_WARMUP = 3
# Modules of layers that do nothing but operations of torch.
OUR_LAYERS = ("torch.nn.", "sk_resnet.")


class CapturedStep:
    """A step that is recorded once, then replayed for inputs of the same layout.

    Small networks are limited by what surrounds the arithmetic: Python, autograd, launches
    of kernels. The first `warmup` steps run as they are, since optimizers create their
    state in the first one; so do inputs that are not laid out as the first ones were, such
    as the last batch of an epoch.
    """

    def __init__(
        self,
        step: Step,
        capture: Capture,
        warmup: int,
        depends_on: Callable[[], Any] = tuple,
    ) -> None:
        self.step, self.capture = step, capture
        self.warmup, self.depends_on = warmup, depends_on
        self._layout: list[Any] | None = None
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._replay: Step | None = None
        self._n_left = self.warmup

    def __getstate__(self) -> dict[str, Any]:
        # A copy has other tensors, and code cannot be pickled.
        return {**vars(self), "_taken_of": None, "_replay": None, "_n_left": self.warmup}

    def check(self) -> None:
        """Forget the record if what it was taken of is no longer so."""
        if self._replay is not None and self.depends_on() != self._taken_of:
            self.forget()

    def __call__(self, *inputs: Tensor) -> None:
        """Do the step for these inputs."""
        layout = [(x.shape, x.stride(), x.dtype) for x in inputs]
        if self._layout is None:
            self._layout = layout
        if layout != self._layout:
            self.step(*inputs)
        elif self._replay is not None:
            self._replay(*inputs)
        elif self._n_left > 0:
            self._n_left -= 1
            self.step(*inputs)
        elif (now := self.depends_on()) is not None:
            self._taken_of = now
            self._replay = self.capture(self.step, inputs)
        else:
            self.forget()
            self.step(*inputs)


def what_steps_depend_on(module: nn.Module, optimizer: Any, *others: Any) -> Any:
    """What a record keeps as it was, to be compared; None where it must not be taken.

    Callbacks may change layers, options and tensors between epochs. The values of tensors
    and the learning rates are read anew by every replay.
    """
    groups, layers = optimizer.param_groups, list(module.modules())
    parameters = _held(layers, "_parameters")
    if _wants_every_step(layers, parameters, optimizer):
        return None
    tensors = [
        *parameters,
        *_held(layers, "_buffers"),
        *chain.from_iterable(state.values() for state in optimizer.state.values()),
        *chain.from_iterable((group["lr"], *group["params"]) for group in groups),
    ]
    tensors = [value for value in tensors if isinstance(value, Tensor)]
    options = [*map(vars, (*layers, optimizer)), *({**g, "lr": None} for g in groups)]
    return (
        [(tensor.data_ptr(), tensor.requires_grad) for tensor in tensors],
        _Snapshot(
            [
                *layers,
                *tensors,
                *chain.from_iterable(options),
                *chain.from_iterable(values.values() for values in options),
            ]
        ),
        others,
    )


def _held(layers: list[nn.Module], kind: str) -> list[Tensor]:
    held = chain.from_iterable(vars(layer)[kind].values() for layer in layers)
    return [tensor for tensor in held if tensor is not None]


class _Snapshot:
    """Equal to one of the same objects, but for numbers and texts, which have values."""

    def __init__(self, objects: list[Any]) -> None:
        self.objects = objects

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, _Snapshot)
        return len(self.objects) == len(other.objects) and all(
            a is b or (isinstance(a, (Number, str, tuple)) and a == b)
            for a, b in zip(self.objects, other.objects, strict=True)
        )


def _wants_every_step(
    layers: list[nn.Module], parameters: list[Tensor], optimizer: Any
) -> bool:
    """Whether a step may run Python of users, which leaves no trace in operations."""
    hooked = [*layers, optimizer, of_all_layers, of_all_optimizers]
    hooks = [
        value for part in hooked for name, value in vars(part).items() if "_hooks" in name
    ]
    hooks += [p._backward_hooks or p._post_accumulate_grad_hooks for p in parameters]
    # Contexts around the fit: modes see each operation, and hooks what autograd saves.
    is_watched = (
        torch._C._len_torch_dispatch_stack() > 0
        or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
    )
    # Schedulers of torch wrap `step`, and say so.
    step = vars(optimizer).get("step")
    is_replaced = step is not None and not hasattr(step, "_wrapped_by_lr_sched")
    return (
        any(hooks)
        or is_watched
        or is_replaced
        or any("forward" in vars(layer) for layer in layers)
        or not all(type(x).__module__.startswith(OUR_LAYERS) for x in layers)
    )


def capture_on(
    device: torch.device,
    generators: Sequence[torch.Generator],
    groups: Groups,
    n_steps: int,
) -> tuple[Capture, int]:
    """How steps are recorded there, and after how many of them that run as they are."""
    if device.type == "cuda":
        return partial(capture_cuda_graph, generators=generators), CUDA_WARMUP
    pays = n_steps >= 3 * CPU_WARMUP
    return partial(capture_at_any_rate, groups=groups), CPU_WARMUP if pays else n_steps


def capture_at_any_rate(step: Step, inputs: Sequence[Tensor], *, groups: Groups) -> Step:
    """Record operations, and read the learning rates anew in every replay.

    They are tensors for the record alone: callbacks that halve or log the rates of groups
    mean numbers.
    """
    numbers = [group["lr"] for group in groups()]
    # In 64 bits, as Python would pass them.
    tensors = [torch.empty((), dtype=torch.float64).fill_(number) for number in numbers]
    for group, tensor in zip(groups(), tensors, strict=True):
        group["lr"] = tensor
    try:
        replay = capture_operations(step, inputs)
    finally:
        for group, number in zip(groups(), numbers, strict=True):
            group["lr"] = number
    if replay is step:
        return step

    def replay_at_present_rates(*inputs: Tensor) -> None:
        for group, tensor in zip(groups(), tensors, strict=True):
            tensor.fill_(group["lr"])
        replay(*inputs)

    return replay_at_present_rates


def capture_operations(step: Step, inputs: Sequence[Tensor]) -> Step:
    """Record the operations of torch below autograd, forward, backward and update.

    The replay makes the same calls in the same order, so that its results are the same to
    the last bit. A step of a dense network of depth 4 takes half the time.
    """
    recorder = _Recorder(inputs)
    with recorder:
        step(*inputs)
    return recorder.replay() if recorder.is_replayable else step


class _Call(NamedTuple):
    """An operation as source, and the names of what it makes and reads."""

    source: str
    makes: list[str]
    reads: set[str]
    makes_several: bool
    writes: bool

    def line(self, needed: set[str]) -> str:
        """Statement that keeps what is needed."""
        names = [name if name in needed else "_" for name in self.makes]
        if needed.isdisjoint(self.makes):
            return self.source
        left = f"[{', '.join(names)}]" if self.makes_several else names[0]
        return f"{left} = {self.source}"


class _Recorder(TorchDispatchMode):
    """Writes operations down as lines of Python; what they do not make is `outside`."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        # Weak references, or autograd copies gradients that someone else seems to hold.
        self.names = WeakIdKeyDictionary()
        self.inputs = [f"input{i}" for i in range(len(inputs))]
        for name, x in zip(self.inputs, inputs, strict=True):
            self.names[x] = name
        self.outside: dict[str, Any] = {}
        self.transposed: dict[str, str] = {}
        self.calls: list[_Call] = []
        self.is_replayable = True

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        found = function(*args, **kwargs)
        if function.namespace == "profiler":
            return found
        reads: set[str] = set()
        arguments = [self._source(value, reads) for value in args]
        arguments += [f"{key}={self._source(kwargs[key], reads)}" for key in kwargs]
        if alias := self._alias(function, args):
            self.names[found] = alias
            return found
        several = isinstance(found, (list, tuple))
        results = found if several else [found]
        if function.is_view and reads <= self.outside.keys():
            for value in results:  # such as a transposed weight
                self._source(value, reads)
        else:
            source = f"{self._from_outside(_binding(function))}({', '.join(arguments)})"
            makes = [self._made(value, i) for i, value in enumerate(results)]
            writes = function._schema.is_mutable
            self.calls.append(_Call(source, makes, reads, several, writes))
        if function is torch.ops.aten.t.default:
            self.transposed[self.names[found]] = self.names[args[0]]
        is_value = function is torch.ops.aten._local_scalar_dense.default
        is_nested = any(isinstance(value, (list, tuple)) for value in results)
        if is_value or is_nested:
            self.is_replayable = False  # Python may decide by it, or tensors hide
        return found

    def _alias(self, function: Any, args: Any) -> str | None:
        """Name of what a tensor is that was detached, or transposed back."""
        if function is torch.ops.aten.detach.default:
            return self.names[args[0]]
        if function is torch.ops.aten.t.default:
            return self.transposed.get(self.names[args[0]])
        return None

    def _source(self, value: Any, reads: set[str]) -> str:
        if isinstance(value, (list, tuple)) and any(isinstance(x, Tensor) for x in value):
            return f"[{', '.join(self._source(x, reads) for x in value)}]"
        if not isinstance(value, Tensor):
            return self._from_outside(value)
        if value not in self.names:
            self.names[value] = self._from_outside(value)
        reads.add(self.names[value])
        return self.names[value]

    def _from_outside(self, value: Any) -> str:
        name = f"outside{len(self.outside)}"
        self.outside[name] = value
        return name

    def _made(self, value: Any, place: int) -> str:
        if not isinstance(value, Tensor) or value in self.names:
            return "_"
        self.names[value] = name = f"made{len(self.calls)}_{place}"
        return name

    def replay(self) -> Step:
        """Function of the inputs; without what nothing reads, and freeing as it goes."""
        lines: list[str] = []
        needed: set[str] = set()
        for call in reversed(self.calls):
            if call.writes or not needed.isdisjoint(call.makes):
                if unneeded := call.reads - needed - self.outside.keys():
                    lines.append(f"del {', '.join(sorted(unneeded))}")
                lines.append(call.line(needed))
                needed |= call.reads
        lines.append(f"def replay({', '.join(self.inputs)}):")
        source = "\n    ".join(reversed(lines))
        namespace = dict(self.outside)
        exec(compile(source, "<recorded step>", "exec"), namespace)
        return torch.inference_mode()(namespace["replay"])


def _binding(function: Any) -> Any:
    """What torch itself calls for an operator, in half a microsecond less."""
    name = function._schema.name.removeprefix("aten::")
    found = getattr(torch, name, getattr(Tensor, name, None))
    is_compiled = isinstance(found, (BuiltinFunctionType, MethodDescriptorType))
    return found if is_compiled else function._op


def capture_cuda_graph(
    step: Step, inputs: Sequence[Tensor], *, generators: Sequence[torch.Generator]
) -> Step:
    """Record the kernels that a step launches over copies of its inputs."""
    graph: Any = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    kept = [x.clone() for x in inputs]
    # Other threads may train on the same GPU meanwhile. Nothing runs before the replay.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step(*kept)

    def replay(*inputs: Tensor) -> None:
        for old, x in zip(kept, inputs, strict=True):
            old.copy_(x)
        graph.replay()

    replay(*inputs)
    return replay
