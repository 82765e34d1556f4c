"""Training one generation of the search, rung by rung; who leases it is no matter here.

All folds of all its trials advance together, so the mean over folds is known at every epoch
and losers leave at a rung.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from optuna.trial import TrialState

from aesearch.models.denoising import Denoising, InputCorruption
from aesearch.models.population import Member, Population
from aesearch.models.runtime import is_out_of_memory
from aesearch.problem import Problem
from aesearch.seeds import derive_seed
from aesearch.strip import MAX_COLUMNS, reconstruction_strip
from aesearch.studies.records import Picture
from aesearch.studies.search_results import FoldCurve, Outcome
from aesearch.studies.selection import fold_scores, mean_and_standard_error
from aesearch.studies.spec import Configuration, StudySpec
from aesearch.studies.stability import STABILITY, unstable_reason
from aesearch.suggest import Pruner

log = logging.getLogger("aesearch.worker")


@dataclass
class Rung:
    """What happened since the last rung, ready to be written."""

    curves: list[FoldCurve] = field(default_factory=list)
    reports: dict[int, dict[int, float]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass
class _Group:
    """One population and whose members are in it, in the order of its member axis."""

    population: Population
    members: list[tuple[int, int]]  # (trial number, fold)


def train_generation(
    problem: Problem,
    images: torch.Tensor,
    configurations: Mapping[int, Configuration],
    *,
    population: int,
    rungs: Sequence[int],
    pruner: Callable[[], Pruner],
    on_epoch: Callable[[int, int], None],
    on_rung: Callable[[Rung, bool], None],
) -> int:
    """Train every fold of every trial of a generation to its end, or until it is pruned.

    Where memory runs out, the generation is begun again with populations half as large. What a
    member computes depends on their size in the last bits only.

    Parameters
    ----------
    images : Tensor, (sample, channel, height, width), uint8
        ``problem.images`` on the device.
    configurations : mapping of trial number to Configuration
    population : int
        Members that train as one batch, at most; >= 1.
    rungs : sequence of int
        Epochs at which losers leave; the last one is the end.
    pruner : callable
        Makes a pruner that knows nothing of this generation yet, for each beginning. What it
        remembers is stored with the trial.
    on_epoch : callable(epoch, n_members)
        Called after each epoch of each population, with the mean over the members that still
        train (populations train one after the other), rounded down; may raise to stop.
    on_rung : callable(rung, done)
        Writes what happened; may raise to stop.

    Returns
    -------
    int
        The ``population`` that fitted into memory.
    """
    n_members = len(configurations) * problem.spec.search.folds
    while True:
        groups: list[_Group] = []
        judge = pruner()
        try:
            groups = _populations(problem, images, configurations, population)
            _train(
                problem,
                groups,
                list(configurations),
                rungs=rungs,
                losers=judge.losers,
                memory=judge.memory,
                on_epoch=on_epoch,
                on_rung=on_rung,
            )
        except RuntimeError as error:
            if population == 1 or not is_out_of_memory(error):
                raise
            log.warning("out of memory with populations of %d", min(population, n_members))
        else:
            return population
        # Only here does nothing hold on to the tensors of the attempt any more.
        groups.clear()
        population = max(1, min(population, n_members) // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _train(
    problem: Problem,
    groups: list[_Group],
    alive: list[int],
    *,
    rungs: Sequence[int],
    losers: Callable[[Sequence[int], Mapping[int, Mapping[int, float]]], list[int]],
    memory: Callable[[int], dict[str, Any]],
    on_epoch: Callable[[int, int], None],
    on_rung: Callable[[Rung, bool], None],
) -> None:
    n_folds = problem.spec.search.folds
    losses = {number: np.full((2, n_folds, rungs[-1]), np.nan) for number in alive}
    done_epochs = 0
    for rung_epoch in rungs:
        _advance(groups, rung_epoch, losses, on_epoch)
        rung = _collect(alive, losses, done_epochs, rung_epoch, n_folds)
        for number, (epoch, reason) in _diverged(alive, losses, rung_epoch).items():
            rung.outcomes.append(
                Outcome(
                    number,
                    TrialState.FAIL,
                    user_attributes={"reason": reason},
                    system_attributes={STABILITY: 1.0},
                )
            )
            reports = rung.reports[number]
            rung.reports[number] = {e: mean for e, mean in reports.items() if e < epoch}
            alive.remove(number)
        if rung_epoch < rungs[-1]:
            _prune(rung, alive, rung_epoch, losers, memory)
        else:
            rung.outcomes += [
                _complete(problem, n, losses[n][1], memory(n), _pictures(problem, groups, n))
                for n in alive
            ]
            alive = []
        groups = _compacted(groups, alive)
        on_rung(rung, not alive)
        done_epochs = rung_epoch
        if not alive:
            return


def _populations(
    problem: Problem,
    images: torch.Tensor,
    configurations: Mapping[int, Configuration],
    population: int,
) -> list[_Group]:
    """Put members that can train as one batch together, at most ``population`` each."""
    spec = problem.spec
    kinds: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
    for number, configuration in configurations.items():
        kinds.setdefault(_kind(configuration), []).extend(
            (number, fold) for fold in range(spec.search.folds)
        )
    groups = []
    for members in kinds.values():
        for start in range(0, len(members), population):
            part = members[start : start + population]
            built = build_population(
                problem,
                images,
                [_member(problem, configurations[number], number, fold) for number, fold in part],
                configurations[part[0][0]],
                epochs=spec.training.epochs,
            )
            groups.append(_Group(built, part))
    return groups


def _kind(configuration: Configuration) -> tuple[Any, ...]:
    # What cannot differ inside one batched computation.
    return (
        configuration.architecture,
        len(configuration.hidden) if configuration.architecture == "dense" else 0,
        configuration.code_activation,
    )


def _member(problem: Problem, configuration: Configuration, number: int, fold: int) -> Member:
    train, validation = problem.fold_indices(fold)
    return build_member(
        configuration, derive_seed(problem.spec.seed, "member", number, fold), train, validation
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
    images: torch.Tensor,
    members: Sequence[Member],
    configuration: Configuration,
    *,
    epochs: int,
) -> Population:
    """Members of one kind as a population, with what the spec fixes for all of them."""
    training, compute = problem.spec.training, problem.spec.compute
    assert isinstance(training.batch_size, int), "the spec must be resolved"
    return Population(
        members,
        images,
        architecture=configuration.architecture,
        channels=configuration.channels,
        conv_hidden=configuration.conv_hidden,
        code_activation=configuration.code_activation,
        optimizer=training.optimizer,
        momentum=training.momentum,
        schedule=training.schedule,
        gamma=training.gamma,
        factor=training.factor,
        patience=training.patience,
        epochs=epochs,
        batch_size=training.batch_size,
        device=str(images.device),
        precision=compute.precision,
        denoising=_denoising(problem.spec),
    )


def _denoising(spec: StudySpec) -> Denoising | None:
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


def _advance(
    groups: Sequence[_Group],
    rung_epoch: int,
    losses: Mapping[int, np.ndarray],
    on_epoch: Callable[[int, int], None],
) -> None:
    """Train the populations up to the rung, one after the other."""
    for group in groups:
        while group.population.epoch < rung_epoch:
            epoch = group.population.epoch
            result = group.population.run_epoch()
            for position, (number, fold) in enumerate(group.members):
                losses[number][0, fold, epoch] = result.train[position].item()
                losses[number][1, fold, epoch] = result.validation[position].item()
            on_epoch(*_progress(groups))


def _progress(groups: Sequence[_Group]) -> tuple[int, int]:
    """Mean epoch over all members, rounded down, and how many members that are."""
    n_members = sum(len(group.members) for group in groups)
    epochs = sum(group.population.epoch * len(group.members) for group in groups)
    return epochs // n_members, n_members


def _collect(
    alive: Sequence[int],
    losses: Mapping[int, np.ndarray],
    start: int,
    stop: int,
    n_folds: int,
) -> Rung:
    rung = Rung()
    for number in alive:
        train, validation = losses[number][:, :, start:stop]
        rung.curves += [
            FoldCurve(number, fold, start + 1, train[fold].tolist(), validation[fold].tolist())
            for fold in range(n_folds)
        ]
        means = validation.mean(axis=0).tolist()
        rung.reports[number] = {start + 1 + i: mean for i, mean in enumerate(means)}
    return rung


def _diverged(
    alive: Sequence[int], losses: Mapping[int, np.ndarray], rung_epoch: int
) -> dict[int, tuple[int, str]]:
    """Trials with a loss that is not finite: in which epoch first, and the reason in words."""
    found = {}
    for number in alive:
        folds, epochs = np.nonzero(~np.isfinite(losses[number][:, :, :rung_epoch]).all(axis=0))
        if len(folds):
            first = int(np.argmin(epochs))
            fold, epoch = folds[first], int(epochs[first]) + 1
            found[number] = (
                epoch,
                f"fold {fold} diverged at epoch {epoch}: its loss is not finite",
            )
    return found


def _prune(
    rung: Rung,
    alive: list[int],
    rung_epoch: int,
    losers: Callable[[Sequence[int], Mapping[int, Mapping[int, float]]], list[int]],
    memory: Callable[[int], dict[str, Any]],
) -> None:
    for number in losers(alive, rung.reports):
        value = rung.reports[number][rung_epoch]
        reason = f"pruned at epoch {rung_epoch} with a mean over folds of {value:.6g}"
        rung.outcomes.append(
            Outcome(
                number,
                TrialState.PRUNED,
                value=value,
                user_attributes={"reason": reason},
                system_attributes=memory(number),
            )
        )
        alive.remove(number)


def _pictures(problem: Problem, groups: Sequence[_Group], number: int) -> tuple[Picture, ...]:
    """Show what the network of fold 0 makes of the first images that it did not train on."""
    group = next(group for group in groups if (number, 0) in group.members)
    model = group.population.extract(group.members.index((number, 0)))
    _, held_out = problem.fold_indices(0)
    shown = held_out[:MAX_COLUMNS]
    corrupted = images_as_validated(problem, shown)
    return (reconstruction_strip(model, problem.images[shown], corrupted),)


def images_as_validated(problem: Problem, indices: np.ndarray) -> torch.Tensor | None:
    """Give images as a validation corrupts them; None where the study does not denoise."""
    denoising = _denoising(problem.spec)
    if denoising is None:
        return None
    corruption = InputCorruption(
        denoising,
        [denoising.validation_level],
        problem.image_shape,
        sample_first=False,
        device=torch.device("cpu"),
    )
    images = torch.from_numpy(problem.images[indices])
    flat = images.float().div_(255).reshape(1, len(indices), -1)
    numbers = torch.from_numpy(indices).reshape(1, -1)
    return corruption.apply(flat, numbers, None).reshape(images.shape)


def _complete(
    problem: Problem,
    number: int,
    validation: np.ndarray,
    memory: dict[str, Any],
    pictures: tuple[Picture, ...],
) -> Outcome:
    search = problem.spec.search
    assert isinstance(search.score_epochs, int), "the spec must be resolved"
    scores = fold_scores(validation, search.score_epochs)
    mean, standard_error = mean_and_standard_error(scores)
    unstable = unstable_reason(
        validation, limit=search.unstable_loss, oscillation=search.unstable_oscillation
    )
    attributes = {"standard_error": standard_error, "fold_scores": scores.tolist()}
    if unstable is not None:
        attributes["unstable"] = unstable
    return Outcome(
        number,
        TrialState.COMPLETE,
        value=mean,
        fold_scores=tuple(scores.tolist()),
        user_attributes=attributes,
        system_attributes=memory | {STABILITY: -1.0 if unstable is None else 1.0},
        pictures=pictures,
    )


def _compacted(groups: list[_Group], alive: Sequence[int]) -> list[_Group]:
    kept = []
    for group in groups:
        positions = [i for i, (number, _) in enumerate(group.members) if number in alive]
        if not positions:
            continue
        if len(positions) < len(group.members):
            group.population.keep(positions)
            group.members = [group.members[i] for i in positions]
        kept.append(group)
    return kept
