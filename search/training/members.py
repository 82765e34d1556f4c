"""Members and populations of a study, out of its specification; nothing is trained here."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit

from aesearch.data.study_data import Problem
from aesearch.models.training.denoising import Denoising, InputCorruption
from aesearch.models.training.device_images import DeviceImages
from aesearch.models.training.early_stopping import EarlyStopping
from aesearch.models.training.member import Member
from aesearch.models.training.population import Population
from aesearch.seeds import derive_seed
from aesearch.studies.spec.resolved import ResolvedSpec
from aesearch.studies.spec.study import Configuration
from aesearch.training.memory import bounded_population

# How often a network that is no better than PCA may be kept by chance. One network in a hundred:
# its epoch is the best of many, which helps chance, and a true gain is far clearer than this.
CHANCE = 0.01


@dataclass
class Group:
    """One population and whose members are in it, in the order of its member axis."""

    population: Population
    members: list[tuple[int, int]]  # (trial number, fold)

    def keep(self, numbers: Iterable[int]) -> list[int] | None:
        """Drop the members of all other trials.

        Returns
        -------
        list of int or None
            The positions that stay, where some do not; empty where none does, which drops
            nothing.
        """
        staying = set(numbers)
        positions = [i for i, (number, _) in enumerate(self.members) if number in staying]
        if len(positions) == len(self.members):
            return None
        if positions:
            self.population.keep(positions)
            self.members = [self.members[i] for i in positions]
        return positions


def populations(
    problem: Problem,
    images: DeviceImages,
    configurations: Mapping[int, Configuration],
    *,
    folds: Sequence[int],
    population: int,
    parts: Callable[[int], tuple[np.ndarray, np.ndarray]],
) -> list[Group]:
    """Put members that can train as one batch together, at most ``population`` each.

    Fewer where a GPU has not memory enough for so many.

    Parameters
    ----------
    images : DeviceImages
        Those of ``problem``.
    configurations : mapping of trial number to Configuration
    folds : sequence of int
        Each trial has a member for each of them.
    parts : callable
        From a fold to the image numbers that it trains and validates on.
    """
    kinds: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
    for number, configuration in configurations.items():
        kinds.setdefault(_kind(configuration), []).extend((number, fold) for fold in folds)
    train, validation = parts(folds[0])
    population = bounded_population(
        problem,
        images,
        [[configurations[number] for number, _ in members] for members in kinds.values()],
        population=population,
        n_train=len(train),
        n_validation=len(validation),
    )
    groups = []
    for members in kinds.values():
        for start in range(0, len(members), population):
            part = members[start : start + population]
            built = build_population(
                problem,
                images,
                [
                    build_member(
                        configurations[number],
                        derive_seed(problem.spec.seed, "member", number, fold),
                        *parts(fold),
                    )
                    for number, fold in part
                ],
                configurations[part[0][0]],
                epochs=problem.spec.trial_epochs,
            )
            groups.append(Group(built, part))
    return groups


def _kind(configuration: Configuration) -> tuple[Any, ...]:
    # What cannot differ inside one batched computation.
    return (
        configuration.architecture,
        len(configuration.hidden) if configuration.architecture == "dense" else 0,
        configuration.code_activation,
        configuration.activation,
        configuration.shortcut,
        configuration.channels if configuration.architecture == "conv" else (),
        configuration.optimizer,
        configuration.schedule,
        configuration.batch_size,
    )


def build_member(
    configuration: Configuration, seed: int, train: np.ndarray, validation: np.ndarray
) -> Member:
    """One network in training: a configuration, a seed, and the images it may see."""
    return Member(
        seed=seed,
        learning_rate=configuration.learning_rate,
        weight_decay=configuration.weight_decay,
        dropout=configuration.dropout,
        encoding_dim=configuration.encoding_dim,
        hidden=tuple(configuration.hidden),
        train_indices=torch.from_numpy(train),
        validation_indices=torch.from_numpy(validation),
        corruption_level=configuration.corruption_level,
    )


def build_population(
    problem: Problem,
    images: DeviceImages,
    members: Sequence[Member],
    configuration: Configuration,
    *,
    epochs: int,
) -> Population:
    """Members of one kind as a population, with what the spec fixes for all of them."""
    training, compute = problem.spec.training, problem.spec.compute
    return Population(
        members,
        images,
        architecture=configuration.architecture,
        channels=configuration.channels,
        conv_hidden=configuration.conv_hidden,
        code_activation=configuration.code_activation,
        activation=configuration.activation,
        shortcut=configuration.shortcut,
        output=configuration.output,
        initialization=configuration.initialization,
        optimizer=configuration.optimizer,
        momentum=training.momentum,
        schedule=configuration.schedule,
        gamma=training.gamma,
        factor=training.factor,
        patience=training.patience,
        averaging=training.averaging_decay if training.averaging == "ema" else None,
        epochs=epochs,
        batch_size=configuration.batch_size,
        precision=compute.precision,
        denoising=denoising_of(problem.spec),
    )


def early_stopping(spec: ResolvedSpec, population: Population) -> EarlyStopping:
    """Stop members as the specification's retraining says; none is kept worse than PCA.

    The population is untrained. A network that starts as PCA and gets no better stays PCA.
    """
    stopping = EarlyStopping(
        population.n_members,
        patience=spec.retrain.patience,
        min_delta=spec.retrain.min_delta,
        relative=spec.retrain.min_delta_mode == "relative",
        clearly_lower=clearly_lower,
    )
    if population.starts_as_pca:
        stopping.consider_start(population)
    return stopping


def clearly_lower(errors: torch.Tensor, others: torch.Tensor) -> bool:
    """Whether errors of the same images are lower in the mean than chance explains.

    A paired t-test, one-sided, p < ``CHANCE``; of one image nothing is clear.

    Parameters
    ----------
    errors, others : Tensor, (sample,), float64
    """
    gains = others - errors
    if len(gains) == 1:
        return False
    mean, error = gains.mean().item(), gains.std().item() / math.sqrt(len(gains))
    return mean > float(stdtrit(len(gains) - 1, 1.0 - CHANCE)) * error


def denoising_of(spec: ResolvedSpec) -> Denoising | None:
    """What the inputs of every population of a study suffer; None where it is nothing."""
    training = spec.training
    if training.corruption == "none":
        return None
    assert training.validation_corruption_level is not None, "the spec must be resolved"
    return Denoising(
        corruption=training.corruption,
        clamp=training.corruption_clamp,
        validation_level=training.validation_corruption_level,
        validation_seed=derive_seed(spec.seed, "validation-corruption"),
    )


def images_as_validated(problem: Problem, indices: np.ndarray) -> torch.Tensor | None:
    """Give images as a network sees them in a validation; None where it sees them as they are."""
    if problem.noisy is not None:
        return torch.from_numpy(problem.noisy[indices]).float().div_(255)
    denoising = denoising_of(problem.spec)
    if denoising is None:
        return None
    images = torch.from_numpy(problem.images[indices])
    flat = images.float().div_(255).reshape(1, len(indices), -1)
    corruption = InputCorruption(
        denoising,
        [denoising.validation_level],
        problem.image_shape,
        sample_first=False,
        like=flat,
    )
    numbers = torch.from_numpy(indices).reshape(1, -1)
    return corruption.apply(flat, numbers, None).reshape(images.shape)
