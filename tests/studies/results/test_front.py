"""The Pareto front against its definition, its knee by hand, and who is chosen from it."""

import math
from dataclasses import replace

import pytest
from finished_study import FINISHED, FIXED, resolved_spec, trial
from hypothesis import given
from hypothesis import strategies as st
from report_study import report_arguments

from aesearch.studies.errors import SpecError
from aesearch.studies.report.page import report_page
from aesearch.studies.results import frames
from aesearch.studies.results.best_result import Origin
from aesearch.studies.results.front import knee, pareto_front
from aesearch.studies.results.records import TrialRecord
from aesearch.studies.results.selection import choose, selection_sizes
from aesearch.studies.results.summary import summary
from aesearch.studies.results.summary_text import summary_text


def complete(number: int, value: float, *sizes: int, se: float = 0.001) -> TrialRecord:
    """Give a trial whose sizes are its parameters."""
    params = {f"size_{i}": size for i, size in enumerate(sizes)}
    return TrialRecord(number, "complete", params, value=value, standard_error=se)


def sizes(record: TrialRecord) -> tuple[int, ...]:
    """Read them again."""
    return tuple(record.params.values())


def numbers(records) -> list[int]:
    """Give their numbers."""
    return [record.number for record in records]


# Scaled errors 1, 0.3, 0.1, 0 and sizes 0, 0.2, 0.6, 1.
BENT = [complete(0, 0.11, 2), complete(1, 0.04, 4), complete(2, 0.02, 8), complete(3, 0.01, 12)]
STRAIGHT = [complete(0, 0.3, 1), complete(1, 0.2, 2), complete(2, 0.1, 3)]
BULGING = [complete(0, 0.3, 1), complete(1, 0.29, 2), complete(2, 0.1, 3)]


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=30
    )
)
def test_the_front_is_what_nothing_beats(points):
    """By the definition: no other has no more of everything and less of something."""
    records = [complete(i, *point) for i, point in enumerate(points)]
    beaten = {
        i
        for i, one in enumerate(points)
        for j, other in enumerate(points)
        if all(b <= a for a, b in zip(one, other, strict=True)) and (other != one or j < i)
    }
    front = pareto_front(records, sizes)
    assert sorted(numbers(front)) == sorted(set(range(len(points))) - beaten)
    assert [sizes(record) for record in front] == sorted(sizes(record) for record in front)


def test_the_knee_is_farthest_below_the_line_between_the_ends():
    """Sums of scaled error and size: 1, 0.5, 0.7, 1."""
    assert knee(BENT, sizes).number == 1


def test_two_sizes_count_as_much_as_the_error():
    """They are averaged; one that all have alike does not count."""
    alike = [replace(record, params={**record.params, "size_1": 7}) for record in BENT]
    assert knee(alike, sizes).number == 1
    # The second size makes trial 1 as large as the largest: (0.2 + 1) / 2 + 0.3 = 0.9.
    second = [0, 10, 2, 10]
    both = [replace(r, params={**r.params, "size_1": s}) for r, s in zip(BENT, second, strict=True)]
    assert knee(both, sizes).number == 2
    # Means: 1, 0.5 + 0.3, 0.1 + 0.6, 1. Sums would have no knee.
    shallow = [(1.0, 0), (0.5, 3), (0.1, 6), (0.0, 10)]
    twice = [complete(i, error, size, size) for i, (error, size) in enumerate(shallow)]
    assert knee(twice, sizes).number == 2


@pytest.mark.parametrize("front", [BENT[:2], STRAIGHT, BULGING])
def test_no_knee_without_three_trials_and_a_bend(front):
    """The best is chosen then."""
    assert knee(front, sizes) is None
    assert choose(front, "knee", sizes).number == front[-1].number


def test_a_front_of_equal_errors_has_no_knee():
    """Networks that are delivered as PCA err alike; a small code may have many weights."""
    alike = [complete(0, 0.01, 2, 300), complete(1, 0.01, 4, 200), complete(2, 0.01, 8, 100)]
    assert numbers(pareto_front(alike, sizes)) == [0, 1, 2]
    assert knee(alike, sizes) is None
    assert choose(alike, "knee", sizes).number == 0


def test_the_knee_is_chosen_from_the_front_alone():
    """A trial that another one beats moves no end of the front."""
    worse = complete(9, 0.9, 30)
    assert choose([*BENT, worse], "knee", sizes).number == 1
    unstable = replace(complete(8, 0.001, 1), unstable="it oscillates")
    assert choose([*BENT, unstable], "knee", sizes).number == 1


def test_one_se_goes_by_the_objectives_in_their_order():
    """The smallest within a standard error; of two as small the better."""
    near = [complete(0, 0.0110, 8, 1), complete(1, 0.0105, 8, 9), complete(2, 0.0100, 9, 0)]
    assert choose(near, "one-se", lambda record: sizes(record)[:1]).number == 1
    assert choose(near, "one-se", sizes).number == 0
    assert choose(near, "one-se", lambda record: sizes(record)[1:]).number == 2


