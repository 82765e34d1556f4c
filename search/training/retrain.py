"""Retraining a configuration from several seeds with early stopping; no store, no files."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load, save

from aesearch.artifacts import model_file
from aesearch.data.study_data import Problem
from aesearch.models.autoencoder import Autoencoder
from aesearch.models.runtime import is_out_of_memory
from aesearch.models.training.capture import release_memory
from aesearch.models.training.device_images import DeviceImages
from aesearch.models.training.early_stopping import EarlyStopping
from aesearch.models.training.population import Population
from aesearch.seeds import derive_seed
from aesearch.studies.errors import RunFailedError
from aesearch.studies.spec.study import Configuration
from aesearch.training.members import build_member, build_population, early_stopping

log = logging.getLogger("aesearch.worker")

_CURVE = "curve"


@dataclass(frozen=True)
class RetrainedSeed:
    """One network, retrained to its best epoch.

    Attributes
    ----------
    epochs : int
        Epochs trained; ``best_epoch`` (from 1) is the one whose weights are kept; 0 where none
        is clearly better than PCA, which then is what is kept, of all the training images.
    validation_loss : float
        Of that epoch, on the held-out part of the training set; MSE per pixel.
    curve : list of (train, validation, accuracy)
        Losses of every epoch, and the binary accuracy on the held-out part.
    """

    seed_index: int
    seed: int
    epochs: int
    best_epoch: int
    validation_loss: float
    model: Autoencoder
    curve: list[tuple[float, float, float]]

    @property
    def weights_sha256(self) -> str:
        """Fingerprint of the weights."""
        return model_file.weights_sha256(self.model)


def retrain(
    problem: Problem,
    images: DeviceImages,
    configuration: Configuration,
    seed_indices: Sequence[int],
    *,
    on_epoch: Callable[[int, int], None],
    restore: Callable[[], bytes | None] = lambda: None,
    save: Callable[[Callable[[], bytes]], None] = lambda _make: None,
) -> list[RetrainedSeed]:
    """Train a configuration from several seeds at once until each stops getting better.

    Where memory runs out, the seeds half by half, without checkpoints. What a seed gives depends
    on its company in the last bits only.

    Parameters
    ----------
    images : DeviceImages
        Those of ``problem``; the held-out part of them stops the training.
    seed_indices : sequence of int
        Which of the study's retraining seeds.
    on_epoch : callable(epoch, seeds still training)
        May raise to stop.
    restore : callable
        Gives the last checkpoint, or None.
    save : callable(make)
        Offered a checkpoint after each epoch; calls ``make()`` when it wants one.

    Returns
    -------
    list of RetrainedSeed
        With the weights of each seed's best epoch.
    """
    try:
        return _together(
            problem, images, configuration, seed_indices, on_epoch, restore=restore, save=save
        )
    except RuntimeError as error:
        if len(seed_indices) == 1 or not is_out_of_memory(error):
            raise
        log.warning("out of memory with %d seeds at once", len(seed_indices))
    # Only here does nothing hold on to the tensors of the attempt any more.
    release_memory()
    middle = len(seed_indices) // 2
    return [
        found
        for half in (seed_indices[:middle], seed_indices[middle:])
        for found in retrain(problem, images, configuration, half, on_epoch=on_epoch)
    ]


def _together(
    problem: Problem,
    images: DeviceImages,
    configuration: Configuration,
    seed_indices: Sequence[int],
    on_epoch: Callable[[int, int], None],
    *,
    restore: Callable[[], bytes | None],
    save: Callable[[Callable[[], bytes]], None],
) -> list[RetrainedSeed]:
    spec = problem.spec
    train, validation = problem.holdout_indices()
    max_epochs = spec.retrain.max_epochs
    seeds = [derive_seed(spec.seed, "retrain", index) for index in seed_indices]
    population = build_population(
        problem,
        images,
        [build_member(configuration, seed, train, validation) for seed in seeds],
        configuration,
        epochs=max_epochs,
    )
    stopping = early_stopping(spec, population)
    curve = np.full((max_epochs, 3, len(seeds)), np.nan)
    checkpoint = restore()
    if checkpoint is not None:
        _load_checkpoint(checkpoint, population, stopping, curve)

    def make() -> bytes:
        return _checkpoint(population, stopping, curve)

    while population.epoch < max_epochs and "training" in population.status:
        losses = population.run_epoch(binary_accuracy=True)
        points = (losses.train, losses.validation, losses.validation_accuracy)
        curve[population.epoch - 1] = torch.stack(points).numpy()
        stopping.update(population, losses.validation)
        on_epoch(population.epoch, population.status.count("training"))
        save(make)
    stopping.restore(population)
    if not np.isfinite(curve[0, 1]).all():
        raise RunFailedError(
            f"retraining must reach a finite loss with every seed, got seeds {list(seed_indices)} "
            "of which one diverged in its first epoch; choose a smaller learning rate"
        )
    return [
        RetrainedSeed(
            seed_index=index,
            seed=seeds[position],
            epochs=int(np.isfinite(curve[:, 1, position]).sum()),
            best_epoch=int(stopping.best_epoch[position]),
            validation_loss=float(stopping.best_loss[position]),
            model=population.extract(position),
            curve=[
                (float(row[0, position]), float(row[1, position]), float(row[2, position]))
                for row in curve[: population.epoch]
                if np.isfinite(row[1, position])
            ],
        )
        for position, index in enumerate(seed_indices)
    ]


def _checkpoint(population: Population, stopping: EarlyStopping, curve: np.ndarray) -> bytes:
    tensors = {f"population.{k}": v for k, v in population.state().items()}
    tensors |= {f"stopping.{k}": v for k, v in stopping.state().items()}
    tensors[_CURVE] = torch.from_numpy(curve)
    return save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})


def _load_checkpoint(
    data: bytes, population: Population, stopping: EarlyStopping, curve: np.ndarray
) -> None:
    tensors = load(data)
    kept = tensors.pop(_CURVE).numpy()
    curve[:, : kept.shape[1]] = kept  # an older checkpoint has no accuracies

    def part(prefix: str) -> dict[str, torch.Tensor]:
        found = {n: t for n, t in tensors.items() if n.startswith(prefix)}
        return {name.removeprefix(prefix): tensor for name, tensor in found.items()}

    population.load_state(part("population."))
    stopping.load_state(part("stopping."))
