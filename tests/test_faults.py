"""A study that is killed, doubled or deleted ends as if nothing had happened."""

import os

import optuna
import pytest
import sqlalchemy as sa
from chaos import (
    bury,
    check_whole,
    create,
    finish,
    forked,
    forked_worker,
    killer,
    on_commits,
    table_of,
)
from safetensors.torch import load

from aesearch.decisions import settle
from aesearch.models.population import Population
from aesearch.run_folder import write_run_folder
from aesearch.studies import database, ledger, retrain_results, search_results, store, tables
from aesearch.studies.errors import RunFailedError

PRUNING = ("search.pruner=median", "search.trials=7", "training.epochs=5", "retrain.seeds=1")
# So many commits does a worker need for that study, and so many are there until it is created.
COMMITS, CREATION = 35, 7


def sample(n_commits, every):
    """All of them, of which the ordinary run takes some."""
    return [
        pytest.param(commit, marks=() if commit % every == 1 else pytest.mark.slow)
        for commit in range(1, n_commits + 1)
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tiny_spec):
    """The table of the study when one worker does it in one go, on SQLite."""
    path = tmp_path_factory.mktemp("whole") / "whole.db"
    engine = create(path, tiny_spec(*PRUNING))
    finish(path)
    yield table_of(engine)
    engine.dispose()


def test_every_commit_of_the_study_is_swept(tmp_path, tiny_spec, create_study, work):
    """The numbers below are those of this study: no commit comes after them."""
    engine = create_study(tmp_path / "s.db", tiny_spec(*PRUNING))
    commits = []
    on_commits(engine, lambda number, _connection: commits.append(number))
    work(engine)
    assert commits[-1] == COMMITS


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("commit", sample(COMMITS, 7))
def test_killed_at_a_commit(new_store, tiny_spec, create_study, uninterrupted, commit, after):
    """Killed right before or after a commit, and taken up again: the same table."""
    storage = new_store("killed")
    engine = create_study(storage, tiny_spec(*PRUNING))
    child = forked_worker(storage, killer(commit, after=after))
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status), "the study has fewer commits than this test thinks"
    bury(engine, child)
    finish(storage)
    assert table_of(engine) == uninterrupted
    check_whole(engine)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
def empty_store(request, tmp_path):
    """Path or URL of a database without a table."""
    if request.param == "sqlite":
        return str(tmp_path / "empty.db")
    return request.getfixturevalue("postgres_url")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("commit", sample(CREATION, 3))
def test_killed_while_the_study_is_created(empty_store, tiny_spec, uninterrupted, commit, after):
    """Half a database or half a study is completed by whoever comes next."""
    spec = tiny_spec(*PRUNING)

    def begin():
        on_commits(sa.engine.Engine, killer(commit, after=after))
        create(empty_store, spec)

    assert os.WIFSIGNALED(os.waitpid(forked(begin), 0)[1])
    engine = create(empty_store, spec, again=True)
    finish(empty_store)
    assert table_of(engine) == uninterrupted
    check_whole(engine)
    engine.dispose()


def test_every_commit_of_the_creation_is_swept(empty_store, tmp_path, tiny_spec):
    """The numbers above are those of an empty database."""
    last = tmp_path / "last"

    def begin():
        on_commits(sa.engine.Engine, lambda number, _connection: last.write_text(str(number)))
        create(empty_store, tiny_spec(*PRUNING))

    assert os.waitpid(forked(begin), 0)[1] == 0
    assert int(last.read_text()) == CREATION


