"""How many workers a machine has room for, and which GPU each gets; ``processes`` keeps them."""

import os
from collections.abc import Sequence

import torch

from aesearch.studies.errors import AesearchError
from aesearch.studies.spec.resolved import ResolvedSpec


def asked_workers(asked: str, devices: Sequence[str]) -> int:
    """How many worker processes a machine gets.

    Parameters
    ----------
    asked : str
        A number >= 1, or ``auto``: one per GPU where GPUs are served, else one per core.
    devices : sequence of str
        What the workers serve: ``cuda``, ``cpu`` or both.

    Raises
    ------
    AesearchError
        Anything else.
    """
    if asked == "auto":
        return places(cuda="cuda" in devices)
    if not asked.isdecimal() or int(asked) < 1:
        raise AesearchError(f"workers must be a number >= 1 or auto, got {asked!r}")
    return int(asked)


def default_workers(spec: ResolvedSpec, n_generations: int) -> int:
    """One worker per GPU, or per core of a CPU; never more than there is work for."""
    device = spec.compute.device
    here = 1 if device == "mps" else places(cuda=device == "cuda")
    return max(1, min(here, useful_workers(spec, n_generations)))


def useful_workers(spec: ResolvedSpec, n_generations: int) -> int:
    """How many workers a study ever has work for at once."""
    return max(min(spec.search.lookahead, n_generations), spec.retrain.seeds)


def places(*, cuda: bool) -> int:
    """How many workers this machine has room for: one per GPU or per core, one at least."""
    if cuda:
        return max(1, torch.cuda.device_count())
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def gpu_of(index: int) -> dict[str, str]:
    """Environment that shows the worker of a number one GPU only; GPUs take turns.

    Returns
    -------
    dict
        Empty where there is no GPU.
    """
    count = torch.cuda.device_count()
    if count == 0:
        return {}
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",")[:count] if named else [str(number) for number in range(count)]
    return {"CUDA_VISIBLE_DEVICES": names[index % len(names)]}
