"""Figures of the retrained model on the test set: classes, corrupted inputs, the latent space."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from aesearch.studies.report.look import Figure, Plotly, color, escaped, loss_axis
from aesearch.studies.results.evaluation import ClassMetrics, Corrupted, Latent, TestMetrics
from aesearch.studies.results.text import value_text

LARGEST_MAP = 5_000  # points that a browser draws as vectors without a pause
N_CLASS_COLORS = 10
_CORRUPTIONS = {
    "gaussian": "Gaussian",
    "uniform": "Uniform",
    "salt-and-pepper": "Salt and pepper",
    "occlusion": "Black square",
}
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross")


def per_class(metrics: TestMetrics) -> Figure | str:
    """Draw the test MSE of each class with its bootstrap interval."""
    classes = metrics.per_class
    if not classes:
        return "There are no numbers per class: the images have no labels, or too many."
    ordered = sorted(classes, key=lambda row: row.mse.mean)
    names = [escaped(row.label) for row in ordered]
    means = [row.mse.mean for row in ordered]
    overall = metrics.overall.mse.mean
    return Figure(
        name="classes",
        title="Which classes are hard",
        alt=f"Dot plot of the test MSE by class, from {ordered[0].label} "
        f"({value_text(means[0])}) to {ordered[-1].label} ({value_text(means[-1])}); "
        f"over all classes {value_text(overall)}.",
        caption="Test MSE of each class with its bootstrap interval; the dashed line is the mean "
        "over all images.",
        height=max(240, 90 + 26 * len(ordered)),
        data=[
            {
                "type": "scatter",
                "mode": "markers",
                "x": means,
                "y": names,
                "error_x": _interval(ordered),
                "marker": {"size": 10, "color": color("accent")},
                "text": [
                    f"<b>{name}</b>: {value_text(row.mse.mean)} "
                    f"({value_text(row.mse.low)} to {value_text(row.mse.high)}), "
                    f"{row.n} images"
                    for name, row in zip(names, ordered, strict=True)
                ],
                "hovertemplate": "%{text}<extra></extra>",
            }
        ],
        layout={
            "showlegend": False,
            "xaxis": {
                "title": {"text": "test MSE"},
                "tickformat": "~g",
                "rangemode": "tozero",
                "showgrid": True,
                "gridcolor": color("grid"),
                "nticks": 6,
            },
            # A class that is called "3" is a name, not a number.
            "yaxis": {"type": "category", "showgrid": True},
            "shapes": [
                {
                    "type": "line",
                    "xref": "x",
                    "yref": "paper",
                    "x0": overall,
                    "x1": overall,
                    "y0": 0,
                    "y1": 1,
                    "line": {"color": color("muted"), "width": 1.2, "dash": "dash"},
                    "layer": "below",
                }
            ],
        },
    )


def _interval(rows: Sequence[ClassMetrics]) -> Plotly:
    return {
        "type": "data",
        "symmetric": False,
        "array": [row.mse.high - row.mse.mean for row in rows],
        "arrayminus": [row.mse.mean - row.mse.low for row in rows],
        "thickness": 1.4,
        "width": 4,
        "color": color("accent"),
    }


def corruption_name(row: Corrupted) -> str:
    """Name one corruption with its level, as people write it."""
    name = _CORRUPTIONS.get(row.corruption, row.corruption)
    unclamped = "" if row.clamped else ", unclamped"
    return f"{name} {row.level:g}{unclamped}"


def robustness(rows: Sequence[Corrupted]) -> Figure | str:
    """Draw how far each corrupted input, and its reconstruction, are from the clean image."""
    if not rows:
        return "Robustness against corrupted inputs was not measured."
    names = [escaped(corruption_name(row)) for row in rows]
    better = [row for row in rows if row.mse < row.input_mse]
    joined_x: list[float | None] = []
    joined_y: list[str | None] = []
    for name, row in zip(names, rows, strict=True):
        joined_x += [row.input_mse, row.mse, None]
        joined_y += [name, name, None]
    data: list[Plotly] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": joined_x,
            "y": joined_y,
            "line": {"color": color("rule"), "width": 4},
            "hoverinfo": "skip",
            "showlegend": False,
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "corrupted input",
            "x": [row.input_mse for row in rows],
            "y": names,
            "marker": {
                "size": 10,
                "symbol": "diamond",
                "color": color("surface"),
                "line": {"color": color("baseline"), "width": 2},
            },
            "hovertemplate": "%{y}<br>input: %{x:.4~g}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "its reconstruction",
            "x": [row.mse for row in rows],
            "y": names,
            "marker": {"size": 11, "color": color("accent")},
            "hovertemplate": "%{y}<br>reconstruction: %{x:.4~g}<extra></extra>",
        },
    ]
    axis = loss_axis(
        [value for row in rows for value in (row.mse, row.input_mse)],
        "MSE",
    )
    return Figure(
        name="robustness",
        title="What it makes of damaged images",
        alt=f"Dot plot of {len(rows)} corruptions: the reconstruction is nearer to the clean image "
        f"than the corrupted input in {len(better)} of them. The table below holds the numbers.",
        caption="Both are compared with the clean image; noise is clamped to the range "
        "of intensities unless it says so. Where the dot lies left of the diamond, the "
        "autoencoder takes away more damage than it adds.",
        height=100 + 28 * len(rows),
        wide=True,
        least_width=440,
        data=data,
        layout={
            "xaxis": axis | {"showgrid": True, "gridcolor": color("grid")},
            "yaxis": {
                "type": "category",
                "autorange": "reversed",
                "categoryorder": "array",
                "categoryarray": names,
                "showgrid": True,
            },
        },
    )


def latent(found: Latent) -> Figure | str:
    """Draw the codes of the test images in the plane of their two main directions."""
    points = found.points[:LARGEST_MAP]
    labels = None if found.labels is None else found.labels[: len(points)]
    first, second = found.explained_variance
    groups: dict[int | None, list[Sequence[float]]] = defaultdict(list)
    for position, point in enumerate(points):
        groups[None if labels is None else labels[position]].append(point)
    data: list[Plotly] = []
    notes: list[Plotly] = []
    for position, label in enumerate(sorted(groups, key=lambda label: label or 0)):
        members = groups[label]
        name = "test images" if label is None else _class_name(label, found.class_names)
        x, y = [point[0] for point in members], [point[1] for point in members]
        symbol = SYMBOLS[(position // N_CLASS_COLORS) % len(SYMBOLS)]
        shade = color("accent" if labels is None else f"class-{position % N_CLASS_COLORS}")
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": escaped(name),
                "x": x,
                "y": y,
                "marker": {"size": 5, "color": shade, "symbol": symbol, "opacity": 0.7},
                "hovertemplate": "%{fullData.name}<extra></extra>",
            }
        )
        if labels is not None and len(groups) <= 2 * N_CLASS_COLORS:
            notes.append(
                {
                    "x": median(x),
                    "y": median(y),
                    "text": f"<b>{escaped(name)}</b>",
                    "showarrow": False,
                    "font": {"size": 14, "color": color("ink")},
                    "bgcolor": color("halo"),
                    "borderpad": 2,
                }
            )
    told = f"{len(points)} test images in the plane of the two main directions of their codes"
    classes = "" if labels is None else f", coloured by {len(groups)} classes"
    return Figure(
        name="latent",
        title="How the codes are laid out",
        alt=f"Scatter plot of {told}{classes}. The two directions hold {first:.0%} and "
        f"{second:.0%} of the variance.",
        caption=f"{told[0].upper()}{told[1:]} (PCA), which hold {first + second:.0%} of their "
        "variance" + ("." if labels is None else "; names stand at the median of each class."),
        height=520,
        wide=True,
        data=data,
        layout={
            "showlegend": labels is not None,
            "legend": {"itemsizing": "constant"},
            "annotations": notes,
            "xaxis": {"title": {"text": f"first direction ({first:.0%} of the variance)"}},
            "yaxis": {"title": {"text": f"second direction ({second:.0%})"}},
        },
    )


def _class_name(label: int, class_names: Sequence[str] | None) -> str:
    if class_names and 0 <= label < len(class_names):
        return class_names[label]
    return str(label)
