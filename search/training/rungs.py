"""What a generation leaves at a rung, ready to be written; nothing is trained or judged here."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from optuna.trial import TrialState

from aesearch.data.study_data import Problem
from aesearch.studies.results.records import Picture
from aesearch.studies.results.stability import STABILITY
from aesearch.studies.store.search_results import FoldCurve, Outcome
from aesearch.training.members import Group, images_as_validated
from aesearch.training.previews import MAX_COLUMNS, reconstruction_strip


@dataclass
class Rung:
    """What happened since the last rung, ready to be written."""

    curves: list[FoldCurve] = field(default_factory=list)
    reports: dict[int, dict[int, float]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)


def diverged(number: int, fold: int, epoch: int) -> Outcome:
    """How a trial ends of which a fold's loss is not finite after an epoch (from 1)."""
    return Outcome(
        number,
        TrialState.FAIL,
        user_attributes={
            "reason": f"fold {fold} diverged at epoch {epoch}: its loss is not finite"
        },
        system_attributes={STABILITY: 1.0},
    )


def pictures(problem: Problem, groups: Iterable[Group], number: int) -> tuple[Picture, ...]:
    """Show what the network of fold 0 makes of the first images that it did not train on."""
    group = next(group for group in groups if (number, 0) in group.members)
    model = group.population.extract(group.members.index((number, 0)))
    _, held_out = problem.fold_indices(0)
    shown = held_out[:MAX_COLUMNS]
    corrupted = images_as_validated(problem, shown)
    return (reconstruction_strip(model, problem.images[shown], corrupted),)