def test_the_best_of_equals_is_the_smallest():
    """So that the best is on the front, too."""
    assert choose([complete(0, 0.1, 8), complete(1, 0.1, 4)], "best", sizes).number == 1


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["search.select=best"], ()),
        (["search.select=one-se"], (8,)),
        (["search.select=best", "search.objectives=[mse, encoding_dim]"], (8,)),
        (["search.select=one-se", "search.objectives=[n_parameters, mse]"], (35_336,)),
        (
            ["search.select=knee", "search.objectives=n_parameters, mse, encoding_dim"],
            (35_336, 8),
        ),
    ],
)
def test_what_a_choice_goes_by(overrides, expected):
    """Objectives beside mse; without any, one-se goes by the code, and the best by nothing."""
    read = selection_sizes(resolved_spec(*overrides), (1, 8, 8))
    assert read(TrialRecord(0, "complete", {"encoding_dim": 8})) == expected


OBJECTIVES = "search.objectives=[mse, n_parameters]"


def of_three_sizes(*overrides: str, chosen: int = 1):
    """Make a study whose front has trials of three sizes, and a fourth that is beaten."""
    codes = {0: (4, 0.03), 1: (8, 0.012), 2: (32, 0.01), 3: (32, 0.02)}
    trials = [
        trial(number, value, value, value, params={"encoding_dim": code, "learning_rate": 0.001})
        for number, (code, value) in codes.items()
    ]
    spec = resolved_spec(*FIXED[1:], *overrides)
    return replace(FINISHED, spec=spec, trials=tuple(trials), n_trials=4, chosen=chosen)


def test_the_summary_tells_the_front():
    """In plain values and in words; weights are counted for each trial."""
    found = summary(of_three_sizes(OBJECTIVES, "search.select=knee"))
    front = found.to_dict()["front"]
    assert front["objectives"] == ["mse", "n_parameters"]
    assert front["trials"][1] == {
        "number": 1,
        "mse": pytest.approx(0.012),
        "encoding_dim": 8,
        "n_parameters": 35_336,
    }
    assert front["knee"] == 1
    text = summary_text(found)
    assert "Pareto front of mse, n_parameters, 3 trials, the smallest first:\n" in text
    assert "  trial 1: 0.012, n_parameters 35,336, the winner, its knee\n" in text


def test_a_front_without_knee_is_said():
    """Where somebody asked for one."""
    snapshot = of_three_sizes(OBJECTIVES, "search.select=knee")
    two = replace(snapshot, trials=snapshot.trials[1:], chosen=2)
    assert "it has no knee" in summary_text(summary(two))
    best = replace(two, spec=resolved_spec(*FIXED[1:], OBJECTIVES))
    assert "knee" not in summary_text(summary(best))


def test_without_further_objectives_nothing_is_told():
    """The summary has the keys that it had."""
    found = summary(of_three_sizes())
    assert "front" not in found.to_dict()
    assert "Pareto" not in summary_text(found)
    assert "front" not in Origin.of(of_three_sizes(), FINISHED.trials[0]).to_dict()


def test_a_best_yaml_names_the_front():
    """Numbers, the smallest first."""
    snapshot = of_three_sizes(OBJECTIVES)
    assert Origin.of(snapshot, snapshot.trials[1]).to_dict()["front"] == {
        "objectives": ["mse", "n_parameters"],
        "trials": [0, 1, 2],
    }


def test_the_front_as_a_table():
    """Of any study, over any objectives; over the size of the code where it has no other."""
    table = frames.front(of_three_sizes())
    assert table["number"].tolist() == [0, 1, 2]
    assert table["encoding_dim"].tolist() == [4, 8, 32]
    assert table["knee"].tolist() == [False, True, False]
    assert list(map(str, table.dtypes)) == ["int64", "float64", "int64", "int64", "bool"]
    empty = frames.front(replace(FINISHED, trials=(), chosen=None), ["mse", "n_parameters"])
    assert list(empty.columns) == list(table.columns)
    assert empty.empty
    with pytest.raises(SpecError, match="objectives: must name mse, and each objective once"):
        frames.front(FINISHED, ["encoding_dim"])


def test_the_report_draws_the_front():
    """By weights where they are an objective: the front, and the winner."""
    arguments = report_arguments()
    snapshot = arguments["snapshot"]
    assert "What more weights buy" not in report_page(**arguments)
    search = snapshot.spec.search.model_copy(update={"objectives": ("mse", "n_parameters")})
    spec = snapshot.spec.model_copy(update={"search": search})
    html = report_page(**arguments | {"snapshot": replace(snapshot, spec=spec)})
    assert "What more weights buy" in html
    found = summary(replace(snapshot, spec=spec)).front
    assert (
        f"On the Pareto front of MSE and number of weights lie {len(found.trials)} trials" in html
    )
    drawn = html[html.index('"name":"front"') :]
    assert all(str(row.n_parameters) in drawn for row in found.trials)
    assert math.isclose(found.trials[-1].mse, summary(snapshot).best.value)
