"""A study with a time limit: what a run does at it, and that the store's limit is what counts."""

import threading
import time
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from aesearch.driver import study_run
from aesearch.studies.store import ledger, retrain_results, search_results, study_rows, tables
from aesearch.studies.store.connection import database
from aesearch.workers import schedule
from aesearch.workers.schedule import settle
from aesearch.workers.worker import Worker

SHORT = ("search.trials=4", "search.pruner=none", "retrain.seeds=1", "search.timeout=3600")


def set_deadline(engine, change):
    """Move the deadline by what the database's clock says."""
    with database.writing(engine) as connection:
        deadline = None if change is None else study_rows.clock(connection) + change
        connection.execute(tables.study.update().values(deadline=deadline))


class Crew:
    """One worker in this process; a piece of work each time that it is looked after."""

    def __init__(self, engine, *, after=()):
        self.worker = Worker(engine, "digits", stop=threading.Event())
        self.after = list(after)
        self.starts = 0

    def start(self):
        """Count."""
        self.starts += 1
        assert self.starts < 10, "started again and again"

    def tend(self):
        """Take one piece of work."""
        worked = self.worker.step()
        if worked and self.after:
            self.after.pop(0)()
        return worked

    def stop(self):
        """Nothing: it never outlives a look."""


def watch(engine, crew, monkeypatch):
    """Watch a study as a run does: what it found, and what it said."""
    # What the crew does here is training, nine times as long as which a run would sleep.
    if study_run.time is time:
        asleep = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _seconds: None)
        monkeypatch.setattr(study_run, "time", asleep)
    said = []
    display = SimpleNamespace(update=lambda _snapshot: None, message=said.append)
    return study_run._watch(engine, "digits", crew, display, None), said


def states(snapshot):
    return [trial.state for trial in snapshot.trials]


def test_a_run_ends_at_its_limit(new_store, tiny_spec, create_study, monkeypatch):
    """No generation is begun after it; it says so, once, and chooses among those there are."""
    engine = create_study(new_store("limit"), tiny_spec(*SHORT))
    crew = Crew(engine, after=[lambda: set_deadline(engine, -1)])
    snapshot, said = watch(engine, crew, monkeypatch)
    assert states(snapshot) == ["complete"] * 2 + ["waiting"] * 2
    assert snapshot.chosen in (0, 1)
    assert snapshot.test_looks == 1
    assert said == ["time limit: 2 of 4 trials are finished; no other is begun"]


def test_trials_in_training_at_the_limit_are_waited_for(
    tmp_path, tiny_spec, create_study, monkeypatch
):
    """Nobody chooses while somebody else still trains."""
    engine = create_study(tmp_path / "s.db", tiny_spec(*SHORT))
    study = study_rows.find_study(engine, "digits")
    lease = ledger.claim(engine, study, owner="elsewhere:1", lookahead=2)
    set_deadline(engine, -1)
    assert not settle(engine, "digits")
    ledger.release(engine, lease)
    with database.writing(engine) as connection:
        connection.execute(tables.study.update().values(deadline=None))
    Worker(engine, "digits", stop=threading.Event()).step()
    set_deadline(engine, -1)
    assert settle(engine, "digits")


def test_trials_of_somebody_who_slept_past_the_choice_come_too_late(
    new_store, tiny_spec, create_study
):
    """Else the winner would not be the best of its own table."""
    engine = create_study(new_store("s"), tiny_spec(*SHORT))
    study = study_rows.find_study(engine, "digits")
    Worker(engine, "digits", stop=threading.Event()).step()
    asleep = ledger.claim(engine, study, owner="elsewhere:1", lookahead=2, seconds=-1)
    set_deadline(engine, -1)
    assert settle(engine, "digits")
    with pytest.raises(ledger.LeaseLostError):
        ledger.renew(engine, asleep, {})
    with pytest.raises(ledger.LeaseLostError):
        search_results.write_rung(engine, asleep, curves=[], reports={}, outcomes=[], done=True)


def test_a_store_that_was_away_delays_the_next_look_by_seconds(
    tmp_path, tiny_spec, create_study, monkeypatch
):
    """What an outage took is no measure of what a look costs."""
    engine = create_study(tmp_path / "s.db", tiny_spec(*SHORT))
    clock, slept = [0.0], []
    monkeypatch.setattr(
        study_run, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=slept.append)
    )
    snapshot = study_rows.snapshot

    def away(*arguments):
        clock[0] += 300
        return snapshot(*arguments)

    monkeypatch.setattr(study_run.study_rows, "snapshot", away)
    watch(engine, Crew(engine), monkeypatch)
    assert slept
    assert max(slept) <= 30


