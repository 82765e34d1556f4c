"""How many members of a study train as one population where a device's memory bounds them."""

import logging
from collections.abc import Iterable, Sequence
from math import prod

import torch

from aesearch.data.study_data import Problem
from aesearch.models.autoencoder import build_autoencoder
from aesearch.models.training.capture import can_capture
from aesearch.models.training.memory import (
    MemberBytes,
    fitting_members,
    free_bytes,
    member_bytes,
)
from aesearch.models.training.population import evaluation_size
from aesearch.studies.spec.study import Configuration

log = logging.getLogger("aesearch.worker")


def bounded_population(
    problem: Problem,
    device: torch.device,
    kinds: Iterable[Sequence[Configuration]],
    *,
    population: int,
    n_train: int,
    n_validation: int,
) -> int:
    """Bound a population by the memory that is free now; unbounded where nobody says.

    Parameters
    ----------
    kinds : iterable of sequences of Configuration
        One configuration for each member, those that can train together side by side.
    population : int
        Members that train as one batch, at most.
    n_train, n_validation : int
        Images of a member.
    """
    free = free_bytes(device)
    if free is None:
        return population
    members = [
        each
        for kind in kinds
        for each in [_bytes(problem, kind, n_train, n_validation)] * len(kind)
    ]
    fitting = fitting_members(free, members, recorded=can_capture(device))
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
    evaluated = evaluation_size(training.batch_size, prod(problem.image_shape))
    return member_bytes(
        widest,
        optimizer=training.optimizer,
        averaged=training.averaging == "ema",
        precision=problem.spec.compute.precision,
        corrupted=training.corruption != "none" or problem.noisy is not None,
        batch_size=min(training.batch_size, n_train),
        evaluation_size=min(evaluated, n_validation),
        n_train=n_train,
        n_validation=n_validation,
    )
