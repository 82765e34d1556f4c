"""What the five reports say, read from ``reported.yaml``; nothing is measured here."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from aesearch.studies.spec.dimensions import Section
from aesearch.studies.spec.strict_yaml import parse

Relation = Literal["below", "above", "near"]


class Measure(Section):
    """One measurement on one study; ``of`` names the function of ``measures`` that makes it.

    Attributes
    ----------
    trial : dict
        Parameters that single a trial out; empty for the winner.
    epoch : int or None
        From 1; None for the last.
    metric : {"mse", "psnr", "binary_accuracy"}
    corruption, level, clamp, overhang
        What the inputs suffer; see ``aesearch.models.corruptions``.
    parameter : str or None
        Which parameter is asked for.
    dimension : int or None
        How many principal components.
    bound : float or None
        What is to be reached.
    """

    of: str
    study: str
    trial: dict[str, Any] = Field(default={})
    epoch: int | None = None
    metric: Literal["mse", "psnr", "binary_accuracy"] = "mse"
    corruption: str | None = None
    level: float = 0.0
    clamp: bool = True
    overhang: bool = False
    parameter: str | None = None
    dimension: int | None = None
    bound: float | None = None


@dataclass(frozen=True)
class Number:
    """One figure of a report.

    Attributes
    ----------
    reported : str
        As it is printed there: its last digit says how far it was rounded.
    instead : dict of str to Measure
        What other settings give, by what they are called.
    competes : int or None
        The encoding dimension at which it is an error of MNIST to be beaten.
    against : {"retraining", "search"}
        What of ours had about as many epochs.
    """

    name: str
    reported: str
    measure: Measure
    instead: dict[str, Measure]
    competes: int | None
    against: Literal["retraining", "search"]


@dataclass(frozen=True)
class Group:
    """Figures that stand together in a report."""

    title: str
    source: str
    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class Comparison:
    """Two measurements, or one and a bound, and how the left should stand to the right."""

    what: str
    left: Measure
    relation: Relation
    right: Measure | float


@dataclass(frozen=True)
class Claim:
    """One sentence of a report, or a question of ours, as comparisons that hold if it is true."""

    says: str
    source: str
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Shown:
    """One picture that stands beside a report.

    Attributes
    ----------
    study : str
    picture : str
        ``curves`` of the winner, or a name among the pictures of the evaluation.
    """

    study: str
    picture: str


@dataclass(frozen=True)
class Report:
    """One report.

    Attributes
    ----------
    file : str
        Its file name.
    preset : str
        The preset whose studies reproduce it.
    reading : str
        How its settings were read where it leaves them open.
    questions : tuple of Claim
        What its readers may ask, and it does not say.
    """

    file: str
    title: str
    preset: str
    reading: str
    groups: tuple[Group, ...]
    claims: tuple[Claim, ...]
    questions: tuple[Claim, ...]
    shown: tuple[Shown, ...]


@dataclass(frozen=True)
class Ours:
    """Presets of our own whose studies are called ``<preset>-<dimension>``."""

    dimensions: tuple[int, ...]
    dense: str
    conv: str


def load_reported() -> tuple[list[Report], Ours]:
    """Read what the reports say, and what of ours is held against it."""
    text = Path(__file__).with_name("reported.yaml").read_text("utf-8")
    document, _ = parse(text, "reported.yaml")
    ours = document["ours"]
    dimensions = tuple(ours["dimensions"])
    return [_report(raw) for raw in document["reports"]], Ours(
        dimensions, ours["dense"], ours["conv"]
    )


def _report(raw: Mapping[str, Any]) -> Report:
    return Report(
        file=raw["file"],
        title=raw["title"],
        preset=raw["preset"],
        reading=raw["reading"].strip(),
        groups=tuple(map(_group, raw.get("numbers", ()))),
        claims=tuple(map(_claim, raw["claims"])),
        questions=tuple(map(_claim, raw.get("questions", ()))),
        shown=tuple(
            Shown(study, picture) for picture, studies in raw["shown"].items() for study in studies
        ),
    )


def _group(raw: Mapping[str, Any]) -> Group:
    shared, alternatives = raw["measure"], raw.get("instead", ())
    return Group(
        title=raw["group"],
        source=raw["source"],
        numbers=tuple(
            _number(case, shared, alternatives, raw.get("against", "retraining"))
            for case in raw["cases"]
        ),
    )


def _number(
    case: Mapping[str, Any],
    shared: Mapping[str, Any],
    alternatives: Any,
    against: Literal["retraining", "search"],
) -> Number:
    own = {k: v for k, v in case.items() if k not in ("name", "reported", "competes")}
    measure = {**shared, **own}
    instead = {}
    for alternative in alternatives:
        change = {k: v for k, v in alternative.items() if k not in ("name", "kinds")}
        kinds = alternative.get("kinds")
        if kinds is None or measure.get("corruption") in kinds:
            instead[alternative["name"]] = Measure.model_validate(measure | change)
    return Number(
        name=case["name"],
        reported=case["reported"],
        measure=Measure.model_validate(measure),
        instead=instead,
        competes=case.get("competes"),
        against=against,
    )


def _claim(raw: Mapping[str, Any]) -> Claim:
    common = raw["common"]

    def side(value: Any) -> Measure | float:
        if isinstance(value, dict):
            return Measure.model_validate({**common, **value})
        return float(value)

    comparisons = []
    for each in raw["compare"]:
        left = side(each["left"])
        assert isinstance(left, Measure), "the left side is measured"
        comparisons.append(Comparison(each["what"], left, each["is"], side(each["right"])))
    return Claim(raw["says"], raw["source"], tuple(comparisons))


def asked_of(reports: Iterable[Report]) -> dict[str, list[Measure]]:
    """List what is asked of each study, by its name; each once."""
    asked: dict[str, list[Measure]] = {}
    for measure in _measures(reports):
        known = asked.setdefault(measure.study, [])
        if measure not in known:
            known.append(measure)
    return asked


def _measures(reports: Iterable[Report]) -> Iterator[Measure]:
    for report in reports:
        for group in report.groups:
            for number in group.numbers:
                yield number.measure
                yield from number.instead.values()
        for claim in (*report.claims, *report.questions):
            for compared in claim.comparisons:
                yield compared.left
                if isinstance(compared.right, Measure):
                    yield compared.right
