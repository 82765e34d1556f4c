"""Errors of a configuration's networks on images that they never saw, fold by fold."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from aesearch.artifacts.model_file import weights_sha256
from aesearch.data.study_data import Problem
from aesearch.evaluation.metrics import image_errors
from aesearch.models.autoencoder import Autoencoder
from aesearch.models.runtime import is_out_of_memory
from aesearch.models.shortcut import is_pca
from aesearch.models.training.device_images import DeviceImages
from aesearch.seeds import derive_seed
from aesearch.studies.results.calibration import (
    ENOUGH_HELD_OUT,
    Calibration,
    calibration_of,
    scaled_to,
)
from aesearch.studies.spec.study import Configuration
from aesearch.training.members import build_member, build_population, early_stopping
from aesearch.training.memory import images_for

log = logging.getLogger("aesearch.worker")


def calibrate(
    model: Autoencoder,
    problem: Problem,
    configuration: Configuration,
    check: Callable[[], None] = lambda: None,
    out_of_fold: Callable[[], np.ndarray | None] | None = None,
) -> Calibration | None:
    """Measure a delivered network on images that it did not train on.

    Those that only stopped its training are enough where they are many. Where they are few, one
    network per fold is trained as the delivered one was, and measured on what its fold holds out.
    A model that is PCA saw all training images: PCA of those that are not held out stands for it.

    Parameters
    ----------
    model : Autoencoder
        On the CPU, in evaluation mode.
    configuration : Configuration
        That the model was trained with.
    check : callable
        Called every few seconds; may raise to stop.
    out_of_fold : callable, optional
        Gives what ``out_of_fold_errors`` does, where somebody has it already.

    Returns
    -------
    Calibration or None
        None where a network of a fold diverges or memory runs out: the model is as good without.
    """
    train, held_out = problem.holdout_indices()
    unseeing = unseeing_of(model, problem, configuration, train, held_out)
    # Scores are of images as the model sees them: of a denoiser's, the noisy ones.
    delivered = image_errors(unseeing, problem.inputs[held_out], check)
    about: dict[str, Any] = {
        "weights_sha256": weights_sha256(model),
        "seed": derive_seed(problem.spec.seed, "calibration"),
    }
    if not needs_networks(problem):
        return calibration_of("held-out", delivered, held_out, problem.inputs, **about)
    if out_of_fold is None:
        errors = out_of_fold_errors(problem, configuration, check)
    else:
        errors = out_of_fold()
    if errors is None:
        return None
    scaled = scaled_to(errors, delivered, errors[held_out])
    return calibration_of("out-of-fold", scaled, np.arange(len(errors)), problem.inputs, **about)


def needs_networks(problem: Problem) -> bool:
    """Whether too few images stop the training for p-values, so that folds are trained for them."""
    _, held_out = problem.holdout_indices()
    return len(held_out) < ENOUGH_HELD_OUT


def unseeing_of(
    model: Autoencoder,
    problem: Problem,
    configuration: Configuration,
    train: np.ndarray,
    held_out: np.ndarray,
) -> Autoencoder:
    """Give what stands for a delivered model on the images that its training held out.

    The model itself; where it is PCA of all training images, an untrained network of its
    configuration: PCA of ``train`` alone.
    """
    if not is_pca(model.encoder, model.decoder):
        return model
    images = images_for(problem, "cpu")
    member = build_member(configuration, problem.spec.seed, train, held_out)
    return build_population(problem, images, [member], configuration, epochs=1).extract(0)


def out_of_fold_errors(
    problem: Problem,
    configuration: Configuration,
    check: Callable[[], None] = lambda: None,
    images: DeviceImages | None = None,
) -> np.ndarray | None:
    """Mean squared error of each image by a network that was trained without its fold.

    Parameters
    ----------
    images : DeviceImages, optional
        Those of ``problem``, where they are on a device already.

    Returns
    -------
    ndarray of float64, (sample,), or None
        None where a network diverges or memory runs out, which is logged.
    """
    errors = np.empty(len(problem.images))
    try:
        for fold, network in fold_networks(problem, configuration, check, images):
            _, held_out = problem.fold_indices(fold)
            errors[held_out] = image_errors(network, problem.inputs[held_out], check)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        log.warning("scores of new images get no p-values: %s", error)
        return None
    if not np.isfinite(errors).all():
        log.warning("scores of new images get no p-values: a network of a fold diverged")
        return None
    return errors


def fold_networks(
    problem: Problem,
    configuration: Configuration,
    check: Callable[[], None] = lambda: None,
    images: DeviceImages | None = None,
) -> Iterator[tuple[int, Autoencoder]]:
    """Train a network on the other folds than each, less an inner share that stops it early.

    As the delivered one is trained on all folds.

    Yields
    ------
    fold : int
        That the network did not see.
    network : Autoencoder
        On the CPU.
    """
    spec = problem.spec
    if images is None:
        on_gpu = spec.compute.device == "cuda" and torch.cuda.is_available()
        images = images_for(problem, "cuda" if on_gpu else "cpu")
    folds, max_epochs = range(spec.search.folds), spec.retrain.max_epochs
    for start in range(0, len(folds), spec.compute.population):
        part = folds[start : start + spec.compute.population]
        seeds = [derive_seed(spec.seed, "calibration", fold) for fold in part]
        members = [
            build_member(configuration, seed, *problem.delivery_indices(fold))
            for seed, fold in zip(seeds, part, strict=True)
        ]
        population = build_population(problem, images, members, configuration, epochs=max_epochs)
        stopping = early_stopping(spec, population)
        while population.epoch < max_epochs and "training" in population.status:
            check()
            stopping.update(population, population.run_epoch().validation)
        stopping.restore(population)
        for position, fold in enumerate(part):
            yield fold, population.extract(position)
