"""What the store is asked for: few commits a trial, and no more the more trials there are."""

import re
import threading
from dataclasses import replace

import pytest
import sqlalchemy as sa
from chaos import on_commits
from optuna.trial import TrialState

from aesearch.studies.report import importances
from aesearch.studies.results.records import StudySnapshot, TrialRecord
from aesearch.studies.store import ledger, search_results, study_rows
from aesearch.studies.store.search_results import Outcome
from aesearch.workers.worker import Worker

SMALL = ("search.trials=8", "search.pruner=none", "search.generation_size=1", "search.lookahead=2")


def test_a_trial_costs_three_commits(new_store, tiny_spec, create_study):
    """A claim, the suggestion and the result, however many epochs it has; then one idle look."""
    engine = create_study(new_store("s"), tiny_spec(*SMALL))
    commits = []
    on_commits(engine, lambda number, _connection: commits.append(number))
    worker = Worker(engine, "digits", kinds=("search",), stop=threading.Event())
    while worker.step():
        pass
    assert len(study_rows.snapshot(engine, "digits").trials) == 8
    assert len(commits) == 3 * 8 + 1


def test_what_a_worker_remembers_is_what_the_store_holds(
    new_store, tiny_spec, create_study, work, monkeypatch
):
    """Finished trials are read once; the history is the same as if all were read each time."""
    history, looks = search_results.history, []

    def compared(engine, study, finished=None):
        looks.append(len(finished))
        remembered = history(engine, study, finished)
        assert remembered == history(engine, study)
        return remembered

    monkeypatch.setattr(search_results, "history", compared)
    engine = create_study(new_store("s"), tiny_spec(*SMALL, "search.pruner=median"))
    work(engine)
    assert looks[-1] == 7
    assert {t.state for t in study_rows.snapshot(engine, "digits").trials} <= {"complete", "pruned"}


def test_weights_are_written_one_by_one_and_read_for_no_look(new_store, tiny_spec, create_study):
    """Three networks in one statement can be more than a server takes; a status needs none."""
    engine = create_study(new_store("s"), tiny_spec("retrain.seeds=3"))
    seen = []

    @sa.event.listens_for(engine, "before_cursor_execute")
    def note(_connection, _cursor, statement, *_rest):
        seen.append(statement)

    worker = Worker(engine, "digits", stop=threading.Event())
    while worker.step() or not worker.is_over():
        pass
    written = [s for s in seen if s.startswith("INSERT INTO aesearch_retrain ")]
    assert len(written) == 3
    assert len(study_rows.snapshot(engine, "digits").retrains) == 3
    seen.clear()
    study_rows.snapshot(engine, "digits")
    assert any("weights_sha256" in statement for statement in seen)
    assert not any(re.search(r"weights\b", statement) for statement in seen)


def test_what_was_read_is_not_read_again(new_store, tiny_spec, create_study):
    """Rows that a history reads from the store do not grow with what is finished."""
    engine = create_study(
        new_store("s"),
        tiny_spec(*SMALL, "search.trials=60", "space.architecture.choices=[dense, conv]"),
    )
    study = study_rows.find_study(engine, "digits")
    finished: dict[int, object] = {}
    parameters = {"architecture": "dense"}
    asked = []

    @sa.event.listens_for(engine, "before_cursor_execute")
    def note(_connection, _cursor, statement, values, *_rest):
        if "trial_params" in statement and statement.startswith("SELECT"):
            asked.append(len(values))

    from aesearch.sampling.suggest import distributions

    kinds = {"architecture": distributions(study_rows.stored_spec(study))["architecture"]}
    for position in range(30):
        lease = ledger.claim(engine, study, owner="me", lookahead=1)
        (generation,) = search_results.unsuggested(engine, study, position)
        search_results.write_suggestions(engine, generation, [parameters], kinds)
        asked.clear()
        trials, _ = search_results.history(engine, study, finished)
        assert [trial.number for trial in trials] == list(range(position + 1))
        assert max(asked) <= 3, "the study, what runs, and what has finished since"
        outcome = Outcome(position, TrialState.COMPLETE, value=1.0)
        search_results.write_rung(
            engine, lease, curves=[], reports={}, outcomes=[outcome], done=True
        )


def complete_trials(n_trials):
    trial = TrialRecord(0, "complete", {}, 0.1, 0.0, (0.1,), None, None, 1)
    trials = tuple(
        replace(
            trial,
            number=number,
            params={"learning_rate": 0.001 + number * 1e-6, "dropout": 0.02 * (number % 5)},
            value=0.1 + number,
        )
        for number in range(n_trials)
    )
    return StudySnapshot("s", {}, n_trials, trials, (), (), None, 0, {})


def test_importances_take_the_largest_seed(tiny_spec):
    """Each forest has the next seed; the largest has none."""
    snapshot = complete_trials(importances.LEAST_TRIALS)
    found = importances.shares(snapshot, tiny_spec().space.dimensions(), seed=2**32 - 1)
    assert set(found) == {"learning_rate", "dropout"}


@pytest.mark.parametrize("n_trials", [150, 2000])
def test_importances_look_at_a_bounded_number_of_trials(monkeypatch, tiny_spec, n_trials):
    """FANOVA takes the square of their number; those that it sees are spread over all."""
    seen, found = [], {"learning_rate": 1.0, "dropout": 0.0}
    monkeypatch.setattr(importances, "_forest", lambda study, _: seen.append(study) or found)
    importances.shares(complete_trials(n_trials), tiny_spec().space.dimensions(), seed=0)
    values = [trial.value for trial in seen[0].get_trials(deepcopy=False)]
    assert len(values) == min(n_trials, importances.MOST_TRIALS)
    assert values == sorted(set(values))
    assert (values[0], values[-1]) == (0.1, 0.1 + n_trials - 1)
