"""Steps that are recorded once and replayed: operations on a CPU, kernels on a GPU."""

from collections.abc import Callable, Sequence
from functools import partial
from types import BuiltinFunctionType, MethodDescriptorType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sk_resnet._compat_torch import (
    READS_A_VALUE,
    TorchDispatchMode,
    WeakIdKeyDictionary,
    has_hooks,
    is_mutable,
    kernel_of,
    qualified_name,
)

Step = Callable[..., None]
# Records a step while it is done for these inputs, and returns it for others.
Record = Callable[[Step, Sequence[Tensor]], Step]

# Recording takes as long as some ten steps, which twice as many replays bring back.
CPU_WARMUP, FEWEST_STEPS = 1, 24
# As torch recommends; libraries choose their kernels meanwhile.
CUDA_WARMUP = 3
# Modules of layers that do nothing but operations of torch.
OUR_LAYERS = ("torch.nn.", "sk_resnet.")


class RecordedStep:
    """A step that is recorded once, then replayed for inputs of the same layout.

    Small networks are limited by what surrounds the arithmetic: Python, autograd, launches
    of kernels. The first `warmup` steps run as they are, since optimizers create their
    state in the first one; so do inputs that are not laid out as the first ones were, such
    as the last batch of an epoch.
    """

    def __init__(self, step: Step, record: Record, warmup: int) -> None:
        self.step, self.record = step, record
        self._n_left = warmup
        self._layout: list[Any] | None = None
        self._replay: Step | None = None

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
        else:
            self._replay = self.record(self.step, inputs)


def is_recordable(module: nn.Module) -> bool:
    """Whether the layers run no Python of users, which a record would not repeat."""
    return all(
        type(layer).__module__.startswith(OUR_LAYERS)
        and "forward" not in vars(layer)
        and not has_hooks(layer)
        for layer in module.modules()
    )


def recorded(
    step: Step,
    groups: list[dict[str, Any]],
    *,
    device: torch.device,
    n_steps: int,
    generators: Sequence[torch.Generator],
) -> Step:
    """Step that records itself, where that pays for this many steps.

    `groups` are those of its optimizers, whose rates may change from step to step.
    """
    if device.type == "cuda":
        record: Record = partial(record_cuda_graph, generators=generators)
        return RecordedStep(step, record, CUDA_WARMUP)
    if n_steps < FEWEST_STEPS:
        return step
    record = partial(record_at_any_rate, groups=groups)
    return RecordedStep(step, record, CPU_WARMUP)


def record_at_any_rate(
    step: Step, inputs: Sequence[Tensor], *, groups: list[dict[str, Any]]
) -> Step:
    """Record operations, and read the learning rates anew in every replay.

    Rates are tensors only while recording: callbacks that halve or log them expect numbers.
    """
    numbers = [group["lr"] for group in groups]
    # In 64 bits, as Python would pass them.
    tensors = [torch.empty((), dtype=torch.float64).fill_(number) for number in numbers]
    for group, tensor in zip(groups, tensors, strict=True):
        group["lr"] = tensor
    try:
        replay = record_operations(step, inputs)
    finally:
        for group, number in zip(groups, numbers, strict=True):
            group["lr"] = number
    if replay is step:
        return step

    def replay_at_present_rates(*inputs: Tensor) -> None:
        for group, tensor in zip(groups, tensors, strict=True):
            tensor.fill_(group["lr"])
        replay(*inputs)

    return replay_at_present_rates


def record_operations(step: Step, inputs: Sequence[Tensor]) -> Step:
    """Record the operations of torch below autograd, forward, backward and update.

    The replay makes the same calls in the same order, so that its results are the same to
    the last bit.
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
            writes = is_mutable(function)
            self.calls.append(_Call(source, makes, reads, several, writes))
        if function is torch.ops.aten.t.default:
            self.transposed[self.names[found]] = self.names[args[0]]
        is_value = function is READS_A_VALUE
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
    """What torch itself calls for an operator, without a detour through Python."""
    name = qualified_name(function).removeprefix("aten::")
    found = getattr(torch, name, getattr(Tensor, name, None))
    is_compiled = isinstance(found, (BuiltinFunctionType, MethodDescriptorType))
    return found if is_compiled else kernel_of(function)


def record_cuda_graph(
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
