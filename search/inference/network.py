"""A network applied to any number of samples, a batch at a time; where they lie is elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aesearch.artifacts import model_file
from aesearch.models.autoencoder import Autoencoder
from aesearch.models.runtime import exact_kernels, pick_device
from aesearch.studies.errors import AesearchError

# Values of one batch of images, at most: a few dozen megabytes of activations.
_BATCH_VALUES = 1 << 20
_LARGEST_BATCH = 1024


class ArgumentError(AesearchError, ValueError):
    """An argument of a function for the trained model that cannot be meant."""


def the_model(model: Autoencoder | str | Path) -> Autoencoder:
    """Give a model that is one already, or load it from its file.

    Raises
    ------
    ArgumentError
        Neither a model nor a path.
    ModelFileError
        The file is missing, damaged, or was not written by aesearch.
    """
    if isinstance(model, Autoencoder):
        return model
    if isinstance(model, str | Path):
        return model_file.load(model)
    raise ArgumentError(
        f"model must be an Autoencoder or the path of one, got {type(model).__name__}; "
        "aesearch.load(path) gives one"
    )


def default_batch_size(image_shape: tuple[int, int, int]) -> int:
    """Samples that go through a network at once: fewer of larger images."""
    return max(1, min(_LARGEST_BATCH, _BATCH_VALUES // prod(image_shape)))


def check_batch_size(batch_size: int | None, image_shape: tuple[int, int, int]) -> int:
    """Give the batch size, the default for None; raises ArgumentError below 1."""
    if batch_size is None:
        return default_batch_size(image_shape)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer):
        raise ArgumentError(f"batch_size must be a whole number >= 1, got {batch_size!r}")
    if batch_size < 1:
        raise ArgumentError(f"batch_size must be >= 1, got {batch_size!r}")
    return int(batch_size)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Flush denormal numbers to zero, as in training, and leave the process as it was.

    A trained network is full of them; on a CPU each costs a hundred ordinary operations.
    """
    # torch tells neither thread nor process state: a denormal that survives shows it.
    smallest = np.array(5e-324)
    was_flushed = bool(smallest + 0.0 == 0.0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushed)


@contextmanager
def ready(
    model: Autoencoder, device: str | torch.device | None
) -> Iterator[Callable[[np.ndarray], Tensor]]:
    """Put a model into evaluation mode, on a device, and back to what it was.

    Parameters
    ----------
    device : str, torch.device or None
        ``auto``, ``cpu``, ``cuda``; None leaves the model where it is.

    Yields
    ------
    callable
        Turns a batch into a tensor of the model's device and type.

    Raises
    ------
    ArgumentError
        A device that is not here.
    """
    home = next(model.parameters())
    try:
        target = home.device if device is None else torch.device(pick_device(str(device)))
    except ValueError as error:
        raise ArgumentError(str(error)) from error
    before, was_training = home.device, model.training

    def tensor(batch: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(batch)).to(target, home.dtype)

    try:
        model.to(target).eval()
        with torch.inference_mode(), exact_kernels():
            yield tensor
    finally:
        model.to(before).train(was_training)


def batches(n_samples: int, size: int) -> Iterator[slice]:
    """Cut the sample axis into ranges of ``size``; the last one holds the rest."""
    for start in range(0, n_samples, size):
        yield slice(start, min(start + size, n_samples))


def array(tensor: Tensor) -> np.ndarray:
    """Bring a result into NumPy; types that NumPy lacks become float32."""
    values = tensor.detach().cpu()
    return (values if values.dtype in (torch.float32, torch.float64) else values.float()).numpy()
