"""Figures of training the chosen configuration: on every fold, and again from every seed."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from aesearch.studies.report.look import Figure, color, loss_axis
from aesearch.studies.results.records import RetrainPoint, TrialRecord
from aesearch.studies.results.text import value_text


def fold_curves(
    trial: TrialRecord | None, curves: pd.DataFrame, *, score_epochs: int, as_delivered: bool
) -> Figure | str:
    """Draw the loss of one trial on every fold, their mean, and a band of one standard error.

    Parameters
    ----------
    trial : TrialRecord or None
        The winner, or the best so far.
    curves : DataFrame
        Of ``frames.curves``.
    score_epochs : int
        The last epochs that make up the score.
    as_delivered : bool
        Whether the score is no mean of these losses, but measured once: as what the retraining
        would deliver.
    """
    if trial is None:
        return "No trial is complete and stable yet, so there are no fold curves to draw."
    own = curves[curves["number"] == trial.number]
    if own.empty:
        return f"The store holds no loss curves of trial {trial.number}."
    table = own.pivot_table(index="epoch", columns="fold", values="validation_loss", dropna=False)
    training = own.groupby("epoch")["train_loss"].mean()
    epochs = [int(epoch) for epoch in table.index]
    losses = table.to_numpy(dtype=float)
    mean = losses.mean(axis=1)
    n_folds = losses.shape[1]
    error = losses.std(axis=1, ddof=1) / math.sqrt(n_folds) if n_folds > 1 else np.zeros(len(mean))
    band: dict[str, Any] = {"type": "scatter", "mode": "lines", "x": epochs, "hoverinfo": "skip"}
    band |= {"line": {"width": 0}, "showlegend": False}
    data: list[dict[str, Any]] = [
        band | {"y": (mean - error).tolist()},
        band
        | {"y": (mean + error).tolist(), "fill": "tonexty", "fillcolor": color("accent-soft")}
        | {"name": "± standard error", "showlegend": True},
    ]
    data += [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "each fold",
            "legendgroup": "folds",
            "showlegend": position == 0,
            "x": epochs,
            "y": losses[:, position].tolist(),
            "line": {"color": color("accent"), "width": 0.9, "dash": "dot"},
            "hovertemplate": f"fold {fold}, epoch %{{x}}: %{{y:.4~g}}<extra></extra>",
        }
        for position, fold in enumerate(table.columns)
    ]
    data += [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "mean over folds",
            "x": epochs,
            "y": mean.tolist(),
            "line": {"color": color("accent"), "width": 2.5},
            "hovertemplate": "epoch %{x}: mean %{y:.4~g}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "training loss",
            "x": epochs,
            "y": training.tolist(),
            "line": {"color": color("baseline"), "width": 1.5, "dash": "dash"},
            "hovertemplate": "epoch %{x}: training %{y:.4~g}<extra></extra>",
        },
    ]
    first = epochs[-1] - min(score_epochs, len(epochs)) + 1
    scored = "the last epoch" if first == epochs[-1] else f"epochs {first} to {epochs[-1]}"
    caption = f"Its score is the mean over {scored} (shaded), so no epoch is picked."
    shade = {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "x0": first - 0.5,
        "x1": epochs[-1] + 0.5,
        "y0": 0,
        "y1": 1,
        "line": {"width": 0},
        "fillcolor": color("shade"),
        "layer": "below",
    }
    if as_delivered:
        caption = (
            "The loss is that of images which each fold keeps aside to stop its training. Its "
            "score is measured once, with the weights of the best epoch, on the images that the "
            f"fold holds out: {', '.join(map(value_text, trial.fold_scores))}."
        )
    return Figure(
        name="folds",
        title=f"Trial {trial.number} on each fold",
        alt=f"Line plot of the validation loss of trial {trial.number} over {len(epochs)} epochs "
        f"on {n_folds} folds. The mean goes from {value_text(float(mean[0]))} to "
        f"{value_text(float(mean[-1]))}.",
        caption=f"{caption} The training loss is measured with dropout, while the weights still "
        "change.",
        data=data,
        layout={
            "xaxis": {"title": {"text": "epoch"}, "tickformat": "d"},
            "yaxis": loss_axis([*losses.ravel().tolist(), *training]),
            "shapes": [] if as_delivered else [shade],
        },
    )


def retraining(rows: Sequence[RetrainPoint], best_epochs: Mapping[int, int]) -> Figure | str:
    """Draw the losses of every retrained seed, and which epoch's weights are kept.

    Parameters
    ----------
    rows : sequence of RetrainPoint
    best_epochs : mapping
        Seed index to the epoch, from 1, that was kept; 0 for the start as PCA.
    """
    if not rows:
        return "Nothing has been retrained yet: that comes after the search, with the winner."
    by_seed: dict[int, list[RetrainPoint]] = defaultdict(list)
    for row in rows:
        by_seed[row.seed_index].append(row)
    dashes = ("solid", "dash", "dot", "dashdot", "longdash")
    data: list[dict[str, Any]] = []
    told = []
    for position, seed in enumerate(sorted(by_seed)):
        of_seed = sorted(by_seed[seed])
        epochs = [row.epoch for row in of_seed]
        held_out = [row.validation_loss for row in of_seed]
        shade = color(f"seed-{position % 4}")
        line = {"color": shade, "width": 2, "dash": dashes[position % len(dashes)]}
        group = {"type": "scatter", "legendgroup": f"seed {seed}", "x": epochs}
        data += [
            group
            | {
                "mode": "lines",
                "name": f"training, seed {seed}",
                "showlegend": False,
                "y": [row.train_loss for row in of_seed],
                "line": {"color": shade, "width": 0.8},
                "opacity": 0.55,
                "hovertemplate": f"seed {seed}, epoch %{{x}}: training %{{y:.4~g}}<extra></extra>",
            },
            group
            | {
                "mode": "lines",
                "name": f"seed {seed}",
                "y": held_out,
                "line": line,
                "customdata": [_right_pixels(row.validation_accuracy) for row in of_seed],
                "hovertemplate": f"seed {seed}, epoch %{{x}}: %{{y:.4~g}}%{{customdata}}"
                "<extra></extra>",
            },
        ]
        kept = best_epochs.get(seed)
        if kept == 0:
            told.append(f"seed {seed} keeps the PCA that it started as: no epoch was better")
        elif kept in epochs:
            loss = held_out[epochs.index(kept)]
            told.append(f"seed {seed} keeps epoch {kept} of {epochs[-1]} with {value_text(loss)}")
            data.append(
                group
                | {
                    "x": [kept],
                    "y": [loss],
                    "mode": "markers",
                    "name": f"best epoch, seed {seed}",
                    "showlegend": False,
                    "marker": {
                        "size": 10,
                        "color": color("surface"),
                        "line": {"color": shade, "width": 2.5},
                    },
                    "hovertemplate": f"seed {seed} keeps epoch %{{x}}: %{{y:.4~g}}<extra></extra>",
                }
            )
    losses = [loss for row in rows for loss in (row.train_loss, row.validation_loss)]
    return Figure(
        name="retraining",
        title="Retraining, seed by seed",
        alt=f"Line plot of the loss on the held-out part over the epochs: {'; '.join(told)}.",
        caption="Loss on the part of the training set that was held out for early stopping; thin: "
        "training loss. A ring marks the epoch whose weights are kept.",
        data=data,
        layout={
            "xaxis": {"title": {"text": "epoch"}, "tickformat": "d"},
            "yaxis": loss_axis(losses),
        },
    )


def _right_pixels(accuracy: float) -> str:
    """Say how many pixels of the held-out images were right; nothing where nobody counted."""
    return "" if math.isnan(accuracy) else f", {100 * accuracy:.2f}% of the pixels round right"
