"""A study that is killed, doubled or deleted ends as if nothing had happened."""

import os
import signal
import socket
import threading

import optuna
import pytest
import sqlalchemy as sa
from safetensors.torch import load
from sqlalchemy import event

from aesearch.decisions import settle
from aesearch.models.population import Population
from aesearch.run_folder import write_run_folder
from aesearch.studies import database, ledger, retrain_results, search_results, store, tables
from aesearch.studies.errors import RunFailedError
from aesearch.worker import Worker

PRUNING = ("search.pruner=median", "search.trials=7", "training.epochs=5", "retrain.seeds=1")


def table_of(engine):
    """Everything that must not depend on how a study was run."""
    snapshot = store.snapshot(engine, "digits")
    study = store.find_study(engine, "digits")
    trials = [
        (t.number, t.state, t.params, t.value, t.fold_scores, t.unstable, t.reason)
        for t in snapshot.trials
    ]
    retrains = [(r.seed, r.epochs, r.weights_sha256, r.test_mse) for r in snapshot.retrains]
    return trials, store.curves(engine, study), snapshot.chosen, retrains, snapshot.test_looks


def forked_worker(path, commit=None, *, after=False):
    """Run a worker in a child process that kills itself at its n-th commit; return its status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            engine = store.open_store(str(path))
            if commit is not None:
                _kill_at(engine, commit, after=after)
            Worker(engine, "digits", stop=threading.Event()).run()
            status = 0
        finally:
            os._exit(status)
    return child


def _kill_at(engine, commit, *, after):
    seen = 0

    def count(_connection):
        nonlocal seen
        seen += 1
        if seen == commit:
            if after:
                _connection.connection.driver_connection.execute("COMMIT")
            os.kill(os.getpid(), signal.SIGKILL)

    @event.listens_for(engine, "begin")
    def skip_reads(connection):
        connection.info["reads"] = connection.get_execution_options().get("aesearch_read", False)

    @event.listens_for(engine, "commit")
    def on_commit(connection):
        if not connection.info.get("reads"):
            count(connection)


def finish(engine, path):
    """One more worker, as a run would start it after the last one died."""
    child = forked_worker(path)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def uninterrupted(tmp_path, tiny_spec, create_study):
    """The table of the study when one worker does it in one go."""
    path = tmp_path / "whole.db"
    engine = create_study(path, tiny_spec(*PRUNING))
    finish(engine, path)
    return table_of(engine)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("commit", range(1, 30, 7))
def test_killed_at_a_commit(tmp_path, tiny_spec, create_study, uninterrupted, commit, after):
    """Killed right before or after a commit, and taken up again: the same table."""
    path = tmp_path / "killed.db"
    engine = create_study(path, tiny_spec(*PRUNING))
    child = forked_worker(path, commit, after=after)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status), "the study has fewer commits than this test thinks"
    ledger.free_owner(engine, f"{socket.gethostname()}:{child}")
    finish(engine, path)
    assert table_of(engine) == uninterrupted
    with database.reading(engine) as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


def test_three_workers_are_one(tmp_path, tiny_spec, create_study, uninterrupted):
    """Three workers at once end with the table of one."""
    path = tmp_path / "three.db"
    engine = create_study(path, tiny_spec(*PRUNING))
    children = [forked_worker(path) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert table_of(engine) == uninterrupted


def test_a_lost_lease_writes_nothing(tmp_path, tiny_spec, create_study):
    """A worker that slept beyond its lease is refused when it wakes."""
    engine = create_study(tmp_path / "s.db", tiny_spec())
    study = store.find_study(engine, "digits")
    sleeper = ledger.claim(engine, study, owner="sleeper", lookahead=2, seconds=-1)
    other = ledger.claim(engine, study, owner="other", lookahead=2)
    assert (sleeper.position, other.position, other.attempt) == (0, 0, 2)
    with pytest.raises(ledger.LeaseLostError):
        search_results.write_rung(engine, sleeper, curves=[], reports={}, outcomes=[], done=True)
    with pytest.raises(ledger.LeaseLostError):
        ledger.renew(engine, sleeper, {})
    assert ledger.open_work(engine, study)["search"] == 3


def test_generations_wait_for_the_lookahead(tmp_path, tiny_spec, create_study):
    """With lookahead 2, generation 2 starts only when generation 0 is finished."""
    engine = create_study(tmp_path / "s.db", tiny_spec())
    study = store.find_study(engine, "digits")
    first = ledger.claim(engine, study, owner="a", lookahead=2)
    second = ledger.claim(engine, study, owner="b", lookahead=2)
    assert ledger.claim(engine, study, owner="c", lookahead=2) is None
    search_results.write_rung(engine, first, curves=[], reports={}, outcomes=[], done=True)
    third = ledger.claim(engine, study, owner="c", lookahead=2)
    assert [lease.position for lease in (first, second, third)] == [0, 1, 2]


def test_what_kills_its_worker_three_times_fails(tmp_path, tiny_spec, create_study, work):
    """A trial that nobody survives fails with the reason; the study goes on without it."""
    engine = create_study(tmp_path / "s.db", tiny_spec())
    study = store.find_study(engine, "digits")
    for attempt in (1, 2, 3):
        lease = ledger.claim(engine, study, owner=f"dead:{attempt}", lookahead=2)
        assert (lease.position, lease.attempt) == (0, attempt)
        ledger.free_owner(engine, f"dead:{attempt}")
    work(engine)
    trials = store.snapshot(engine, "digits").trials
    assert [t.state for t in trials[:2]] == ["failed", "failed"]
    assert "died 3 times" in trials[0].reason
    assert {t.state for t in trials[2:]} <= {"complete", "pruned"}


def test_a_released_lease_does_not_count_as_an_attempt(tmp_path, tiny_spec, create_study):
    """Giving work back in good order, again and again, never makes it poison."""
    engine = create_study(tmp_path / "s.db", tiny_spec())
    study = store.find_study(engine, "digits")
    attempts = []
    for _ in range(5):
        lease = ledger.claim(engine, study, owner="me", lookahead=2)
        attempts.append(lease.attempt)
        ledger.release(engine, lease)
    assert attempts == [1] * 5


def test_a_diverged_trial_fails_and_is_never_chosen(tmp_path, tiny_spec, create_study, work):
    """A learning rate that overflows fails with fold and epoch; the others are untouched."""
    spec = tiny_spec(
        "training.optimizer=sgd",
        "search.sampler=grid",
        "search.pruner=none",
        "search.trials=2",
        "space={defaults: false, learning_rate: {choices: [1.0e+30, 0.1]}}",
    )
    engine = create_study(tmp_path / "s.db", spec)
    work(engine)
    snapshot = store.snapshot(engine, "digits")
    bad, good = snapshot.trials
    assert (bad.state, good.state, snapshot.chosen) == ("failed", "complete", 1)
    assert "diverged at epoch" in bad.reason


def test_deleting_a_study_leaves_nothing(tmp_path, tiny_spec, create_study, work):
    """After Optuna deletes a study, no row of ours is left, and the other study is whole."""
    path = tmp_path / "s.db"
    engine = create_study(path, tiny_spec())
    create_study(path, tiny_spec("name=other"))
    work(engine)
    work(engine, "other")
    before = store.snapshot(engine, "other")
    optuna.delete_study(study_name="digits", storage=f"sqlite:///{path}")
    assert store.study_names(engine) == ["other"]
    assert store.snapshot(engine, "other").trials == before.trials
    other = store.find_study(engine, "other").study_id
    with database.reading(engine) as connection:
        trial_ids = set(
            connection.execute(
                sa.text("SELECT trial_id FROM trials WHERE study_id = :study"), {"study": other}
            ).scalars()
        )
        for table in tables.OWN_TABLES:
            if "study_id" in table.c:
                assert set(connection.execute(sa.select(table.c.study_id)).scalars()) <= {other}
            if "trial_id" in table.c:
                assert set(connection.execute(sa.select(table.c.trial_id)).scalars()) <= trial_ids


def test_a_study_without_a_completed_trial_says_so(tmp_path, tiny_spec, create_study, work):
    """When every trial diverges, the worker ends quietly and the choice names the reasons."""
    spec = tiny_spec(
        "training.optimizer=sgd",
        "search.pruner=none",
        "search.trials=2",
        "space={defaults: false, learning_rate: {low: 1.0e+29, high: 1.0e+30}}",
    )
    engine = create_study(tmp_path / "s.db", spec)
    work(engine)
    snapshot = store.snapshot(engine, "digits")
    assert [t.state for t in snapshot.trials] == ["failed", "failed"]
    assert snapshot.chosen is None
    with pytest.raises(RunFailedError, match="no completed trial"):
        settle(engine, "digits")
    with pytest.raises(RunFailedError, match="must be retrained"):
        write_run_folder(engine, "digits", tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"trials.csv", "curves.csv"}


def test_a_retraining_goes_on_from_its_checkpoint(
    tmp_path, tiny_spec, create_study, work, monkeypatch
):
    """Killed between two epochs, a retraining continues and ends with the same weights."""
    long = ("search.trials=2", "retrain.max_epochs=12", "retrain.patience=12", "retrain.seeds=2")
    whole = create_study(tmp_path / "whole.db", tiny_spec(*long))
    work(whole)
    engine = create_study(tmp_path / "killed.db", tiny_spec(*long))
    work(engine, kinds=("search",))
    monkeypatch.setattr("aesearch.worker.CHECKPOINT_S", 0.0)
    # Commits of the child: its claim, then one for each epoch's checkpoint.
    child = forked_worker(tmp_path / "killed.db", 8)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    study = store.find_study(engine, "digits")
    ledger.free_owner(engine, f"{socket.gethostname()}:{child}")
    lease = ledger.claim(engine, study, owner="me", lookahead=2)
    checkpoint = retrain_results.read_checkpoint(engine, lease, study.retrain_key)
    assert checkpoint is not None
    assert load(checkpoint)["population.epoch"].item() >= 5
    ledger.release(engine, lease)
    epochs = []
    run_epoch = Population.run_epoch
    monkeypatch.setattr(Population, "run_epoch", lambda p: epochs.append(1) or run_epoch(p))
    work(engine)
    assert len(epochs) <= 12 - 5, "it began again instead of going on"
    assert table_of(engine) == table_of(whole)
    with database.reading(engine) as connection:
        left = connection.execute(sa.select(sa.func.count()).select_from(tables.checkpoint))
        assert left.scalar() == 0


def test_a_choice_made_between_look_and_claim_is_seen(
    tmp_path, tiny_spec, create_study, work, monkeypatch
):
    """A worker that looked before another one chose retrains what was chosen."""
    engine = create_study(tmp_path / "s.db", tiny_spec())
    work(engine, kinds=("search",))
    study = store.find_study(engine, "digits")
    retrain_results.reopen_choice(engine, study)
    claim = ledger.claim

    def choose_first(*arguments, **options):
        settle(engine, "digits")
        return claim(*arguments, **options)

    monkeypatch.setattr(ledger, "claim", choose_first)
    work(engine)
    snapshot = store.snapshot(engine, "digits")
    assert len(snapshot.retrains) == 2
    assert all(row.test_mse is not None for row in snapshot.retrains)
