"""Small plotly figures for the dashboard's study page, as JSON; each title stands alone.

The dashboard sends every figure again each time it polls and knows no template: figures hold
few points, and colours that can be read on white and on black.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from aesearch.studies.dashboard.finished import CurvePoint
from aesearch.studies.results.records import TrialRecord
from aesearch.studies.results.selection import eligible_trials
from aesearch.studies.results.summary import Front
from aesearch.studies.results.text import parameter_text, value_text

Plotly = dict[str, Any]  # a part of a figure, as plotly's JSON has it

MAX_BYTES = 30_000
BEST_SHOWN = 20
_POINTS = 300
_EPOCHS = 100
_FOLDS = 10
_DIMENSIONS_NAMED = 10
_BLUE, _ORANGE, _GREY = "#3b8bc4", "#de8f05", "#8a8a8a"


def study_figures(
    trials: Sequence[TrialRecord],
    *,
    ties: Sequence[int] | None,
    winner: int | None,
    curve: Sequence[CurvePoint],
    front: Front | None = None,
) -> dict[str, str]:
    """Draw what Optuna's own plots do not show; a figure without anything to show is left out.

    Parameters
    ----------
    ties : sequence of int or None
        Trials that cannot be told apart from the winner; None where that is not known.
    winner : int or None
        The trial that was chosen; None before that.
    curve : sequence of CurvePoint
        Of the winner, or of the best trial so far.
    front : Front, optional
        Of a study with more than one objective.

    Returns
    -------
    dict of name to JSON
    """
    ranked = eligible_trials(trials)
    if not ranked:
        return {}
    shown = ranked[0].number if winner is None else winner
    figures = {
        "best-trials": _best_trials(ranked[:BEST_SHOWN], ties, winner),
        "encoding-dimension": _encoding_dimension(ranked, shown),
        "pareto-front": _pareto_front(trials, front, shown),
        "fold-curves": _fold_curves(curve, shown, chosen=winner is not None),
    }
    return {
        name: json.dumps(figure, separators=(",", ":"), allow_nan=False)
        for name, figure in figures.items()
        if figure is not None
    }


def _best_trials(
    best: Sequence[TrialRecord], ties: Sequence[int] | None, winner: int | None
) -> Plotly | None:
    if len(best) < 2:
        return None
    groups = [
        ("chosen", _ORANGE, [t for t in best if t.number == winner]),
        ("cannot be told apart from it", _BLUE, [t for t in best if t.number in (ties or ())]),
    ]
    grouped = {trial.number for _, _, group in groups for trial in group}
    rest = "can be told apart" if ties is not None else "eligible"
    groups.append((rest, _GREY, [t for t in best if t.number not in grouped]))
    traces = [
        _points(
            [str(t.number) for t in group],
            group,
            name=name,
            colour=colour,
        )
        for name, colour, group in groups
        if group
    ]
    title = f"The {len(best)} best trials: mean ± standard error over folds"
    figure = _figure(traces, title, "trial", "validation MSE per pixel")
    order = [str(trial.number) for trial in best]
    figure["layout"]["xaxis"] |= {
        "type": "category",
        "categoryorder": "array",
        "categoryarray": order,
    }
    return figure


def _encoding_dimension(ranked: Sequence[TrialRecord], shown: int) -> Plotly | None:
    by_dim: dict[int, list[TrialRecord]] = {}
    for trial in ranked:
        dim = trial.params.get("encoding_dim")
        if isinstance(dim, int):
            by_dim.setdefault(dim, []).append(trial)
    if len(by_dim) < 2:
        return None
    dims = sorted(by_dim)
    lowest = [by_dim[dim][0] for dim in dims]
    every = sum(map(len, by_dim.values()))
    # The best of all dimensions would be those of the largest ones.
    most = max(_POINTS // len(dims), 1) if every > _POINTS else every
    sized = [
        trial
        for dim in dims
        for place, trial in enumerate(by_dim[dim])
        if place < most or trial.number == shown
    ]
    others = [t for t in sized if t.number != shown]
    traces = [
        _points([t.params["encoding_dim"] for t in others], others, name="trial", colour=_BLUE),
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best of its dimension",
            "x": dims,
            "y": [_rounded(t.value) for t in lowest],
            "line": {"color": _GREY, "dash": "dot", "width": 1},
            "hoverinfo": "skip",
        },
    ]
    mine = [t for t in sized if t.number == shown]
    if mine:
        x = [mine[0].params["encoding_dim"]]
        traces.append(_points(x, mine, name=f"trial {shown}", colour=_ORANGE))
    which = "every eligible trial" if len(sized) == every else f"the {most} best trials of each"
    title = f"What the encoding dimension buys: loss of {which}"
    figure = _figure(traces, title, "encoding dimension", "validation MSE per pixel")
    if max(dims) >= 4 * min(dims):
        figure["layout"]["xaxis"] |= {"type": "log"}
    if len(dims) <= _DIMENSIONS_NAMED:
        figure["layout"]["xaxis"] |= {"tickvals": dims, "ticktext": list(map(str, dims))}
    return figure


def _pareto_front(trials: Sequence[TrialRecord], front: Front | None, shown: int) -> Plotly | None:
    """Loss against weights; by the encoding dimension every study has a figure."""
    if front is None or "n_parameters" not in front.objectives:
        return None
    weights = {row.number: row.n_parameters for row in front.trials}
    on_front = [trial for trial in trials if trial.number in weights]
    groups = [
        ("on the front", _BLUE, [t for t in on_front if t.number not in {front.knee, shown}]),
        ("its knee", _GREY, [t for t in on_front if t.number == front.knee != shown]),
        (f"trial {shown}", _ORANGE, [t for t in on_front if t.number == shown]),
    ]
    traces = [
        _points([weights[t.number] for t in group], group, name=name, colour=colour)
        for name, colour, group in groups
        if group
    ]
    title = "What more weights buy: the trials on the Pareto front"
    figure = _figure(traces, title, "weights", "validation MSE per pixel")
    if max(weights.values()) >= 8 * min(weights.values()):
        figure["layout"]["xaxis"] |= {"type": "log"}
    return figure


def _fold_curves(curve: Sequence[CurvePoint], number: int, *, chosen: bool) -> Plotly | None:
    folds: dict[int, list[CurvePoint]] = {}
    for point in curve:
        folds.setdefault(point.fold, []).append(point)
    if not folds:
        return None
    traces = []
    for field, name, colour in (
        ("train", "training", _ORANGE),
        ("validation", "validation", _BLUE),
    ):
        for fold, points in list(folds.items())[:_FOLDS]:
            thin = _thinned(points)
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines" if len(thin) > 1 else "markers",
                    "name": name,
                    "legendgroup": name,
                    "showlegend": fold == min(folds),
                    "x": [p.epoch for p in thin],
                    "y": [_rounded(getattr(p, field)) for p in thin],
                    "line": {"color": colour, "width": 1.5},
                    "hovertemplate": f"{name} fold {fold}, epoch %{{x}}: %{{y:.4g}}<extra></extra>",
                }
            )
    who = "the winner" if chosen else "the best so far"
    title = f"Trial {number}, {who}: loss by epoch, one line per fold"
    figure = _figure(traces, title, "epoch", "MSE per pixel")
    figure["layout"]["yaxis"] |= {"type": "log", "tickformat": ".3~g", "dtick": "D2"}
    return figure


def _thinned(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    step = -(-len(points) // _EPOCHS)
    kept = list(points[::step])
    return kept if kept[-1] is points[-1] else [*kept, points[-1]]


def _points(
    x: Sequence[float | int | str], trials: Sequence[TrialRecord], *, name: str, colour: str
) -> Plotly:
    words = [
        f"trial {t.number}: {value_text(t.value, t.standard_error)}"
        + "".join(f"<br>{key} {parameter_text(value)}" for key, value in t.params.items())
        for t in trials
    ]
    many = len(trials) > 60
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": list(x),
        "y": [_rounded(t.value) for t in trials],
        "error_y": {
            "type": "data",
            "array": [_rounded(t.standard_error or 0.0) for t in trials],
            "thickness": 1,
        },
        "marker": {"color": colour, "size": 8},
        # Words of many trials would weigh more than their points.
        "text": [f"trial {t.number}" for t in trials] if many else words,
        "hovertemplate": "%{text}<extra></extra>",
    }


def _figure(traces: Sequence[Plotly], title: str, x_title: str, y_title: str) -> Plotly:
    axis = {"gridcolor": "rgba(138,138,138,0.25)", "zeroline": False, "automargin": True}
    return {
        "data": list(traces),
        "layout": {
            "title": {"text": title, "font": {"size": 15}},
            "font": {"color": _GREY},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
            "legend": {"orientation": "h", "y": -0.2},
            "xaxis": {"title": {"text": x_title}, **axis},
            "yaxis": {"title": {"text": y_title}, **axis},
        },
    }


def _rounded(value: float | None) -> float | None:
    return float(f"{value:.5g}") if value is not None and math.isfinite(value) else None
