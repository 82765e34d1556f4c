"""Figures of the search: how it went and what mattered."""

import math
from collections.abc import Mapping, Sequence

from aesearch.studies.report.look import MSE, Figure, Plotly, color, escaped, loss_axis, spelled
from aesearch.studies.results.records import StudySnapshot, TrialRecord
from aesearch.studies.results.selection import eligible_trials
from aesearch.studies.results.text import parameter_text, value_text


def hover(trial: TrialRecord) -> str:
    """Describe one trial in a few lines."""
    lines = [f"<b>Trial {trial.number}</b> {trial.state}"]
    if trial.value is not None:
        lines.append(f"MSE {value_text(trial.value, trial.standard_error)}")
    lines += [
        f"{escaped(spelled(name))}: {escaped(parameter_text(value))}"
        for name, value in trial.params.items()
    ]
    return "<br>".join(lines)


def has_value(trial: TrialRecord) -> bool:
    """Whether the trial has a value that can be drawn."""
    return trial.value is not None and math.isfinite(trial.value)


def history(snapshot: StudySnapshot) -> Figure | str:
    """Every trial's value in the order of the search, with the best so far."""
    valued = [trial for trial in snapshot.trials if has_value(trial)]
    finished = [trial for trial in valued if trial.state in ("complete", "pruned")]
    if not finished:
        return "No trial has a value yet, so there is no optimisation history to draw."
    kinds: list[tuple[str, list[TrialRecord], Plotly]] = [
        (
            "pruned",
            [trial for trial in finished if trial.state == "pruned"],
            {"symbol": "circle-open", "size": 6, "color": color("faint")},
        ),
        (
            "unstable",
            [trial for trial in finished if trial.state == "complete" and trial.unstable],
            {"symbol": "x-thin-open", "size": 8, "color": color("ink"), "line": {"width": 1.5}},
        ),
        (
            "complete",
            [trial for trial in finished if trial.eligible and trial.number != snapshot.chosen],
            {"symbol": "circle", "size": 8, "color": color("accent")},
        ),
        (
            "the winner",
            [trial for trial in finished if trial.number == snapshot.chosen],
            {"symbol": "star", "size": 15, "color": color("winner")},
        ),
    ]
    data = [_best_so_far(snapshot.trials)]
    for name, trials, marker in kinds:
        if trials:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "x": [trial.number for trial in trials],
                    "y": [trial.value for trial in trials],
                    "error_y": {
                        "type": "data",
                        "array": [trial.standard_error or 0.0 for trial in trials],
                        "thickness": 1.2,
                        "width": 0,
                        "visible": name in ("complete", "the winner"),
                    },
                    "marker": marker,
                    "text": [hover(trial) for trial in trials],
                    "hovertemplate": "%{text}<extra></extra>",
                }
            )
    room = max(0.7, 0.03 * snapshot.n_trials)
    ranked = eligible_trials(snapshot.trials)
    told = f"{len(finished)} trials have a value"
    if ranked:
        told += (
            f"; the lowest of a complete, stable trial is {value_text(ranked[0].value)} "
            f"(trial {ranked[0].number})"
        )
    return Figure(
        name="history",
        title="How the search went",
        alt=f"Scatter plot of {MSE} against trial number, with a line for the best so far. {told}.",
        caption="Mean over folds with its standard error. Pruned trials show their last value, "
        + ("on one fold." if snapshot.spec.scores_delivery else "after fewer epochs."),
        data=data,
        layout={
            "xaxis": {
                "title": {"text": "trial"},
                "range": [-room, snapshot.n_trials - 1 + room],
                "tickformat": "d",
            },
            "yaxis": loss_axis([trial.value for trial in finished]),
        },
    )


def _best_so_far(trials: Sequence[TrialRecord]) -> Plotly:
    numbers, values = [], []
    best = math.inf
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.eligible and trial.value is not None and trial.value < best:
            best = trial.value
        if math.isfinite(best) and trial.state not in ("waiting", "running"):
            numbers.append(trial.number)
            values.append(best)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": numbers,
        "y": values,
        "line": {"shape": "hv", "color": color("accent"), "width": 1.5},
        "hoverinfo": "skip",
    }


_OF_SCORES = (
    "Share of the variation of the MSE over the space, as learnt from the complete trials, that "
    "each hyperparameter explains by itself (fANOVA; on an even selection where there are "
    "hundreds); what is missing to 100% is of several together. Whiskers: lowest and highest of "
    "several random forests. Few trials make this a hint, not a finding."
)
_OF_EARLY_LOSSES = (
    "All trials are compared by their loss on fold 0 up to epoch {epoch}. Share of its variation "
    "(of the logarithm, at equal sizes of the code) that each hyperparameter explains by itself "
    "(fANOVA); what is missing to 100% is of several together. Whiskers: lowest and highest of "
    "several random forests. So early a loss says more of how fast a network learns than of how "
    "well it ends."
)
_OF_THE_DASHBOARD = (
    "The dashboard's importances answer another question, and may well differ: what sets the best "
    "tenth of the trials apart from all (PED-ANOVA), scaled to add up to 1."
)


def importances(
    shares: Mapping[str, tuple[float, float, float]] | str, *, at_epoch: int | None = None
) -> Figure | str:
    """How much of the variance each hyperparameter explains; a sentence is passed on.

    Parameters
    ----------
    shares : mapping or str
        Mean, lowest and highest share over the forests, by name; or why there are none.
    at_epoch : int, optional
        Where they are of losses on fold 0 at an epoch, at equal sizes of the code.
    """
    if isinstance(shares, str):
        return shares
    title, caption = "What mattered", _OF_SCORES
    if at_epoch is not None:
        title, caption = "What mattered early on", _OF_EARLY_LOSSES.format(epoch=at_epoch)
    ordered = sorted(shares.items(), key=lambda item: item[1][0])
    means = [mean for _, (mean, _, _) in ordered]
    names = [escaped(spelled(name)) for name, _ in ordered]
    told = ", ".join(f"{spelled(name)} {mean:.0%}" for name, (mean, _, _) in reversed(ordered))
    return Figure(
        name="importances",
        title=title,
        alt=f"Bar chart of the share of the variation in MSE by hyperparameter: {told}.",
        caption=f"{caption} {_OF_THE_DASHBOARD}",
        data=[
            {
                "type": "bar",
                "orientation": "h",
                "x": means,
                "y": names,
                "marker": {"color": color("accent")},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [high - mean for _, (mean, _, high) in ordered],
                    "arrayminus": [mean - low for _, (mean, low, _) in ordered],
                    "color": color("ink"),
                    "thickness": 1.2,
                    "width": 3,
                },
                "text": [f"{mean:.0%}" for mean in means],
                "textposition": "none",
                "hovertemplate": "%{y}: %{text}<extra></extra>",
            }
        ],
        layout={
            "showlegend": False,
            "bargap": 0.45,
            "xaxis": {
                "title": {"text": "share of the variation"},
                "tickformat": ".0%",
                "rangemode": "tozero",
                "showgrid": True,
                "gridcolor": color("grid"),
            },
            "yaxis": {"showgrid": False, "ticks": ""},
        },
    )
