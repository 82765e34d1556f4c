"""Calls that a GPU repeats by itself, as CUDA graphs; what is in a call is no matter here.

A graph is a recording of the kernels that a call launched. Started again, it runs them on the same
memory without the host, which for small tensors takes longer to launch a kernel than the GPU
to run it. So a call may be recorded if it

- reads and writes only tensors that stay where they are, each memory it allocates itself aside,
- copies nothing between the host and the device, and asks the device for no number,
- takes what differs from one repetition to the next (which images, the learning rate, the
  step's number) from tensors on the device.

References
----------
PyTorch, "CUDA semantics", section "CUDA graphs": a call is run on a side stream before it is
recorded there; graphs that share a pool of memory never run at the same time, and nothing
that one leaves in the pool is read after another has run.
"""

import logging
import warnings
from collections.abc import Callable, Hashable
from functools import cache
from typing import Any

import torch

from aesearch.models.runtime import is_out_of_memory

log = logging.getLogger("aesearch.worker")


def can_capture(device: torch.device) -> bool:
    """Whether this kind of device repeats calls by itself."""
    return device.type == "cuda"


class Calls:
    """Calls of functions, each known by a key: repeated by the device where it can, else made.

    The first call under a key is made as ever, the second is recorded, and from then on the
    recording is started. Where a device refuses to record, calls are made as ever.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self._place = place_of(device) if can_capture(device) else None
        self._called: set[Hashable] = set()
        self._graphs: dict[Hashable, Any] = {}

    def __call__(self, key: Hashable, function: Callable[[], None]) -> None:
        """Call ``function``, or start what was recorded of it under ``key``."""
        if self._place is None:
            function()
        elif key in self._graphs:
            self._graphs[key].replay()
        elif key not in self._called:
            self._called.add(key)
            self._place.call(function)
        else:
            try:
                self._graphs[key] = self._place.record(function)
            except RuntimeError as error:
                # What ends a recording may hide what broke it.
                broken = error.__context__ if isinstance(error.__context__, RuntimeError) else error
                if is_out_of_memory(broken):
                    raise broken from None
                log.warning("the GPU records no steps (%s): they are launched one by one", broken)
                self._place, self._graphs = None, {}
                function()
            else:
                self._graphs[key].replay()


class Place:
    """Where calls of a GPU are recorded: a side stream, and memory that all recordings share.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):
            self._stream = torch.cuda.Stream()
            self._pool = torch.cuda.graph_pool_handle()
        # A pool whose last graph is gone may not be used again: an empty one stays.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[Gg]raph is empty.*")
            self._kept = self.record(lambda: None)

    def call(self, function: Callable[[], None]) -> None:
        """Call on the side stream, between what was launched before and what comes after."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            function()
        current.wait_stream(self._stream)

    def record(self, function: Callable[[], None]) -> "torch.cuda.CUDAGraph":
        """Record a call that is not made."""
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self._device),
            # Other threads of the process may use the GPU meanwhile.
            torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ),
        ):
            function()
        return graph


@cache
def place_of(device: torch.device) -> Place:
    """The one place of a device: its recordings never run at the same time."""
    return Place(device)


def release_memory() -> None:
    """Give back what recordings and freed tensors have left with a GPU.

    Nothing that was recorded may be in use any more.
    """
    place_of.cache_clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
