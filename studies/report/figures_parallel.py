"""The figure of parallel coordinates: one line per trial through all its hyperparameters.

Plotly's own needs WebGL and ``eval``, which the page forbids; these are plain lines.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from aesearch.studies.report.figures_search import has_value, hover
from aesearch.studies.report.look import Figure, Plotly, color, escaped, spelled
from aesearch.studies.results.records import StudySnapshot, TrialRecord
from aesearch.studies.results.text import parameter_text
from aesearch.studies.spec.dimensions import Choices, Dimension, Range

BANDS = 5  # of the ranked trials, each with its own shade


def parallel(snapshot: StudySnapshot, dimensions: Mapping[str, Dimension]) -> Figure | str:
    """One line per trial through all its hyperparameters, shaded by its rank."""
    ranked = [trial for trial in snapshot.trials if trial.state == "complete" and has_value(trial)]
    ranked.sort(key=lambda trial: (trial.value, trial.number))
    if len(ranked) < 2 or not dimensions:
        return "Parallel coordinates need two complete trials; there are fewer."
    axes = [_Axis(name, dimension) for name, dimension in dimensions.items()]
    losses = _Axis("MSE", _loss_range(ranked))
    pruned = [trial for trial in snapshot.trials if trial.state == "pruned"]
    data = [_lines("pruned", pruned, axes, None, shade=color("faint"), width=0.8)] if pruned else []
    n_bands = min(BANDS, len(ranked))
    for band in reversed(range(n_bands)):
        start, stop = (band * len(ranked)) // n_bands, ((band + 1) * len(ranked)) // n_bands
        members = [trial for trial in ranked[start:stop] if trial.number != snapshot.chosen]
        shade = color(f"rank-{round(band * (BANDS - 1) / max(n_bands - 1, 1))}")
        name = {0: "best", n_bands - 1: "worst"}.get(band, "")
        if members:
            data.append(_lines(name, members, axes, losses, shade=shade, width=1.6))
    winner = [trial for trial in ranked if trial.number == snapshot.chosen]
    if winner:
        data.append(_lines("the winner", winner, axes, losses, shade=color("winner"), width=3.5))
    every = [*axes, losses]
    return Figure(
        name="parallel",
        title="Where the good configurations lie",
        alt=f"Parallel coordinates: one line for each of {len(ranked)} complete trials through "
        f"{', '.join(axis.label for axis in axes)} and the MSE. The table of trials holds the "
        "same values.",
        caption="Each line is one trial; the stronger its colour, the lower its MSE. Categories "
        "are spread a little so that lines can be told apart.",
        wide=True,
        least_width=140 * len(every),
        height=420,
        data=data,
        layout={
            "hovermode": "closest",
            "margin": {"l": 12, "r": 12, "t": 76, "b": 12},
            "legend": {"y": 1.14, "traceorder": "reversed"},
            "xaxis": {"visible": False, "range": [-0.4, len(every) - 0.6]},
            "yaxis": {"visible": False, "range": [-0.06, 1.06]},
            "shapes": [
                {
                    "type": "line",
                    "x0": position,
                    "x1": position,
                    "y0": 0,
                    "y1": 1,
                    "line": {"color": color("rule"), "width": 1.5},
                    "layer": "below",
                }
                for position in range(len(every))
            ],
            "annotations": [
                note for position, axis in enumerate(every) for note in axis.annotations(position)
            ],
        },
    )


def _loss_range(ranked: Sequence[TrialRecord]) -> Dimension:
    low, high = ranked[0].value, ranked[-1].value
    assert low is not None
    assert high is not None
    return Range[Any].model_construct(low=low, high=high, log=low > 0, step=None, when=None)


class _Axis:
    """One vertical axis of the parallel coordinates: values to heights in [0, 1]."""

    def __init__(self, name: str, dimension: Dimension) -> None:
        self.name = name
        self.label = spelled(name)
        self.dimension = dimension

    def height(self, value: Any, number: int) -> float | None:
        """Place a value; ``number`` decides how far aside a category is drawn."""
        if value is None or (isinstance(self.dimension, Choices) and not self._known(value)):
            return None
        if isinstance(self.dimension, Choices):
            n_choices = len(self.dimension.choices)
            index = self.dimension.choices.index(value)
            # The golden ratio spreads consecutive numbers evenly, the same in every report.
            aside = ((number * 0.6180339887) % 1.0 - 0.5) * 0.5
            return min(max((index + 0.5 + aside) / n_choices, 0.0), 1.0)
        low, high = self._scaled(self.dimension.low), self._scaled(self.dimension.high)
        if high == low:
            return 0.5
        return min(max((self._scaled(value) - low) / (high - low), 0.0), 1.0)

    def _known(self, value: Any) -> bool:
        return isinstance(self.dimension, Choices) and value in self.dimension.choices

    def _scaled(self, value: float) -> float:
        log = isinstance(self.dimension, Range) and self.dimension.log
        return math.log(value) if log else float(value)

    def annotations(self, position: int) -> list[Plotly]:
        """Name the axis and its ends, or its categories."""
        notes = [_note(position, 1.0, f"<b>{escaped(self.label)}</b>", "ink", yshift=22)]
        if isinstance(self.dimension, Choices):
            n_choices = len(self.dimension.choices)
            notes += [
                _note(position, (index + 0.5) / n_choices, parameter_text(choice), "ink", xshift=-8)
                | {"xanchor": "right", "bgcolor": color("halo"), "borderpad": 1}
                for index, choice in enumerate(self.dimension.choices)
            ]
            return notes
        ends = ((0.0, self.dimension.low, -11), (1.0, self.dimension.high, 8))
        return notes + [
            _note(position, y, parameter_text(end), "muted", yshift=shift) for y, end, shift in ends
        ]


def _note(x: float, y: float, text: str, shade: str, **changes: Any) -> Plotly:
    plain = text if text.startswith("<b>") else escaped(text)
    note = {"x": x, "y": y, "text": plain, "showarrow": False, "font": {"color": color(shade)}}
    return note | changes


def _lines(
    name: str,
    trials: Sequence[TrialRecord],
    axes: Sequence[_Axis],
    losses: _Axis | None,
    *,
    shade: str,
    width: float,
) -> Plotly:
    """One trace of many lines, with gaps between them."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial in trials:
        heights = [axis.height(trial.params.get(axis.name), trial.number) for axis in axes]
        if losses is not None:
            heights.append(losses.height(trial.value, trial.number))
        x += [*range(len(heights)), None]
        y += [*heights, None]
        text += [hover(trial)] * len(heights) + [""]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "showlegend": name != "",
        "x": x,
        "y": y,
        "text": text,
        "line": {"color": shade, "width": width, "dash": "dot" if losses is None else "solid"},
        "hovertemplate": "%{text}<extra></extra>",
        "connectgaps": False,
    }
