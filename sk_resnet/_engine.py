"""What makes steps fast without changing them: precision, compilation, CUDA graphs."""

import functools
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Compilation took 46 s on a Zen 3 core and saved 8 to 20 % of a step of WRN-16-2, whose
# convolutions ran at about 40 GFLOP/s a thread.
COMPILE_SECONDS = 60.0
COMPILE_SAVING = 0.1
FLOPS_PER_THREAD = 4e10


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether convolutions gain from bfloat16 there."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and cpu_has_bfloat16() and _bfloat16_wins()


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16: AVX512-BF16 or AMX."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


@functools.cache
def _bfloat16_wins() -> bool:
    # Features alone do not tell: emulators and old builds have them and are slower.
    layer = nn.Conv2d(64, 64, 3, padding=1, bias=False, device="meta").to_empty(
        device="cpu"
    )
    nn.init.constant_(layer.weight, 0.01)
    x = torch.ones(16, 64, 28, 28).contiguous(memory_format=torch.channels_last)

    def seconds(bfloat16: bool) -> float:
        times = []
        for _ in range(4):
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                layer(x).float().sum().backward()
            times.append(time.perf_counter() - started)
        return min(times)

    return seconds(True) < 0.8 * seconds(False)


def pays_to_compile(n_samples: int, multiply_adds: int, device: torch.device) -> bool:
    """Whether compilation is predicted to save more than it costs.

    A prediction from counts, not from measured seconds, so that one `random_state` gives
    one result. A sample costs three passes of two operations a multiply-add.
    """
    if device.type != "cpu":
        return False
    flops = 6.0 * multiply_adds * n_samples
    seconds = flops / (FLOPS_PER_THREAD * torch.get_num_threads())
    return seconds * COMPILE_SAVING > COMPILE_SECONDS


def compiled(
    forward: Callable[[Tensor], Tensor], batch_size: int
) -> Callable[[Tensor], Tensor]:
    """Forward pass that is compiled for full batches; the tail would compile anew."""
    fast = torch.compile(forward, dynamic=False)
    failed = False

    def call(x: Tensor) -> Tensor:
        nonlocal failed
        if failed or len(x) != batch_size:
            return forward(x)
        try:
            return fast(x)
        except torch._dynamo.exc.TorchDynamoException as error:
            failed = True
            reason = str(error).partition("\n")[0]
            warnings.warn(
                f"torch.compile failed ({reason}): training goes on without it. Set "
                "compile=False, or install a C++ compiler.",
                UserWarning,
                stacklevel=2,
            )
            return forward(x)

    return call


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Treat denormal numbers as zero in this thread: they take many times longer."""
    # There is no getter; arithmetic tells.
    earlier = bool((torch.full((1,), 1e-40) * 1.0 == 0).item())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(earlier)


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Queue of this thread alone on a GPU, so that fits in threads run side by side."""
    if device.type != "cuda":
        yield
        return
    stream, outer = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(outer)
    with torch.cuda.stream(stream):
        yield
    outer.wait_stream(stream)


def world() -> tuple[int, int]:
    """Rank of this process and number of processes that train one network together."""
    group = torch.distributed
    if group.is_available() and group.is_initialized():
        return group.get_rank(), group.get_world_size()
    return 0, 1


def add_up(values: Tensor) -> None:
    """Sum over the processes, in place."""
    if world()[1] > 1:
        torch.distributed.all_reduce(values)


def share_buffers(module: nn.Module) -> None:
    """Give all processes the running statistics of the first one."""
    if world()[1] > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)


class CapturedStep:
    """A step whose launches are recorded once, then replayed for batches of one size.

    Narrow networks are limited by the launch of their kernels. The first `warmup` steps
    run as they are, since optimizers create their state in the first one; then the step
    is captured over copies of its inputs. Batches of another size, such as the last one
    of an epoch, always run as they are.
    """

    def __init__(
        self,
        step: Callable[..., None],
        batch_size: int,
        generators: Sequence[torch.Generator] = (),
        *,
        capture: Callable[..., Callable[[], None]] | None = None,
        warmup: int = 3,
    ) -> None:
        self.step, self.batch_size, self.generators = step, batch_size, generators
        self.capture = capture or capture_cuda_graph
        self.warmup = warmup
        self._replay: Callable[[], None] | None = None

    def __call__(self, *inputs: Tensor) -> None:
        """Do the step for these inputs."""
        if len(inputs[0]) != self.batch_size or self.warmup > 0:
            self.warmup -= len(inputs[0]) == self.batch_size
            self.step(*inputs)
            return
        if self._replay is None:
            self._inputs = [x.clone() for x in inputs]
            self._replay = self.capture(lambda: self.step(*self._inputs), self.generators)
        for kept, x in zip(self._inputs, inputs, strict=True):
            kept.copy_(x)
        self._replay()


def capture_cuda_graph(
    step: Callable[[], None], generators: Sequence[torch.Generator]
) -> Callable[[], None]:
    """Record the kernels that `step` launches; nothing runs before the replay."""
    graph: Any = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    # Other threads may train on the same GPU meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay
