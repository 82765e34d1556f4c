"""Trials of a fixed number of epochs: all folds advance together, losers leave at a rung."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from optuna.trial import TrialState

from aesearch.data.study_data import Problem
from aesearch.models.training.device_images import DeviceImages
from aesearch.sampling.suggest import Pruner
from aesearch.studies.results.records import Picture
from aesearch.studies.results.selection import fold_scores, mean_and_standard_error
from aesearch.studies.results.stability import STABILITY, unstable_reason
from aesearch.studies.spec.study import Configuration
from aesearch.studies.store.search_results import FoldCurve, Outcome
from aesearch.training.members import Group, populations
from aesearch.training.rungs import Rung, diverged, pictures


def train_fixed_epochs(
    problem: Problem,
    images: DeviceImages,
    configurations: Mapping[int, Configuration],
    *,
    population: int,
    rungs: Sequence[int],
    pruner: Pruner,
    on_epoch: Callable[[int, int], None],
    on_rung: Callable[[Rung, bool], None],
) -> None:
    """Train a generation on all folds at once, as ``generation.train_generation`` says."""
    n_folds = problem.spec.search.folds
    groups = populations(
        problem,
        images,
        configurations,
        folds=range(n_folds),
        population=population,
        parts=problem.fold_indices,
    )
    alive = list(configurations)
    losses = {number: np.full((2, n_folds, rungs[-1]), np.nan) for number in alive}
    done_epochs = 0
    for rung_epoch in rungs:
        _advance(groups, rung_epoch, losses, on_epoch)
        rung = _collect(alive, losses, done_epochs, rung_epoch, n_folds)
        for number, (fold, epoch) in _diverged(alive, losses, rung_epoch).items():
            rung.outcomes.append(diverged(number, fold, epoch))
            reports = rung.reports[number]
            rung.reports[number] = {e: mean for e, mean in reports.items() if e < epoch}
            alive.remove(number)
        if rung_epoch < rungs[-1]:
            _prune(rung, alive, rung_epoch, pruner)
        else:
            rung.outcomes += [
                _complete(problem, n, losses[n][1], pruner.memory(n), pictures(problem, groups, n))
                for n in alive
            ]
            alive = []
        groups = _compacted(groups, alive)
        on_rung(rung, not alive)
        done_epochs = rung_epoch
        if not alive:
            return


def _advance(
    groups: Sequence[Group],
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
            on_epoch(*progress(groups))


def progress(groups: Sequence[Group]) -> tuple[int, int]:
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
) -> dict[int, tuple[int, int]]:
    """Trials with a loss that is not finite: on which fold, and in which epoch, first."""
    found = {}
    for number in alive:
        folds, epochs = np.nonzero(~np.isfinite(losses[number][:, :, :rung_epoch]).all(axis=0))
        if len(folds):
            first = int(np.argmin(epochs))
            found[number] = int(folds[first]), int(epochs[first]) + 1
    return found


def _prune(
    rung: Rung,
    alive: list[int],
    rung_epoch: int,
    pruner: Pruner,
) -> None:
    for number in pruner.losers(alive, rung.reports):
        value = rung.reports[number][rung_epoch]
        reason = f"pruned at epoch {rung_epoch} with a mean over folds of {value:.6g}"
        rung.outcomes.append(
            Outcome(
                number,
                TrialState.PRUNED,
                value=value,
                user_attributes={"reason": reason},
                system_attributes=pruner.memory(number),
            )
        )
        alive.remove(number)


def _complete(
    problem: Problem,
    number: int,
    validation: np.ndarray,
    memory: dict[str, float],
    shown: tuple[Picture, ...],
) -> Outcome:
    search = problem.spec.search
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
        pictures=shown,
    )


def _compacted(groups: list[Group], alive: Sequence[int]) -> list[Group]:
    return [group for group in groups if group.keep(alive) != []]
