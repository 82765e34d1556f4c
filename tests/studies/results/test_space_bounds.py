"""A winner at an end of its space is said to be there, where a wider space could help."""

from dataclasses import replace

import pytest
from finished_study import FINISHED, FIXED, resolved_spec

from aesearch.studies.report.words import lead
from aesearch.studies.results.space_bounds import edges
from aesearch.studies.results.summary import summary
from aesearch.studies.results.summary_text import summary_text
from aesearch.studies.spec.load import load_spec

SEARCHED = (
    "space.hidden.choices=[none, 32, 64]",
    "space.code_activation.choices=[relu, linear]",
    "space.learning_rate={low: 1e-4, high: 1e-2, log: true}",
    "space.weight_decay={low: 1e-7, high: 1e-3, log: true}",
    "space.dropout={low: 0, high: 0.5}",
)
SPACE = load_spec(overrides=SEARCHED).space


@pytest.mark.parametrize(
    ("params", "end"),
    [
        ({"learning_rate": 1e-2}, "upper"),
        ({"learning_rate": 9.2e-3}, "upper"),  # within a fiftieth of two decades
        ({"learning_rate": 9e-3}, None),
        ({"learning_rate": 1.05e-4}, "lower"),
        ({"weight_decay": 1e-3}, "upper"),
        ({"dropout": 0.5}, "upper"),
        ({"weight_decay": 1e-7}, None),  # none of it
        ({"dropout": 0.0}, None),
        ({"encoding_dim": 32}, None),  # a larger code usually errs less
        ({"encoding_dim": 4}, "lower"),
        ({"hidden": "64", "code_activation": "linear", "architecture": "conv"}, None),
        ({"momentum": 0.9}, None),  # not searched
    ],
)
def test_ends_are_found_on_the_scale_of_the_range(params, end):
    """Two hundredths of it from either end, where that end is not a natural one."""
    assert [edge.end for edge in edges(params, SPACE)] == ([] if end is None else [end])


@pytest.mark.parametrize(
    ("choices", "value", "end"),
    [
        ([1e-4, 1e-3, 1e-2], 1e-2, "upper"),
        ([1e-2, 1e-4, 1e-3], 1e-4, "lower"),
        ([1e-4, 1e-3, 1e-2], 1e-3, None),
        ([1e-5, 1e-4, 1e-3, 1e-2], 1e-4, None),  # near the end on a linear scale only
        ([1e-4, 1e-3], 1e-3, None),  # both are ends
        ([1e-3], 1e-3, None),
    ],
)
def test_ends_of_numeric_choices(choices, value, end):
    """In whatever order they were given."""
    space = load_spec(overrides=[f"space.learning_rate.choices={choices}"]).space
    found = edges({"learning_rate": value}, space)
    assert [edge.end for edge in found] == ([] if end is None else [end])


def test_the_summary_and_the_report_say_so():
    """Of the winner, with the range and what to do."""
    winner = next(trial for trial in FINISHED.trials if trial.number == FINISHED.chosen)
    trials = (replace(winner, params=winner.params | {"learning_rate": 0.01}), *FINISHED.trials[2:])
    study = replace(FINISHED, spec=resolved_spec(*SEARCHED), trials=trials)
    found = summary(study)
    said = "learning_rate lies at the upper end of what was searched (0.0001 to 0.01)"
    assert said in summary_text(found)
    assert said in " ".join(lead(study, found, None))
    assert "lies at the" not in summary_text(summary(FINISHED))
    fixed = replace(FINISHED, spec=resolved_spec(*FIXED, *SEARCHED), trials=trials)
    assert "lies at the" not in summary_text(summary(fixed))  # fast learners win there
