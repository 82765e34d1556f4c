"""What a device's memory bounds: how many images stay on it, how many members train as one."""

import logging
from collections.abc import Iterable, Sequence
from math import prod

import torch

from aesearch.data.study_data import Problem
from aesearch.models.autoencoder import build_autoencoder
from aesearch.models.training.capture import can_capture
from aesearch.models.training.device_images import DeviceImages
from aesearch.models.training.memory import (
    MemberBytes,
    fitting_members,
    free_bytes,
    member_bytes,
)
from aesearch.models.training.population import evaluation_size
from aesearch.studies.spec.study import Configuration

log = logging.getLogger("aesearch.worker")

# Share of a device's free memory that images may take, the window for those that come and go
# included; the rest is for the populations.
IMAGE_SHARE = 0.5
# Of that, what the window takes, and how many bytes at most: the host keeps two of that size.
WINDOW_SHARE = 0.25
LARGEST_WINDOW = 2**30


def images_for(problem: Problem, device: str) -> DeviceImages:
    """Put the images of a study on a device: as many as it has room for.

    The others come to it as steps need them, which changes no number. On a CPU nothing is copied.
    """
    images = torch.from_numpy(problem.images)
    noisy = None if problem.noisy is None else torch.from_numpy(problem.noisy)
    free = free_bytes(torch.device(device))
    n_bytes = images.nbytes + (0 if noisy is None else noisy.nbytes)
    if free is None or n_bytes <= IMAGE_SHARE * free:
        return DeviceImages(images, device, noisy=noisy)
    n_places = int(IMAGE_SHARE * free * len(images) / n_bytes)
    largest = LARGEST_WINDOW * len(images) // n_bytes
    window = max(1, min(int(WINDOW_SHARE * n_places), largest))
    n_resident = max(0, n_places - window)
    log.info(
        "%d of %d images stay on the device, which has %d MB free; the others come as steps need "
        "them",
        n_resident,
        len(images),
        free // 10**6,
    )
    return DeviceImages(images, device, noisy=noisy, n_resident=n_resident, window=window)


def bounded_population(
    problem: Problem,
    images: DeviceImages,
    kinds: Iterable[Sequence[Configuration]],
    *,
    population: int,
    n_train: int,
    n_validation: int,
) -> int:
    """Bound a population by the memory that is free now; unbounded where nobody says.

    And by the window of images that do not all stay on the device.

    Parameters
    ----------
    kinds : iterable of sequences of Configuration
        One configuration for each member, those that can train together side by side.
    population : int
        Members that train as one batch, at most.
    n_train, n_validation : int
        Images of a member.
    """
    free = free_bytes(images.device)
    if free is None:
        return population
    members = [
        each
        for kind in kinds
        for each in [_bytes(problem, kind, n_train, n_validation)] * len(kind)
    ]
    fitting = fitting_members(free, members, recorded=can_capture(images.device))
    if images.streams:
        fitting = min(fitting, max(1, images.window // _images_of_a_step(problem)))
    if fitting < min(population, len(members)):
        log.info("populations of %d: %d MB of memory are free", fitting, free // 10**6)
    return min(population, fitting)


def _bytes(
    problem: Problem, kind: Sequence[Configuration], n_train: int, n_validation: int
) -> MemberBytes:
    """Memory of a member in the company of those that are as wide as the widest."""
    one, training = kind[0], problem.spec.training
    widest = build_autoencoder(
        architecture=one.architecture,
        image_shape=problem.image_shape,
        encoding_dim=max(each.encoding_dim for each in kind),
        hidden=[max(widths) for widths in zip(*(each.hidden for each in kind), strict=False)],
        channels=one.channels,
        conv_hidden=one.conv_hidden,
        dropout=max(each.dropout for each in kind),
        code_activation=one.code_activation,
        activation=one.activation,
        shortcut=one.shortcut,
        output=one.output,
    )
    return member_bytes(
        widest,
        optimizer=training.optimizer,
        averaged=training.averaging == "ema",
        precision=problem.spec.compute.precision,
        corrupted=training.corruption != "none" or problem.noisy is not None,
        batch_size=min(training.batch_size, n_train),
        evaluation_size=min(_images_of_a_step(problem), n_validation),
        n_train=n_train,
        n_validation=n_validation,
    )


def _images_of_a_step(problem: Problem) -> int:
    """Images of a member that a step sees at most: one of an evaluation."""
    return evaluation_size(int(problem.spec.training.batch_size), prod(problem.image_shape))
