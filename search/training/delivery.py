"""Trials scored by the procedure that is delivered: fold 0 by rungs first, then the other folds.

A fold's score is what the retraining would give on it: a network is trained on the fold's
training part, less an inner held-out share that stops it early; the weights of its best epoch
are measured once on the images that the fold holds out. The trials that do well on fold 0 train
on the other folds too, and their score is the mean over all of them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from optuna.trial import TrialState

from aesearch.data.study_data import Problem
from aesearch.models.training.device_images import DeviceImages
from aesearch.models.training.early_stopping import EarlyStopping
from aesearch.sampling.suggest import Pruner
from aesearch.studies.results.records import Picture
from aesearch.studies.results.selection import mean_and_standard_error
from aesearch.studies.results.stability import STABILITY, score_above_limit
from aesearch.studies.spec.study import Configuration
from aesearch.studies.store.search_results import FoldCurve, Outcome
from aesearch.training.members import Group, early_stopping, populations
from aesearch.training.rungs import Rung, diverged, pictures


def train_as_delivered(
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
    """Train a generation; see :func:`aesearch.training.generation.train_generation`."""
    spec = problem.spec

    def train_on(folds: range, alive: Iterable[int], epochs_before: int) -> _Training:
        groups = populations(
            problem,
            images,
            {number: configurations[number] for number in alive},
            folds=folds,
            population=population,
            parts=problem.delivery_indices,
        )

        def tell(epoch: int, n_members: int) -> None:
            on_epoch(epochs_before + epoch * len(folds), n_members)

        runners = [_Runner(group, early_stopping(spec, group.population)) for group in groups]
        return _Training(problem, runners, tell)

    training = train_on(range(1), configurations, 0)
    for epoch in rungs[:-1]:
        training.advance(epoch)
        rung = training.rung()
        best = training.lowest_losses()
        reports = {number: {**rung.reports[number], epoch: best[number]} for number in best}
        for number in pruner.losers(list(best), reports):
            reason = f"pruned at epoch {epoch} with a loss of {best[number]:.6g} on fold 0"
            rung.outcomes.append(_pruned(number, best[number], reason, pruner))
        training.keep(best.keys() - {outcome.number for outcome in rung.outcomes})
        on_rung(rung, not training.alive)
        if not training.alive:
            return
    training.advance(rungs[-1])
    rung = training.rung()
    scores = {number: [score] for (number, _), score in training.scores().items()}
    shown = {number: pictures(problem, training.groups, number) for number in scores}
    for number in pruner.losers_after_fold({n: own[0] for n, own in scores.items()}):
        (score,) = scores.pop(number)
        reason = (
            f"scored {score:.6g} on fold 0, not one of the best of its code size there, so it "
            "trains on no other"
        )
        rung.outcomes.append(_pruned(number, score, reason, pruner, (score,)))
    on_rung(rung, not scores)
    if not scores:
        return
    del training  # its memory is that of the other folds
    others = train_on(range(1, spec.search.folds), scores, spec.trial_epochs)
    others.advance(rungs[-1])
    rung = others.rung()
    rung.reports.clear()  # what Optuna is told of a trial's course is that of fold 0
    for (number, _), score in others.scores().items():
        scores[number].append(score)
    rung.outcomes += [
        _complete(problem, number, own, pruner, shown[number])
        for number, own in scores.items()
        if number in others.alive
    ]
    on_rung(rung, True)  # noqa: FBT003 - done


@dataclass
class _Runner:
    """A population and what stops its members."""

    group: Group
    stopping: EarlyStopping


@dataclass
class _Curve:
    """Losses of one member since they were last written."""

    first_epoch: int = 1
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)


class _Training:
    """Members of some folds under way: what they lost by epoch, who is left, how they score.

    Attributes
    ----------
    alive : list of int
        Trials of which no member has diverged.
    """

    def __init__(
        self, problem: Problem, runners: list[_Runner], on_epoch: Callable[[int, int], None]
    ) -> None:
        self._problem, self._runners, self._on_epoch = problem, runners, on_epoch
        members = [member for runner in runners for member in runner.group.members]
        self._curves = {member: _Curve() for member in sorted(members)}
        self._diverged: dict[int, tuple[int, int]] = {}
        self.alive = sorted({number for number, _ in members})

    @property
    def groups(self) -> list[Group]:
        return [runner.group for runner in self._runners]

    def advance(self, epoch: int) -> None:
        """Train up to an epoch, or until each member has stopped."""
        for runner in self._runners:
            population = runner.group.population
            while population.epoch < epoch and "training" in population.status:
                trained = [status == "training" for status in population.status]
                losses = population.run_epoch()
                for position, member in enumerate(runner.group.members):
                    if trained[position]:
                        self._note(
                            member,
                            losses.train[position].item(),
                            losses.validation[position].item(),
                            population.epoch,
                        )
                runner.stopping.update(population, losses.validation)
                self._on_epoch(*self._progress())
        self.keep({number for number in self.alive if number not in self._diverged})

    def _note(self, member: tuple[int, int], train: float, validation: float, epoch: int) -> None:
        curve, (number, fold) = self._curves[member], member
        curve.train.append(train)
        curve.validation.append(validation)
        if not (math.isfinite(train) and math.isfinite(validation)):
            self._diverged[number] = min(
                self._diverged.get(number, (fold, epoch)), (fold, epoch), key=lambda at: at[1]
            )

    def _progress(self) -> tuple[int, int]:
        """Mean epoch of the populations' members, rounded down, and how many members that are."""
        sizes = [len(group.members) for group in self.groups]
        epochs = [group.population.epoch for group in self.groups]
        return sum(n * e for n, e in zip(sizes, epochs, strict=True)) // sum(sizes), sum(sizes)

    def keep(self, numbers: set[int]) -> None:
        """Go on with these trials only."""
        kept = []
        for runner in self._runners:
            positions = runner.group.keep(numbers)
            if positions is None:
                kept.append(runner)
            elif positions:
                runner.stopping.keep(positions)
                kept.append(runner)
        self._runners = kept
        self.alive = [number for number in self.alive if number in numbers]

    def rung(self) -> Rung:
        """Give what happened since the last one: losses, and who diverged."""
        rung = Rung()
        for (number, fold), curve in self._curves.items():
            if curve.train:
                rung.curves.append(
                    FoldCurve(number, fold, curve.first_epoch, curve.train, curve.validation)
                )
            finite = [loss for loss in curve.validation if math.isfinite(loss)]
            rung.reports[number] = dict(enumerate(finite, start=curve.first_epoch))
            self._curves[number, fold] = _Curve(curve.first_epoch + len(curve.train))
        rung.outcomes += [
            diverged(number, fold, epoch)
            for number, (fold, epoch) in sorted(self._diverged.items())
        ]
        self._diverged.clear()
        return rung

    def lowest_losses(self) -> dict[int, float]:
        """Lowest inner loss of each trial so far, by number; of one fold."""
        found = {
            number: float(runner.stopping.best_loss[position])
            for runner in self._runners
            for position, (number, _) in enumerate(runner.group.members)
        }
        return dict(sorted(found.items()))

    def scores(self) -> dict[tuple[int, int], float]:
        """Restore each member's best weights, and measure them on what its fold holds out."""
        found: dict[tuple[int, int], float] = {}
        for runner in self._runners:
            population, members = runner.group.population, runner.group.members
            runner.stopping.restore(population)
            pools = [torch.from_numpy(self._problem.fold_indices(fold)[1]) for _, fold in members]
            losses = population.measure(range(len(members)), pools)
            found |= dict(zip(members, losses.tolist(), strict=True))
        return dict(sorted(found.items()))


def _pruned(
    number: int, value: float, reason: str, pruner: Pruner, scores: tuple[float, ...] = ()
) -> Outcome:
    attributes: dict[str, str | float | list[float]] = {"reason": reason}
    if scores:
        attributes["fold_scores"] = list(scores)
    return Outcome(
        number,
        TrialState.PRUNED,
        value=value,
        fold_scores=scores,
        user_attributes=attributes,
        system_attributes=pruner.memory(number),
    )


def _complete(
    problem: Problem,
    number: int,
    scores: Sequence[float],
    pruner: Pruner,
    shown: tuple[Picture, ...],
) -> Outcome:
    mean, standard_error = mean_and_standard_error(scores)
    unstable = score_above_limit(scores, limit=problem.spec.search.unstable_loss)
    attributes: dict[str, str | float | list[float]] = {
        "standard_error": standard_error,
        "fold_scores": list(scores),
    }
    if unstable is not None:
        attributes["unstable"] = unstable
    return Outcome(
        number,
        TrialState.COMPLETE,
        value=mean,
        fold_scores=tuple(scores),
        user_attributes=attributes,
        system_attributes=pruner.memory(number) | {STABILITY: -1.0 if unstable is None else 1.0},
        pictures=shown,
    )