def test_three_workers_are_one(new_store, tiny_spec, create_study, uninterrupted):
    """Three workers at once end with the table of one."""
    storage = new_store("three")
    engine = create_study(storage, tiny_spec(*PRUNING))
    children = [forked_worker(storage) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert table_of(engine) == uninterrupted


def test_a_lost_lease_writes_nothing(new_store, tiny_spec, create_study):
    """A worker that slept beyond its lease is refused when it wakes."""
    engine = create_study(new_store("s"), tiny_spec())
    study = store.find_study(engine, "digits")
    sleeper = ledger.claim(engine, study, owner="sleeper", lookahead=2, seconds=-1)
    other = ledger.claim(engine, study, owner="other", lookahead=2)
    assert (sleeper.position, other.position, other.attempt) == (0, 0, 2)
    with pytest.raises(ledger.LeaseLostError):
        search_results.write_rung(engine, sleeper, curves=[], reports={}, outcomes=[], done=True)
    with pytest.raises(ledger.LeaseLostError):
        ledger.renew(engine, sleeper, {})
    assert ledger.open_work(engine, study)["search"] == 3


def test_generations_wait_for_the_lookahead(new_store, tiny_spec, create_study):
    """With lookahead 2, generation 2 starts only when generation 0 is finished."""
    engine = create_study(new_store("s"), tiny_spec())
    study = store.find_study(engine, "digits")
    first = ledger.claim(engine, study, owner="a", lookahead=2)
    second = ledger.claim(engine, study, owner="b", lookahead=2)
    assert ledger.claim(engine, study, owner="c", lookahead=2) is None
    search_results.write_rung(engine, first, curves=[], reports={}, outcomes=[], done=True)
    third = ledger.claim(engine, study, owner="c", lookahead=2)
    assert [lease.position for lease in (first, second, third)] == [0, 1, 2]


def test_what_kills_its_worker_three_times_fails(new_store, tiny_spec, create_study, work):
    """A trial that nobody survives fails with the reason; the study goes on without it."""
    engine = create_study(new_store("s"), tiny_spec())
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


def test_repeating_a_rung_is_no_progress(new_store, tiny_spec, create_study, work):
    """What always kills its worker after its first rung is not tried for ever."""
    engine = create_study(new_store("s"), tiny_spec())
    study = store.find_study(engine, "digits")
    attempts = []
    for _ in range(ledger.MAX_REPEATED + 1):
        lease = ledger.claim(engine, study, owner="dead:1", lookahead=2)
        attempts.append((lease.position, lease.attempt, lease.repeated))
        search_results.write_rung(
            engine,
            lease,
            curves=[search_results.FoldCurve(0, 0, 1, [0.5], [0.5])],
            reports={0: {1: 0.5}},
            outcomes=[],
            done=False,
        )
        ledger.free_owner(engine, "dead:1")
    assert attempts == [(0, 1, 0), *((0, 1, n) for n in range(ledger.MAX_REPEATED))]
    work(engine)
    trials = store.snapshot(engine, "digits").trials
    assert [t.state for t in trials[:2]] == ["failed", "failed"]
    assert trials[0].reason.startswith("workers died on this trial again and again: 30 rungs")
    assert {t.state for t in trials[2:]} <= {"complete", "pruned"}


def test_a_released_lease_does_not_count_as_an_attempt(new_store, tiny_spec, create_study):
    """Giving work back in good order, again and again, never makes it poison."""
    engine = create_study(new_store("s"), tiny_spec())
    study = store.find_study(engine, "digits")
    attempts = []
    for _ in range(5):
        lease = ledger.claim(engine, study, owner="me", lookahead=2)
        attempts.append(lease.attempt)
        ledger.release(engine, lease)
    assert attempts == [1] * 5


def test_a_diverged_trial_fails_and_is_never_chosen(new_store, tiny_spec, create_study, work):
    """A learning rate that overflows fails with fold and epoch; the others are untouched."""
    spec = tiny_spec(
        "training.optimizer=sgd",
        "search.sampler=grid",
        "search.pruner=none",
        "search.trials=2",
        "space={defaults: false, learning_rate: {choices: [1.0e+30, 0.1]}}",
    )
    engine = create_study(new_store("s"), spec)
    work(engine)
    snapshot = store.snapshot(engine, "digits")
    bad, good = snapshot.trials
    assert (bad.state, good.state, snapshot.chosen) == ("failed", "complete", 1)
    assert "diverged at epoch" in bad.reason


def test_deleting_a_study_leaves_nothing(new_store, tiny_spec, create_study, work):
    """After Optuna deletes a study, no row of ours is left, and the other study is whole."""
    storage = new_store("s")
    engine = create_study(storage, tiny_spec())
    create_study(storage, tiny_spec("name=other"))
    work(engine)
    work(engine, "other")
    before = store.snapshot(engine, "other")
    theirs = database.optuna_storage(engine)
    optuna.delete_study(study_name="digits", storage=theirs)
    database.close_storage(theirs)
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


def test_a_study_without_a_completed_trial_says_so(
    tmp_path, new_store, tiny_spec, create_study, work
):
    """When every trial diverges, the worker ends quietly and the choice names the reasons."""
    spec = tiny_spec(
        "training.optimizer=sgd",
        "search.pruner=none",
        "search.trials=2",
        "space={defaults: false, learning_rate: {low: 1.0e+29, high: 1.0e+30}}",
    )
    engine = create_study(new_store("s"), spec)
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
    new_store, tiny_spec, create_study, work, monkeypatch
):
    """Killed between two epochs, a retraining continues and ends with the same weights."""
    long = ("search.trials=2", "retrain.max_epochs=12", "retrain.patience=12", "retrain.seeds=2")
    whole = create_study(new_store("whole"), tiny_spec(*long))
    work(whole)
    engine = create_study(new_store("killed"), tiny_spec(*long))
    work(engine, kinds=("search",))
    monkeypatch.setattr("aesearch.worker.CHECKPOINT_S", 0.0)
    # Commits of the child: its claim, then one for each epoch's checkpoint.
    child = forked_worker(new_store("killed"), killer(8))
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    study = store.find_study(engine, "digits")
    bury(engine, child)
    lease = ledger.claim(engine, study, owner="me", lookahead=2)
    checkpoint = retrain_results.read_checkpoint(engine, lease, study.retrain_key)
    assert checkpoint is not None
    assert load(checkpoint)["population.epoch"].item() >= 5
    ledger.release(engine, lease)
    epochs = []
    run_epoch = Population.run_epoch
    monkeypatch.setattr(
        Population, "run_epoch", lambda p, **a: epochs.append(1) or run_epoch(p, **a)
    )
    work(engine)
    assert len(epochs) <= 12 - 5, "it began again instead of going on"
    assert table_of(engine) == table_of(whole)
    with database.reading(engine) as connection:
        left = connection.execute(sa.select(sa.func.count()).select_from(tables.checkpoint))
        assert left.scalar() == 0


def test_a_choice_made_between_look_and_claim_is_seen(
    new_store, tiny_spec, create_study, work, monkeypatch
):
    """A worker that looked before another one chose retrains what was chosen."""
    engine = create_study(new_store("s"), tiny_spec())
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
