"""The score against the number of weights, with the Pareto front; by the code is elsewhere."""

from aesearch.studies.report.figures_search import hover
from aesearch.studies.report.look import Figure, Plotly, color, loss_axis, spelled
from aesearch.studies.results.records import StudySnapshot, TrialRecord
from aesearch.studies.results.selection import eligible_trials
from aesearch.studies.results.summary import Front
from aesearch.studies.results.text import value_text
from aesearch.studies.spec.weights import n_parameters


def by_parameters(snapshot: StudySnapshot, front: Front) -> Figure:
    """Draw the MSE of every trial that may be chosen against its weights, and the front."""
    shape = snapshot.image_shape
    assert shape is not None, "a front is of a study whose images are known"
    weights = {
        trial.number: n_parameters(snapshot.spec.configuration(trial.params), shape)
        for trial in eligible_trials(snapshot.trials)
    }
    trials = {trial.number: trial for trial in eligible_trials(snapshot.trials)}
    on_front = [trials[row.number] for row in front.trials]

    def markers(name: str, shown: list[TrialRecord], marker: Plotly) -> Plotly:
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [weights[trial.number] for trial in shown],
            "y": [trial.value for trial in shown],
            "marker": marker,
            "text": [f"{hover(trial)}<br>weights: {weights[trial.number]:,}" for trial in shown],
            "hovertemplate": "%{text}<extra></extra>",
        }

    others = [trial for trial in trials.values() if trial not in on_front]
    data = [markers("other trials", others, {"color": color("faint"), "size": 6})]
    # Of three objectives the front is no line in two.
    if set(front.objectives) == {"mse", "n_parameters"}:
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "the front's line",
                "showlegend": False,
                "x": [weights[trial.number] for trial in on_front] + [max(weights.values())],
                "y": [trial.value for trial in on_front] + [on_front[-1].value],
                "line": {"shape": "hv", "color": color("accent"), "width": 1.5},
                "hoverinfo": "skip",
            }
        )
    data.append(markers("Pareto front", on_front, {"size": 10, "color": color("accent")}))
    winner = trials.get(-1 if snapshot.chosen is None else snapshot.chosen)
    if winner is not None:
        marker = {"symbol": "star", "size": 15, "color": color("winner")}
        data.append(markers("the winner", [winner], marker))
    told = "; ".join(f"{row.n_parameters:,}: {value_text(row.mse)}" for row in front.trials)
    bend = "" if front.knee is None else f" It bends most at trial {front.knee}, its knee."
    log = max(weights.values()) >= 8 * min(weights.values())
    return Figure(
        name="front",
        title="What more weights buy",
        alt=f"MSE of the trials on the Pareto front by number of weights: {told}.",
        caption=f"On the Pareto front of {' and '.join(map(spelled, front.objectives))}: no other "
        f"trial has less of one and no more of the rest.{bend}",
        data=data,
        layout={
            "xaxis": {
                "title": {"text": "weights and biases" + " (log scale)" * log},
                "type": "log" if log else "linear",
            },
            "yaxis": loss_axis([trial.value for trial in trials.values()]),
        },
    )
