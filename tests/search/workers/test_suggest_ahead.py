"""A worker of a GPU suggests the next generation while the GPU trains this one."""

import threading

import pytest

from aesearch.studies.store import study_rows
from aesearch.workers import schedule, worker
from aesearch.workers.worker import Worker


@pytest.fixture
def searched(tiny_spec, create_study, tmp_path):
    """Search with one worker, whose device leaves it idle or not: the table of the trials."""

    def search(name, *, idles):
        engine = create_study(tmp_path / f"{name}.db", tiny_spec("search.trials=6"))
        one = Worker(engine, "digits", kinds=("search",), stop=threading.Event())
        one._idles = idles
        one.run()
        trials = study_rows.snapshot(engine, "digits").trials
        return [(trial.params, trial.state, trial.value) for trial in trials]

    return search


def test_suggesting_ahead_changes_nothing_but_the_time(searched, monkeypatch):
    """The same trials; each generation but the first had its parameters when it was taken."""
    expected = searched("alone", idles=False)
    taken, waiting = [], []

    def suggest_up_to(engine, study, spec, position, finished=None):
        ahead = threading.current_thread().name == "suggest"
        if not ahead:
            waiting.append(len(schedule.search_results.unsuggested(engine, study, position)))
            taken.append(position)
        return schedule.suggest_up_to(engine, study, spec, position, finished)

    monkeypatch.setattr(worker, "suggest_up_to", suggest_up_to)
    assert searched("ahead", idles=True) == expected
    assert dict(zip(taken, waiting, strict=True)) == {0: 1, 1: 0, 2: 0}


def test_what_goes_wrong_ahead_is_made_up_for(searched, monkeypatch, caplog):
    """A store that fails there fails nothing: the generation is suggested when it is taken."""
    expected = searched("alone", idles=False)
    history = schedule.search_results.history

    def failing(*arguments):
        if threading.current_thread().name == "suggest":
            raise RuntimeError("the store is away")
        return history(*arguments)

    monkeypatch.setattr(schedule.search_results, "history", failing)
    with caplog.at_level("INFO"):
        assert searched("failing", idles=True) == expected
    assert "nothing was suggested ahead (the store is away)" in caplog.text
