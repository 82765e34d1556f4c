"""What the figures of the report share: their parts, colours by name, numbers that JSON can hold.

Figures are plain plotly JSON. A colour is written ``var(--name)``: the style sheet holds its
light and its dark value, and the page's script puts in the one that applies.
"""

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

Plotly = dict[str, Any]  # a part of a figure, as plotly's JSON has it

DIGITS = 6  # significant digits of a number in a figure: no screen shows more
MSE = "mean squared error per pixel"


@dataclass(frozen=True)
class Figure:
    """One drawing with its words.

    Attributes
    ----------
    name : str
        Unique in the page; letters and hyphens.
    title : str
        What the drawing is of.
    alt : str
        What the drawing shows, for those who do not see it.
    data, layout
        As ``Plotly.newPlot`` takes them; every text of a study in them is `escaped`.
    height : int
        Of the drawing, in CSS pixels.
    caption : str
        How to read it.
    wide : bool
        Takes the whole width of the page.
    least_width : int
        Where the screen is narrower the drawing scrolls inside its frame; 0 never.
    """

    name: str
    title: str
    alt: str
    data: list[Plotly]
    layout: Plotly = field(default_factory=dict)
    height: int = 340
    caption: str = ""
    wide: bool = False
    least_width: int = 0

    def drawing(self) -> Plotly:
        """Give what the page's script needs, in values that JSON can hold."""
        layout = {"height": self.height} | self.layout
        return {"name": self.name, "data": clean(self.data), "layout": clean(layout)}


def color(name: str) -> str:
    """Name a colour of the style sheet."""
    return f"var(--{name})"


def escaped(text: object) -> str:
    """Make text of a study safe inside plotly, which reads some tags and entities."""
    return html.escape(str(text), quote=False)


def clean(value: Any) -> Any:
    """Round floats, and turn what JSON cannot hold (nan, infinity) into None."""
    if isinstance(value, Mapping):
        return {str(key): clean(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [clean(inner) for inner in value]
    if isinstance(value, bool) or value is None or isinstance(value, str | int):
        return value
    number = float(value)
    return float(f"{number:.{DIGITS}g}") if math.isfinite(number) else None


def script_json(data: Any) -> Markup:
    """Write JSON for a script element: no text in it can end the element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704 - what could end the element is gone


# Within one decade; the first that gives enough ticks is taken.
_STEPS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0))
_ENOUGH = 4


def log_ticks(low: float, high: float) -> list[float]:
    """Give round values between two positive ones for a logarithmic axis; [] where they are near.

    Examples
    --------
    >>> log_ticks(0.008, 0.21)
    [0.01, 0.02, 0.05, 0.1, 0.2]
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in _STEPS:
        values = [float(f"{step}e{decade}") for decade in decades for step in steps]
        inside = [value for value in values if low <= value <= high]
        if len(inside) >= _ENOUGH:
            return inside
    return []


def loss_axis(values: Sequence[float | None], title: str = "MSE") -> Plotly:
    """Give an axis of losses: logarithmic where they are positive and lie far enough apart."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    ticks = log_ticks(min(known), max(known)) if known and min(known) > 0 else []
    if not ticks:
        return {"title": {"text": title}, "tickformat": "~g", "nticks": 6}
    return {
        "title": {"text": f"{title} (log scale)"},
        "type": "log",
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def spelled(name: str) -> str:
    """Write the name of a hyperparameter for people."""
    words = {
        "encoding_dim": "encoding dimension",
        "n_parameters": "number of weights",
        "mse": "MSE",
    }
    return words.get(name, name.replace("_", " "))


def count(number: int, noun: str) -> str:
    """Write a number with its noun in the singular or plural."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


TEMPLATE: Plotly = {
    "layout": {
        "font": {"family": "var(--font)", "size": 13, "color": color("muted")},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 12, "r": 14, "t": 12, "b": 12, "pad": 4},
        "hovermode": "closest",
        "dragmode": False,
        "showlegend": True,
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"color": color("ink")},
            "itemclick": "toggle",
            "bgcolor": "rgba(0,0,0,0)",
        },
        "hoverlabel": {
            "bgcolor": color("surface"),
            "bordercolor": color("rule"),
            "font": {"family": "var(--font)", "size": 13, "color": color("ink")},
            "align": "left",
        },
        "xaxis": {
            "automargin": True,
            "fixedrange": True,
            "showgrid": False,
            "zeroline": False,
            "linecolor": color("rule"),
            "showline": True,
            "ticks": "outside",
            "ticklen": 4,
            "tickcolor": color("rule"),
            "title": {"standoff": 10, "font": {"size": 13}},
        },
        "yaxis": {
            "automargin": True,
            "fixedrange": True,
            "gridcolor": color("grid"),
            "zeroline": False,
            "title": {"standoff": 12, "font": {"size": 13}},
        },
    }
}
