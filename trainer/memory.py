"""Memory of a training process: how much it took, when it ran out, and what a CPU should keep and what give back."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys

import torch

HOLES = 2e9  # bytes
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


class _MallInfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc 2.33 and later."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def give_back() -> None:
    """Make glibc return the freed blocks of its heap to the system, once they come to two gigabytes.

    The chunks of a step leave holes there that the next chunk does not fill: eight chunks of SmolLM2 grew the
    process from 1.4 to 3.4 GB while 0.4 GB of tensors were alive. But what is given back must be asked for
    again, page by page: doing so before every chunk cost a tenth of the time, and mapping every large block
    (M_MMAP_THRESHOLD) a third. Does nothing where libc is another one.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # musl, an older glibc
            libc = ctypes.CDLL("libc.so.6")
            libc.mallinfo2.restype = _MallInfo
            if libc.mallinfo2().fordblks > HOLES:
                libc.malloc_trim(0)


def hold_memory() -> None:
    """Make glibc keep what a step frees for the next one. By default it returns every large block to the system, and
    the next step must ask for it again, page by page: half of the time where activations are kept. Does nothing where
    libc is another one."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(M_TRIM_THRESHOLD, -1)  # never
            libc.mallopt(M_MMAP_MAX, 0)


def hold_kernels() -> None:
    """Make oneDNN keep the code that it generates for a product of every shape: a step has hundreds of shapes, the next
    one mostly the same, and by default the last 1,024 are kept. To be called before the first product."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")


def peak_memory_gb() -> float:
    """Of this process so far: on a GPU what PyTorch allocated there, else the resident set."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
