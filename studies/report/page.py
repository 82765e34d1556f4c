"""The whole report as one string of HTML, from plain arguments; nothing is read from a store."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from aesearch.studies.report import (
    figures_dimension,
    figures_evaluation,
    figures_front,
    figures_parallel,
    figures_search,
    figures_training,
    tables,
    words,
)
from aesearch.studies.report.importances import early_losses, shares
from aesearch.studies.report.look import TEMPLATE, Figure, script_json, spelled
from aesearch.studies.results.evaluation import Evaluation
from aesearch.studies.results.records import Picture, RetrainPoint, StudySnapshot
from aesearch.studies.results.selection import eligible_trials
from aesearch.studies.results.summary import summary
from aesearch.studies.results.text import parameter_text
from aesearch.studies.spec.dimensions import Dimension, Params
from aesearch.studies.spec.load import to_yaml
from aesearch.studies.spec.resolved import ResolvedSpec


def report_page(
    snapshot: StudySnapshot,
    curves: pd.DataFrame,
    *,
    retrain_curves: Sequence[RetrainPoint] = (),
    evaluation: Evaluation | None = None,
    pictures: Sequence[Picture] = (),
) -> str:
    """Write the report of a study at any moment of its life.

    Parameters
    ----------
    snapshot : StudySnapshot
        With the resolved specification.
    curves : DataFrame
        Of ``frames.curves``; those of the winner, or of the best so far, are enough.
    retrain_curves : sequence of RetrainPoint
    evaluation : Evaluation or None
        On the test set.
    pictures : sequence of Picture

    Returns
    -------
    str
        One HTML file that asks for nothing: equal arguments give equal text. What is absent
        is said in its place.
    """
    spec, found = snapshot.spec, summary(snapshot)
    drawn = _figures(snapshot, spec, curves, retrain_curves, evaluation)
    if found.front is not None and "n_parameters" in found.front.objectives:
        drawn["front"] = figures_front.by_parameters(snapshot, found.front)
    dimensions = spec.space.dimensions()
    ranked = eligible_trials(snapshot.trials)
    trial = next((t for t in snapshot.trials if t.number == snapshot.chosen), None)
    trial = trial or (ranked[0] if ranked else None)
    configuration = [] if trial is None else _configuration(spec, trial.params)
    rows = figures_dimension.dimension_rows(
        snapshot, spec.model.encoding_dim, _pca_curve(snapshot, evaluation)
    )
    script, styles = _text("page.js"), _text("page.css")
    plotly = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")
    figures = [figure for figure in drawn.values() if isinstance(figure, Figure)]
    data = {"template": TEMPLATE, "figures": [figure.drawing() for figure in figures]}
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_text("page.html")).render(
        policy=_policy(plotly, script),
        styles=Markup(styles),  # noqa: S704 - our own file, as the two below
        plotly=Markup(plotly),  # noqa: S704
        script=Markup(script),  # noqa: S704
        data=script_json(data),
        snapshot=snapshot,
        spec=spec,
        found=found,
        status=words.status(found),
        subtitle=words.subtitle(snapshot),
        lead=words.lead(snapshot, found, evaluation),
        tiles=words.tiles(snapshot, found, evaluation),
        trial=trial,
        configuration=configuration,
        figures=drawn,
        evaluation=evaluation,
        pictures=[_picture(picture) for picture in _ordered(pictures, evaluation)],
        trials_table=tables.trials(snapshot, list(dimensions)),
        dimensions_table=tables.dimensions(rows) if len(rows) > 1 else None,
        metrics_table=tables.metrics(evaluation) if evaluation else None,
        robustness_table=tables.robustness(evaluation.robustness) if evaluation else None,
        retrained_table=tables.retrained(snapshot.retrains, denoises=found.denoising is not None)
        if snapshot.retrains
        else None,
        pca_by_fold=bool(snapshot.facts.get("pca")),
        searched=_space(dimensions),
        command="\n".join(words.reproducing_commands(snapshot)),
        specification=to_yaml(spec),
    )


def _figures(
    snapshot: StudySnapshot,
    spec: ResolvedSpec,
    curves: pd.DataFrame,
    retrain_curves: Sequence[RetrainPoint],
    evaluation: Evaluation | None,
) -> dict[str, Figure | str]:
    """Draw everything; a sentence stands where a figure is absent."""
    dimensions = spec.space.dimensions()
    ranked = eligible_trials(snapshot.trials)
    winner = next((t for t in snapshot.trials if t.number == snapshot.chosen), None)
    default_dim = spec.model.encoding_dim
    pca = _pca_curve(snapshot, evaluation)
    rows = figures_dimension.dimension_rows(snapshot, default_dim, pca)
    best_epochs = {record.seed_index: record.best_epoch for record in snapshot.retrains}
    early = early_losses(snapshot, curves)
    drawn = {
        "history": figures_search.history(snapshot),
        "importances": figures_search.importances(
            shares(snapshot, dimensions, seed=spec.seed, early=early),
            at_epoch=int(spec.search.warmup_epochs) if early else None,
        ),
        "parallel": figures_parallel.parallel(snapshot, dimensions),
        "dimensions": figures_dimension.by_dimension(
            snapshot, rows, default_dim, pca, pca_by_fold=bool(snapshot.facts.get("pca"))
        ),
        "folds": figures_training.fold_curves(
            winner or (ranked[0] if ranked else None),
            curves,
            score_epochs=spec.search.score_epochs,
            as_delivered=spec.scores_delivery,
        ),
        "retraining": figures_training.retraining(retrain_curves, best_epochs),
    }
    if evaluation is not None:
        drawn |= {
            "classes": figures_evaluation.per_class(evaluation.metrics),
            "robustness": figures_evaluation.robustness(evaluation.robustness),
            "latent": figures_evaluation.latent(evaluation.latent),
        }
    return drawn


def _pca_curve(snapshot: StudySnapshot, evaluation: Evaluation | None) -> dict[int, float]:
    """MSE of PCA by number of components, over the folds if it is known there, else on the test.

    {} where trials are scored on corrupted images.
    """
    if snapshot.spec.training.corruption != "none":
        return {}
    by_fold = {row["encoding_dim"]: row["mse"] for row in snapshot.facts.get("pca", ())}
    if by_fold or evaluation is None:
        return by_fold
    pca = evaluation.pca
    found = {point.encoding_dim: point.mse for point in pca.curve}
    return found | {pca.encoding_dim: pca.mse}


def _configuration(spec: ResolvedSpec, params: Params) -> list[tuple[str, str, bool]]:
    """Name, value, and whether it was searched, of everything that makes the configuration."""
    whole = spec.configuration(params)
    names = ["architecture", "encoding_dim", "learning_rate", "weight_decay", "dropout"]
    shown = [(name, getattr(whole, name)) for name in names]
    if whole.architecture == "dense":
        shown.insert(1, ("hidden", "-".join(map(str, whole.hidden)) or "none"))
    else:
        shown.insert(1, ("channels", "-".join(map(str, whole.channels))))
    shown.append(("code_activation", whole.code_activation))
    if spec.training.corruption != "none":
        shown.append(("corruption", spec.training.corruption))
        shown.append(("corruption_level", whole.corruption_level))
    shown += [("optimizer", spec.training.optimizer), ("batch_size", spec.training.batch_size)]
    return [(spelled(name), parameter_text(value), name in params) for name, value in shown]


def _space(dimensions: Mapping[str, Dimension]) -> list[tuple[str, str]]:
    """Say in words what was searched."""
    found = []
    for name, dimension in dimensions.items():
        choices = getattr(dimension, "choices", None)
        if choices is not None:
            text = ", ".join(map(parameter_text, choices))
        else:
            low, high = getattr(dimension, "low", None), getattr(dimension, "high", None)
            text = f"{parameter_text(low)} to {parameter_text(high)}"
            text += ", on a logarithmic scale" if getattr(dimension, "log", False) else ""
        found.append((spelled(name), text))
    return found


_TITLES = {
    "samples": "Random images",
    "reconstructions-best": "The easiest",
    "reconstructions-median": "The middling",
    "reconstructions-worst": "The hardest",
    "oddest": "The oddest training images",
    "corruption-gaussian": "Gaussian noise",
    "corruption-uniform": "Uniform noise",
    "corruption-salt-and-pepper": "Salt and pepper",
    "corruption-occlusion": "A black square",
    "interpolation": "From one image to another",
}


def _ordered(pictures: Sequence[Picture], evaluation: Evaluation | None) -> list[Picture]:
    names = [picture.name for picture in evaluation.pictures] if evaluation else []
    order = {name: position for position, name in enumerate(names)}
    return sorted(pictures, key=lambda picture: (order.get(picture.name, len(order)), picture.name))


@dataclass(frozen=True)
class _Shown:
    """A picture as a data URI with its size, so that the page does not jump."""

    title: str
    alt: str
    source: str
    width: int
    height: int


def _picture(picture: Picture) -> _Shown:
    name, alt, png = picture
    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    title = _TITLES.get(name, name.replace("-", " ").capitalize())
    return _Shown(
        title, alt, f"data:image/png;base64,{base64.b64encode(png).decode()}", width, height
    )


def _text(name: str) -> str:
    # Line ends as in every checkout: a browser reads CRLF as LF before it takes the hash.
    text = (resources.files("aesearch.studies.report") / name).read_text("utf-8")
    return text.replace("\r\n", "\n")


def _policy(*scripts: str) -> str:
    """Forbid everything but the page's own scripts, by hash, its styles and inline images."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
