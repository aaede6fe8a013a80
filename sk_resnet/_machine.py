"""The machine: device, precision, threads, memory, and one context for its settings."""

import ctypes
import functools
import math
import multiprocessing
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sk_resnet._compat_torch import is_compilation_error

# Multiply-adds of a sample from which a network is large for a CPU. bfloat16 then pays,
# and prediction in batches of one size does not; smaller networks keep float32, in which
# machines agree.
LARGE_MULTIPLY_ADDS = 10_000_000
# On a CPU, samples that are fewer than a batch are padded to the next multiple of this.
# From 16 samples on, torch, oneDNN and MKL compute a sample to the same bits in batches of
# all sizes; fewer they give to other kernels.
FEW = 16
# Multiply-adds of a batch below which a second thread costs more than it computes; on a
# busy machine it costs many times more.
ONE_THREAD_MULTIPLY_ADDS = 40_000_000


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


def pays_in_bfloat16(multiply_adds: int, device: torch.device) -> bool:
    """Whether a network with that much work for a sample trains faster in bfloat16."""
    if device.type == "cpu" and multiply_adds < LARGE_MULTIPLY_ADDS:
        return False
    return has_fast_bfloat16(device)


def prediction_size(
    n_samples: int,
    batch_size: int,
    multiply_adds: int,
    device: torch.device,
    *,
    fewest: int | None = None,
) -> int:
    """Samples in each pass of prediction; of small networks a whole batch, or few.

    `fewest` is what `fewest_alike` found for the network.
    """
    is_small = n_samples > FEW and multiply_adds < LARGE_MULTIPLY_ADDS
    if device.type != "cpu" or is_small:
        return batch_size
    if fewest is not None and n_samples <= fewest:
        return fewest
    return min(FEW * max(1, math.ceil(n_samples / FEW)), batch_size)


def fewest_alike(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Samples in a pass that get the same bits as in a pass of this shape.

    Tried with random samples, as the kernels of torch, oneDNN and MKL do not tell.
    """
    n = shape[0]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    outputs = network(x.clone())  # a layer may work in place
    for few in (size for size in (2, 4, 8) if size < n):
        starts = range(0, n - few + 1, few)
        found = [network(x[start : start + few].clone()) for start in starts]
        if all(map(torch.equal, found, outputs.split(few, dim=-2))):
            return few
    return n


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
        except RuntimeError as error:
            if not is_compilation_error(error):
                raise
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
        _set_threads(1)
    try:
        yield
    finally:
        _this_thread.is_alone = False
        with _threads_lock:
            _fits_on_one_thread -= 1
            _set_threads(_threads_before)


def _set_threads(n: int) -> None:
    # To set what is there already makes the next convolution slower.
    if torch.get_num_threads() != n:
        torch.set_num_threads(n)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or a GPU, does not suffice."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and "not enough memory" in str(error)
    )


@contextmanager
def out_of_memory_named(batch_size: int) -> Iterator[None]:
    """Say which batch size to take where the memory of a device does not suffice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        smaller = max(2, batch_size // 2)
        raise MemoryError(
            f"A step of {batch_size} samples does not fit into memory: set "
            f"batch_size={smaller} and lr to half of what it is, or lower width, depth or "
            "n_estimators."
        ) from error


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
    zeroes each one before it comes back.
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


def _forget_threads() -> None:
    """Compute on one thread in a process that was forked off.

    The threads that torch had stay behind in the other process, and torch would wait for
    them for ever; so would fits for a lock that one of them held.
    """
    global _threads_lock, _memory_lock, _fits_on_one_thread, _keepers_of_memory
    _threads_lock, _memory_lock = threading.Lock(), threading.Lock()
    _fits_on_one_thread = _keepers_of_memory = 0
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


@contextmanager
def training_settings(
    device: torch.device, *, on_one_thread: bool, keep_memory: bool
) -> Iterator[None]:
    """Settings of the machine for one training, put back at its end."""
    with ExitStack() as settings:
        settings.enter_context(flushed_denormals())
        settings.enter_context(one_thread(on_one_thread))
        settings.enter_context(kept_memory(keep_memory))
        settings.enter_context(own_stream(device))
        yield
