"""What the size of the code buys: the best trial of each dimension, beside PCA of that size."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aesearch.studies.report.figures_search import hover
from aesearch.studies.report.look import Figure, color, loss_axis
from aesearch.studies.results.records import StudySnapshot, TrialRecord
from aesearch.studies.results.selection import eligible_trials
from aesearch.studies.results.text import value_text


@dataclass(frozen=True)
class DimensionRow:
    """The best stable trial of one encoding dimension.

    Attributes
    ----------
    on_front : bool
        No smaller code reaches its MSE.
    pca_mse : float or None
        Of PCA with as many components, on the test set.
    """

    encoding_dim: int
    trial: TrialRecord
    n_trials: int
    on_front: bool
    pca_mse: float | None


def dimension_rows(
    snapshot: StudySnapshot, default_encoding_dim: int, pca_by_dim: Mapping[int, float]
) -> list[DimensionRow]:
    """Give the best stable trial of each encoding dimension, the smallest dimension first."""
    groups: dict[int, list[TrialRecord]] = defaultdict(list)
    for trial in eligible_trials(snapshot.trials):
        groups[int(trial.params.get("encoding_dim", default_encoding_dim))].append(trial)
    rows: list[DimensionRow] = []
    lowest = math.inf
    for dim in sorted(groups):
        best = groups[dim][0]
        assert best.value is not None
        on_front = best.value < lowest
        lowest = min(lowest, best.value)
        rows.append(DimensionRow(dim, best, len(groups[dim]), on_front, pca_by_dim.get(dim)))
    return rows


def by_dimension(
    snapshot: StudySnapshot,
    rows: Sequence[DimensionRow],
    default_encoding_dim: int,
    pca_by_dim: Mapping[int, float],
    *,
    pca_by_fold: bool,
) -> Figure | str:
    """Draw the MSE against the size of the code, with PCA and the one-standard-error rule."""
    if not rows:
        return "No trial is complete and stable yet, so there is nothing to compare by size."
    if len(rows) == 1:
        return f"Every stable trial has the encoding dimension {rows[0].encoding_dim}."
    dims = [row.encoding_dim for row in rows]
    trials = eligible_trials(snapshot.trials)
    values = [row.trial.value for row in rows]
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "other trials",
            "x": [int(t.params.get("encoding_dim", default_encoding_dim)) for t in trials],
            "y": [t.value for t in trials],
            "marker": {"color": color("faint"), "size": 6},
            "text": [hover(t) for t in trials],
            "hovertemplate": "%{text}<extra></extra>",
        }
    ]
    baseline = sorted((d, mse) for d, mse in pca_by_dim.items() if dims[0] <= d <= dims[-1])
    if baseline:
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "PCA",
                "x": [dim for dim, _ in baseline],
                "y": [mse for _, mse in baseline],
                "line": {"color": color("baseline"), "dash": "dash", "width": 1.8},
                "marker": {"symbol": "diamond", "size": 8, "color": color("baseline")},
                "hovertemplate": "PCA with %{x} numbers: %{y:.4~g}<extra></extra>",
            }
        )
    front = [row for row in rows if row.on_front]
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [row.encoding_dim for row in front] + [dims[-1]],
            "y": [row.trial.value for row in front] + [front[-1].trial.value],
            "line": {"shape": "hv", "color": color("accent"), "width": 1.5},
            "hoverinfo": "skip",
        }
    )
    data.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "best of its size",
            "x": dims,
            "y": values,
            "error_y": {
                "type": "data",
                "array": [row.trial.standard_error or 0.0 for row in rows],
                "thickness": 1.4,
                "width": 5,
                "color": color("accent"),
            },
            "marker": {
                "size": 10,
                "color": [color("accent" if row.on_front else "surface") for row in rows],
                "line": {"color": color("accent"), "width": 2},
            },
            "text": [hover(row.trial) for row in rows],
            "hovertemplate": "%{text}<extra></extra>",
        }
    )
    winner = next((t for t in trials if t.number == snapshot.chosen), None)
    if winner is not None:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "the winner",
                "x": [int(winner.params.get("encoding_dim", default_encoding_dim))],
                "y": [winner.value],
                "marker": {"symbol": "star", "size": 15, "color": color("winner")},
                "text": [hover(winner)],
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    best = min(rows, key=lambda row: (row.trial.value, row.trial.number)).trial
    assert best.value is not None
    bound = best.value + (best.standard_error or 0.0)
    log = dims[-1] >= 8 * dims[0]
    ticks = {"tickmode": "array", "tickvals": dims, "ticktext": list(map(str, dims))}
    told = "; ".join(f"{row.encoding_dim}: {value_text(row.trial.value)}" for row in rows)
    measured = f" PCA is measured {'over the same folds' if pca_by_fold else 'on the test set'}."
    reach = [*[t.value for t in trials], *[mse for _, mse in baseline], bound]
    return Figure(
        name="dimensions",
        title="What a larger code buys",
        alt=f"MSE of the best stable trial by encoding dimension: {told}.",
        caption="A larger code usually errs less: the question is what it buys. Bars are "
        "standard errors; filled: no smaller code is as good. The shaded strip is the best "
        "trial plus one standard error; the smallest code that reaches it is what the rule "
        f"one-se chooses.{measured if baseline else ''}",
        data=data,
        layout={
            "xaxis": {
                "title": {"text": "encoding dimension (numbers per image)"},
                "type": "log" if log else "linear",
            }
            | (ticks if len(dims) <= 10 else {"tickformat": "d"}),
            "yaxis": loss_axis(reach),
            "shapes": [
                {
                    "type": "rect",
                    "xref": "paper",
                    "yref": "y",
                    "x0": 0,
                    "x1": 1,
                    "y0": best.value,
                    "y1": bound,
                    "line": {"width": 0},
                    "fillcolor": color("accent-soft"),
                    "layer": "below",
                }
            ],
        },
    )
