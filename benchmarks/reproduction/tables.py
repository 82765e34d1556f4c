"""The rows of docs/reports.md: every number and claim measured and judged; no Markdown here."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from reproduction.evidence import Evidence, Evidences, NotMeasuredError
from reproduction.measures import EXACT, UNTRAINED, Values, measure
from reproduction.record import RecordedPicture
from reproduction.reported import Claim, Measure, Number, Ours, Report
from reproduction.verdict import Outcome, agreement, claim_verdict, clear, outcome

NOT_RUN = "not run"
KINDS = ("dense", "conv")
# Its study was run, but its record has no such figure: a seed diverged, or nobody asked then.
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Finding:
    """One measurement beside a figure.

    Attributes
    ----------
    values : Values or None
        None where its study was not run or the figure is not in its record.
    """

    values: Values | None
    verdict: str


@dataclass(frozen=True)
class NumberRow:
    """A figure of a report, ours, and what other settings give where ours does not agree."""

    number: Number
    found: Finding
    instead: Mapping[str, Finding]


@dataclass(frozen=True)
class ClaimRow:
    """A claim of a report, whether it holds, and each comparison: what, left, relation, right."""

    claim: Claim
    verdict: str
    compared: tuple[tuple[str, Values, str, Values, Outcome], ...]


@dataclass(frozen=True)
class StudyRow:
    """One study of a report; without evidence it was not run."""

    name: str
    evidence: Evidence | None


@dataclass(frozen=True)
class DimensionRow:
    """Our best autoencoders at one size of the code, PCA, and the figures to be beaten there.

    Attributes
    ----------
    networks : dict of str to Evidence or None
        By architecture, of those that are to be run at this size; None for one that was not.
    rivals : tuple of (where, figure, verdict)
    """

    dimension: int
    networks: Mapping[str, Evidence | None]
    pca: float | None
    rivals: tuple[tuple[str, str, str], ...]


def number_row(evidences: Evidences, number: Number) -> NumberRow:
    """Measure a number; other settings are measured where it does not agree."""
    found = _finding(evidences, number, number.measure)
    instead = {}
    if found.values is not None and found.verdict not in ("agrees", "the same"):
        instead = {
            name: _finding(evidences, number, other) for name, other in number.instead.items()
        }
    return NumberRow(number, found, instead)


def _finding(evidences: Evidences, number: Number, asked: Measure) -> Finding:
    evidence = _present(evidences, asked.study)
    if evidence is None:
        return Finding(None, NOT_RUN)
    try:
        values = measure(evidence, asked)
    except NotMeasuredError:
        return Finding(None, NOT_MEASURED)
    exact = asked.of in EXACT
    verdict: str = agreement(number.reported, values, metric=asked.metric, exact=exact)
    if asked.of in UNTRAINED and verdict != "agrees":
        verdict = "does not agree"
    if asked.of == "best_choice" and verdict == "another":
        verdict = _of_choices(evidence, asked, float(number.reported), values.mean)
    return Finding(values, verdict)


def _of_choices(evidence: Evidence, asked: Measure, theirs: float, ours: float) -> str:
    """Say whether the folds tell the reported choice from ours; only where we tried both."""

    def losses(choice: float) -> Values:
        trial = {**asked.trial, str(asked.parameter): choice}
        return measure(evidence, asked.model_copy(update={"of": "cv_validation", "trial": trial}))

    try:
        return "another" if clear(losses(theirs), losses(ours)) else "not told apart"
    except NotMeasuredError:
        return "another"


def claim_row(evidences: Evidences, claim: Claim) -> ClaimRow:
    """Measure both sides of every comparison of a claim."""

    def side(value: Measure | float) -> Values:
        if isinstance(value, Measure):
            return measure(evidences.of(value.study), value)
        return Values(np.array([value]), "none")

    sides = [side for each in claim.comparisons for side in (each.left, each.right)]
    studies = {side.study for side in sides if isinstance(side, Measure)}
    if any(_present(evidences, study) is None for study in studies):
        return ClaimRow(claim, NOT_RUN, ())
    compared = []
    try:
        for each in claim.comparisons:
            left, right = side(each.left), side(each.right)
            holds = outcome(left, each.relation, right, metric=each.left.metric)
            compared.append((each.what, left, each.relation, right, holds))
    except NotMeasuredError:
        return ClaimRow(claim, NOT_MEASURED, ())
    return ClaimRow(claim, claim_verdict([each[-1] for each in compared]), tuple(compared))


def study_rows(evidences: Evidences, report: Report) -> list[StudyRow]:
    """List the studies of a report's preset, in its order."""
    from aesearch.studies.spec.series import load_series

    return [
        StudyRow(str(spec.name), _present(evidences, str(spec.name)))
        for spec in load_series(preset=report.preset)
    ]


def pictures(evidences: Evidences, report: Report) -> list[tuple[str, RecordedPicture]]:
    """List the pictures that stand beside a report, with their studies; only those there are."""
    found = []
    for each in report.shown:
        evidence = _present(evidences, each.study)
        if evidence is not None:
            pictures_of = evidence.record.pictures
            found += [(evidence.name, one) for one in pictures_of if one.name == each.picture]
    return found


def _present(evidences: Evidences, name: str) -> Evidence | None:
    try:
        return evidences.of(name)
    except NotMeasuredError:
        return None


def dimension_rows(evidences: Evidences, reports: list[Report], ours: Ours) -> list[DimensionRow]:
    """Hold the best of ours at each size of the code against what the reports reached there."""
    from aesearch.studies.spec.series import load_series

    rivals: dict[int, list[tuple[str, Number]]] = {}
    for report in reports:
        for group in report.groups:
            for number in group.numbers:
                if number.competes is not None:
                    where = f"{report.file.split('_')[0]}, {group.title}: {number.name}"
                    rivals.setdefault(number.competes, []).append((where, number))
    planned = {
        kind: {str(spec.name) for spec in load_series(preset=preset)}
        for kind, preset in zip(KINDS, (ours.dense, ours.conv), strict=True)
    }
    rows = []
    for dimension in ours.dimensions:
        networks = {
            kind: _present(evidences, name)
            for kind, preset in zip(KINDS, (ours.dense, ours.conv), strict=True)
            if (name := f"{preset}-{dimension}") in planned[kind]
        }
        present = [found for found in networks.values() if found is not None]
        evaluated = [each.record.evaluated for each in present if each.record.evaluated]
        best = {
            "retraining": min((float(found.test_mse.mean()) for found in present), default=None),
            "search": min(map(search_value, present), default=None),
        }
        rows.append(
            DimensionRow(
                dimension,
                networks,
                evaluated[0].pca_mse if evaluated else None,
                tuple(
                    (
                        where,
                        number.reported,
                        _beaten(best[number.against], number, len(present) == len(networks)),
                    )
                    for where, number in rivals.get(dimension, ())
                ),
            )
        )
    return rows


def search_value(evidence: Evidence) -> float:
    """Give the winner's mean over the folds."""
    value = evidence.winner.value
    assert value is not None, "only a complete trial is chosen"
    return value


def _beaten(best: float | None, number: Number, all_run: bool) -> str:
    if best is None:
        return NOT_RUN
    if best < float(number.reported):
        return "beaten"
    return "not beaten" if all_run else "not beaten so far"
