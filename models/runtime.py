"""How a training process is set up: threads, denormals, device; no training here."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from typing import Any

import torch

# glibc's mallopt parameters. It refuses to take more than 32 MiB from its own memory.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_OWN_BYTES = 1 << 25
_KEPT_BYTES = 1 << 30


def prepare_process(threads: int) -> None:
    """Set what every training process sets, once, before its first tensor.

    Denormal numbers are flushed to zero: a trained network is full of them, and on a CPU
    each costs a hundred ordinary multiplications. Freed memory is kept for the next
    minibatch instead of being given back to the system, which would clear it page by page
    for every tensor again (a quarter of a training step).

    Parameters
    ----------
    threads : int
        Threads of one operation; >= 1. Results are bitwise equal for equal counts only.
    """
    if threads < 1:
        raise ValueError(f"threads must be >= 1, got {threads!r}")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    _use_exact_kernels()
    if sys.platform == "linux":
        # Another C library has no mallopt, or ignores it: then it is only slower.
        with contextlib.suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_THRESHOLD, _LARGEST_OWN_BYTES)
            mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


@contextlib.contextmanager
def exact_kernels() -> Iterator[None]:
    """The same bits again on a GPU, and float32 that is no tf32; then as it was before."""
    cudnn: Any = torch.backends.cudnn
    deterministic, benchmark = cudnn.deterministic, cudnn.benchmark
    mkldnn: Any = torch.backends.mkldnn
    each: list[Any] = [cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul, mkldnn.matmul]
    precisions = [operator.fp32_precision for operator in each]
    for_all = products = None
    # An error where operators differ: torch has an older setting for all, and a newer for each.
    with contextlib.suppress(RuntimeError):
        for_all = cudnn.allow_tf32
    with contextlib.suppress(RuntimeError):
        products = torch.get_float32_matmul_precision()
    _use_exact_kernels()
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = deterministic, benchmark
        if for_all is not None:
            cudnn.allow_tf32 = for_all
        if products is not None:
            torch.set_float32_matmul_precision(products)
        for operator, precision in zip(each, precisions, strict=True):
            operator.fp32_precision = precision


def _use_exact_kernels() -> None:
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    # The older setting sets the newer ones, too, and torch itself still asks for it.
    torch.backends.cudnn.allow_tf32 = False
    # Of matrix products; a container may have set another by a variable of the environment.
    torch.set_float32_matmul_precision("highest")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    # On a CPU torch has no type of its own for it, and libraries of a GPU have their own words.
    words = (
        "DefaultCPUAllocator",
        "CUDA error: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "MPS backend out of memory",
    )
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def is_broken_device(error: BaseException) -> bool:
    """Whether a GPU failed in a way that stays with the process: an illegal access, ECC, a launch.

    Memory that ran out is none.
    """
    words = ("CUDA error", "CUBLAS_STATUS", "cuDNN error")
    broken = isinstance(error, torch.AcceleratorError) or any(w in str(error) for w in words)
    return isinstance(error, RuntimeError) and broken and not is_out_of_memory(error)


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers by itself: AVX512-BF16 or AMX."""
    # Not every version of torch tells.
    found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def present_kinds() -> tuple[str, ...]:
    """Kinds of device that are here, GPUs before the CPU."""
    gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return (*(kind for kind, here in gpus.items() if here), "cpu")


def pick_device(name: str) -> str:
    """The device for a name.

    Parameters
    ----------
    name : str
        ``"auto"`` (CUDA where there is one, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``
        or ``"mps"`` (Apple's GPUs).

    Returns
    -------
    str
        Name that torch understands.

    Raises
    ------
    ValueError
        For another name, or a device that is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if name not in ("cpu", "mps") and (kind != "cuda" or (index and not index.isdigit())):
        raise ValueError(f"device must be auto, cpu, cuda, cuda:<number> or mps, got {name!r}")
    if name == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device must be present, got 'mps' without Apple's GPU; use auto or cpu")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device must be present, got {name!r} with {torch.cuda.device_count()} CUDA "
            "devices here; use auto or cpu"
        )
    return name