def test_a_limit_that_another_run_took_away_holds_nobody(
    tmp_path, tiny_spec, create_study, monkeypatch
):
    """Whoever joined last said how long: all trials are run."""
    engine = create_study(tmp_path / "s.db", tiny_spec(*SHORT))
    crew = Crew(engine, after=[lambda: set_deadline(engine, None)])
    snapshot, said = watch(engine, crew, monkeypatch)
    assert states(snapshot) == ["complete"] * 4
    assert said == []


def test_a_choice_that_another_run_made_at_its_limit_ends_this_one(
    tmp_path, tiny_spec, create_study, monkeypatch
):
    """Trials are left and none is begun: this run ends with what was chosen."""
    engine = create_study(tmp_path / "s.db", tiny_spec(*SHORT))

    def choose():
        set_deadline(engine, -1)
        assert settle(engine, "digits")
        set_deadline(engine, None)

    snapshot, _ = watch(engine, Crew(engine, after=[choose]), monkeypatch)
    assert states(snapshot) == ["complete"] * 2 + ["waiting"] * 2
    assert snapshot.test_looks == 1


def test_no_choice_is_written_over_trials_that_were_added(
    new_store, tiny_spec, create_study, work, monkeypatch
):
    """A worker chose among four; before it writes, somebody asks for six."""
    engine = create_study(new_store("added"), tiny_spec(*SHORT, "search.timeout=null"))
    study = study_rows.find_study(engine, "digits")
    while Worker(engine, "digits", kinds=("search",), stop=threading.Event()).step():
        pass
    write = retrain_results.begin_retraining

    def late(*arguments, **options):
        study_rows.raise_trials(engine, study, 6, 2)
        return write(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(schedule.retrain_results, "begin_retraining", late)
        assert not settle(engine, "digits")
    with database.reading(engine) as connection:
        assert connection.execute(sa.select(tables.study.c.chosen_trial_id)).scalar() is None
    work(engine)
    snapshot = study_rows.snapshot(engine, "digits")
    assert states(snapshot) == ["complete"] * 6
    assert snapshot.test_looks == 1


def test_no_choice_is_written_by_a_rule_that_was_changed(
    new_store, tiny_spec, create_study, monkeypatch
):
    """A worker chose by one rule; before it writes, somebody asks for another."""
    engine = create_study(new_store("changed"), tiny_spec(*SHORT, "search.timeout=null"))
    study = study_rows.find_study(engine, "digits")
    while Worker(engine, "digits", kinds=("search",), stop=threading.Event()).step():
        pass
    write = retrain_results.begin_retraining
    spec = study_rows.stored_spec(study)
    search = spec.search.model_copy(update={"select": "one-se"})
    other = spec.model_copy(update={"search": search})

    def late(*arguments, **options):
        study_rows.replace_spec(engine, study, other, timeout=None)
        return write(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(schedule.retrain_results, "begin_retraining", late)
        assert not settle(engine, "digits")
    assert study_rows.find_study(engine, "digits").chosen_trial_id is None
    assert settle(engine, "digits")


def test_a_run_does_not_end_while_another_adds_trials(
    new_store, tiny_spec, create_study, monkeypatch
):
    """All is done at its look, and open again at the second one, which it would return."""
    engine = create_study(new_store("more"), tiny_spec(*SHORT, "search.timeout=null"))
    study = study_rows.find_study(engine, "digits")
    open_work, looks = ledger.open_work, []

    def meanwhile(*arguments):
        work = open_work(*arguments)
        if study_rows.find_study(engine, "digits").chosen_trial_id is not None and not any(
            work.values()
        ):
            looks.append(1)
            if len(looks) == 1:
                study_rows.raise_trials(engine, study, 6, 2)
                retrain_results.reopen_choice(engine, study)
        return work

    monkeypatch.setattr(ledger, "open_work", meanwhile)
    snapshot, _ = watch(engine, Crew(engine), monkeypatch)
    assert states(snapshot) == ["complete"] * 6
    assert snapshot.chosen is not None
    assert all(record.test_mse is not None for record in snapshot.retrains)


@pytest.fixture(autouse=True)
def flushed():
    yield
    import torch

    torch.set_flush_denormal(False)  # a worker turns it on for its whole process
