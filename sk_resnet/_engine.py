"""What makes steps fast: precision, threads, memory, compilation."""

import ctypes
import functools
import math
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Compilation takes 34 s for WRN-16-4 on two Zen 4 cores, up to a minute elsewhere, and
# saves 3 % of its recorded steps in bfloat16. Convolutions of WRN-16-2 ran at 40 GFLOP/s a
# thread on Zen 3; in bfloat16 on Zen 4 it is 150.
COMPILE_SECONDS = 60.0
COMPILE_SAVING = 0.03
FLOPS_PER_THREAD, BFLOAT16_FLOPS_PER_THREAD = 4e10, 1.5e11
# Multiply-adds of a sample from which a network is large for a CPU. bfloat16 shortens its
# steps by a third and more (Zen 4, one thread: 1.4 times at 11 M, 1.9 at 31 M, but 1.2 at
# 2 M and 0.75 in tables; smaller networks keep float32, in which machines agree).
LARGE_MULTIPLY_ADDS = 10_000_000
# Fewer samples than a batch take the time of the next multiple of this there, not of a
# whole batch. This size throughout would cost up to a quarter (ResNet-20 in bfloat16).
FEW = 32
# Multiply-adds of a batch below which a second thread costs more than it computes (Zen 4:
# 0.7 times at 4 M, as fast at 40 M); on a busy machine it costs many times more.
ONE_THREAD_MULTIPLY_ADDS = 40_000_000


def pays_in_bfloat16(multiply_adds: int, device: torch.device) -> bool:
    """Whether a network with that much work for a sample trains faster in bfloat16."""
    if device.type == "cpu" and multiply_adds < LARGE_MULTIPLY_ADDS:
        return False
    return has_fast_bfloat16(device)


def prediction_size(
    n_samples: int, batch_size: int, multiply_adds: int, device: torch.device
) -> int:
    """Samples in each pass of prediction; of small networks always the same."""
    if device.type != "cpu" or multiply_adds < LARGE_MULTIPLY_ADDS:
        return batch_size
    return min(FEW * max(1, math.ceil(n_samples / FEW)), batch_size)


def is_small_work(multiply_adds: int, device: torch.device) -> bool:
    """Whether a batch with that much work is computed faster by one thread than by two."""
    return device.type == "cpu" and multiply_adds < ONE_THREAD_MULTIPLY_ADDS


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
@torch.inference_mode(False)
def _bfloat16_wins() -> bool:
    # Features alone do not tell: emulators and old builds have them and are many times
    # slower. Where it is fast it takes half the time, so that a busy machine, which
    # disturbs both, does not change the answer from one process to the next.
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

    return seconds(True) < 1.5 * seconds(False)


def pays_to_compile(
    n_samples: int, multiply_adds: int, device: torch.device, *, bfloat16: bool
) -> bool:
    """Whether compilation is predicted to save more than it costs.

    A prediction from counts, not from measured seconds, so that one `random_state` gives
    one result. A sample costs three passes of two operations a multiply-add.
    """
    if device.type != "cpu":
        return False
    flops = 6.0 * multiply_adds * n_samples
    rate = BFLOAT16_FLOPS_PER_THREAD if bfloat16 else FLOPS_PER_THREAD
    seconds = flops / (rate * torch.get_num_threads())
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


_threads_lock = threading.Lock()
_threads_before, _fits_on_one_thread = 1, 0
_this_thread = threading.local()


@contextmanager
def one_thread(applies: bool) -> Iterator[None]:
    """Compute on this thread alone, and restore torch's number of threads afterwards.

    Fits in several threads share what was before the first of them: the number that torch
    tells a new thread is the one that was set last. A fit in a callback of another leaves
    it alone.
    """
    global _threads_before, _fits_on_one_thread
    if getattr(_this_thread, "is_alone", False):
        yield
        return
    if not applies:
        with _threads_lock:
            if _fits_on_one_thread:
                torch.set_num_threads(_threads_before)
        yield
        return
    _this_thread.is_alone = True
    with _threads_lock:
        if _fits_on_one_thread == 0:
            _threads_before = torch.get_num_threads()
        _fits_on_one_thread += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        _this_thread.is_alone = False
        with _threads_lock:
            _fits_on_one_thread -= 1
            torch.set_num_threads(_threads_before)


# Parameters of glibc's mallopt, and where its own adjustments, which end with the first
# call, would lead them.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
GLIBC_DEFAULTS = {TRIM_THRESHOLD: 2**26, MMAP_THRESHOLD: 2**25, MMAP_MAX: 2**16}

_memory_lock = threading.Lock()
_keepers_of_memory = 0


@functools.cache
def _glibc() -> Any:
    tuned_by_the_user = any(
        name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ
    )
    if sys.platform != "linux" or tuned_by_the_user:
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


@contextmanager
def kept_memory(applies: bool) -> Iterator[None]:
    """Keep freed memory in the process, on Linux, and give it back at the end.

    Activations come and go with every batch; glibc returns their pages to the system, which
    zeroes each one before it comes back. Otherwise a step of WRN-16-4 took an eighth more
    on two Zen 4 cores.
    """
    global _keepers_of_memory
    libc = _glibc() if applies else None
    if libc is None:
        yield
        return
    with _memory_lock:
        _keepers_of_memory += 1
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, -1)  # or the top of the heap goes back at once
    try:
        yield
    finally:
        with _memory_lock:
            _keepers_of_memory -= 1
            if _keepers_of_memory == 0:
                for parameter, value in GLIBC_DEFAULTS.items():
                    libc.mallopt(parameter, value)
                libc.malloc_trim(0)


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Queue of this thread alone on a GPU, so that fits in threads run side by side."""
    if device.type != "cuda":
        yield
        return
    stream, outer = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(outer)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
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
