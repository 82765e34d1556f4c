"""A study that is killed, doubled or deleted ends as if nothing had happened."""

import os

import pytest
import sqlalchemy as sa
import torch
from chaos import (
    bury,
    check_whole,
    commits_of,
    create,
    finish,
    forked,
    forked_worker,
    killer,
    on_commits,
    table_of,
    work_to_the_end,
)
from optuna.trial import TrialState
from safetensors.torch import load

from aesearch.artifacts.run_folder import write_run_folder
from aesearch.device import DeviceLostError
from aesearch.models.training.population import Population
from aesearch.studies.errors import RunFailedError
from aesearch.studies.store import (
    ledger,
    retrain_results,
    search_results,
    study_rows,
    tables,
    whole_studies,
)
from aesearch.studies.store.connection import database
from aesearch.studies.store.optuna import optuna_tables
from aesearch.workers.schedule import settle

PRUNING = ("search.pruner=median", "search.trials=7", "training.epochs=5", "retrain.seeds=1")
# So many commits does a worker need for that study, and so many are there until it is created.
COMMITS, CREATION = 35, 7


def sample(n_commits, *ordinary):
    """All of them, of which the ordinary run takes some, and ``make test-kills`` more."""
    return [
        pytest.param(commit, marks=() if commit in ordinary else pytest.mark.slow)
        for commit in range(1, n_commits + 1)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_spec):
    """The study when one worker does it in one go, on SQLite: its engine."""
    path = tmp_path_factory.mktemp("whole") / "whole.db"
    engine = create(path, tiny_spec(*PRUNING))
    work_to_the_end(path)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def uninterrupted(whole):
    """The table of that study."""
    return table_of(whole)


def test_every_commit_of_the_study_is_swept(whole):
    """The numbers below are those of this study: no commit comes after them."""
    assert commits_of(whole) == COMMITS


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("commit", sample(COMMITS, 18))
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
@pytest.mark.parametrize("commit", sample(CREATION, CREATION))
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
    # On a server, the lock that lets one create at a time is a transaction, which holds nothing.
    assert int(last.read_text()) == CREATION + ("://" in empty_store)


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
    study = study_rows.find_study(engine, "digits")
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
    study = study_rows.find_study(engine, "digits")
    first = ledger.claim(engine, study, owner="a", lookahead=2)
    second = ledger.claim(engine, study, owner="b", lookahead=2)
    assert ledger.claim(engine, study, owner="c", lookahead=2) is None
    search_results.write_rung(engine, first, curves=[], reports={}, outcomes=[], done=True)
    third = ledger.claim(engine, study, owner="c", lookahead=2)
    assert [lease.position for lease in (first, second, third)] == [0, 1, 2]


def test_what_kills_its_worker_three_times_fails(new_store, tiny_spec, create_study, work):
    """A trial that nobody survives fails with the reason; the study goes on without it."""
    engine = create_study(new_store("s"), tiny_spec())
    study = study_rows.find_study(engine, "digits")
    for attempt in (1, 2, 3):
        lease = ledger.claim(engine, study, owner=f"dead:{attempt}", lookahead=2)
        assert (lease.position, lease.attempt) == (0, attempt)
        ledger.free_owner(engine, f"dead:{attempt}")
    work(engine)
    trials = study_rows.snapshot(engine, "digits").trials
    assert [t.state for t in trials[:2]] == ["failed", "failed"]
    assert "died 3 times" in trials[0].reason
    assert {t.state for t in trials[2:]} <= {"complete", "pruned"}


def test_repeating_a_rung_is_no_progress(new_store, tiny_spec, create_study, work):
    """What always kills its worker after its first rung is not tried for ever."""
    engine = create_study(new_store("s"), tiny_spec())
    study = study_rows.find_study(engine, "digits")
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
    trials = study_rows.snapshot(engine, "digits").trials
    assert [t.state for t in trials[:2]] == ["failed", "failed"]
    assert trials[0].reason.startswith("workers died on this trial again and again: 30 times")
    assert {t.state for t in trials[2:]} <= {"complete", "pruned"}


def test_giving_work_back_after_a_rung_is_no_death(new_store, tiny_spec, create_study):
    """Nor are several rungs of one attempt, however often they were there before."""
    engine = create_study(new_store("s"), tiny_spec())
    study = study_rows.find_study(engine, "digits")

    def attempt(*epochs):
        lease = ledger.claim(engine, study, owner="me", lookahead=2)
        for epoch in epochs:
            curve = search_results.FoldCurve(0, 0, epoch, [0.5], [0.5])
            search_results.write_rung(
                engine, lease, curves=[curve], reports={}, outcomes=[], done=False
            )
        return lease

    ledger.release(engine, attempt(1, 2, 3))
    for _ in range(3):
        ledger.release(engine, attempt(1, 2, 3))
    lease = attempt(1, 2, 3)
    assert lease.repeated == 0
    ledger.free_owner(engine, "me")
    lease = attempt(1, 2)
    assert lease.repeated == 1
    ledger.free_owner(engine, "me", counts=False)
    assert attempt().repeated == 1


def test_a_process_that_was_asked_to_end_leaves_no_attempt(new_store, tiny_spec, create_study):
    """Killed in the middle of a long epoch, again and again, it never makes the work poison."""
    engine = create_study(new_store("s"), tiny_spec())
    study = study_rows.find_study(engine, "digits")
    for _ in range(5):
        assert ledger.claim(engine, study, owner="me", lookahead=2).attempt == 1
        assert not ledger.free_owner(engine, "me", counts=False)


def test_a_finished_trial_gets_no_more_reports(new_store, tiny_spec, create_study):
    """Trained again elsewhere it may go on where it was pruned; its record stays as it is."""
    engine = create_study(new_store("s"), tiny_spec())
    study = study_rows.find_study(engine, "digits")
    lease = ledger.claim(engine, study, owner="me", lookahead=2)

    def write(epoch, outcomes):
        search_results.write_rung(
            engine,
            lease,
            curves=[search_results.FoldCurve(n, 0, epoch, [0.5], [0.5]) for n in (0, 1)],
            reports={0: {epoch: 0.5}, 1: {epoch: 0.5}},
            outcomes=outcomes,
            done=False,
        )

    write(1, [search_results.Outcome(0, TrialState.PRUNED, value=0.5)])
    write(2, [])
    curves = study_rows.curves(engine, study)
    assert sorted((number, epoch) for number, _, epoch, *_ in curves) == [(0, 1), (1, 1), (1, 2)]
    with database.reading(engine) as connection:
        trials = optuna_tables.frozen_trials(connection, study.study_id)
    assert [sorted(trial.intermediate_values) for trial in trials[:2]] == [[1], [1, 2]]


def test_a_broken_device_ends_the_process_and_no_trial(
    tmp_path, tiny_spec, create_study, work, monkeypatch
):
    """What stays with a process fails every generation after it; a new one goes on."""
    spec = tiny_spec()
    plain = create_study(tmp_path / "plain.db", spec)
    work(plain)
    engine = create_study(tmp_path / "s.db", spec)
    run_epoch, calls = Population.run_epoch, []

    def breaking(population, **asked):
        calls.append(1)
        if len(calls) > 4:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return run_epoch(population, **asked)

    with monkeypatch.context() as patch:
        patch.setattr(Population, "run_epoch", breaking)
        with pytest.raises(DeviceLostError, match="illegal memory access") as raised:
            work(engine)
    assert raised.value.exit_code not in (0, 1, 2)
    study = study_rows.find_study(engine, "digits")
    assert "failed" not in {trial.state for trial in study_rows.snapshot(engine, "digits").trials}
    (owner,) = ledger.owners(engine, study)
    ledger.free_owner(engine, owner)
    work(engine)
    assert (
        study_rows.snapshot(engine, "digits").trials == study_rows.snapshot(plain, "digits").trials
    )


def test_a_choice_that_is_open_again_stops_no_worker(
    new_store, tiny_spec, create_study, work, monkeypatch
):
    """Somebody asks for more trials between the claim of a retraining and its beginning."""
    engine = create_study(new_store("s"), tiny_spec())
    study = study_rows.find_study(engine, "digits")
    claim, taken = ledger.claim, []

    def late(*arguments, **options):
        lease = claim(*arguments, **options)
        if lease is not None and lease.kind == "retrain" and not taken:
            taken.append(lease)
            study_rows.raise_trials(engine, study, 7, 2)
            retrain_results.reopen_choice(engine, study)
        return lease

    monkeypatch.setattr(ledger, "claim", late)
    work(engine)
    assert taken
    snapshot = study_rows.snapshot(engine, "digits")
    assert len(snapshot.trials) == 7
    assert snapshot.test_looks == 1


def test_a_released_lease_does_not_count_as_an_attempt(new_store, tiny_spec, create_study):
    """Giving work back in good order, again and again, never makes it poison."""
    engine = create_study(new_store("s"), tiny_spec())
    study = study_rows.find_study(engine, "digits")
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
    snapshot = study_rows.snapshot(engine, "digits")
    bad, good = snapshot.trials
    assert (bad.state, good.state, snapshot.chosen) == ("failed", "complete", 1)
    assert "diverged at epoch" in bad.reason


def test_deleting_a_study_leaves_nothing(new_store, tiny_spec, create_study, work):
    """No row of it is left, and the other study is whole."""
    storage = new_store("s")
    engine = create_study(storage, tiny_spec())
    create_study(storage, tiny_spec("name=other"))
    work(engine)
    work(engine, "other")
    before = study_rows.snapshot(engine, "other")
    whole_studies.delete_study(engine, "digits")
    assert study_rows.study_names(engine) == ["other"]
    assert study_rows.snapshot(engine, "other").trials == before.trials
    other = study_rows.find_study(engine, "other").study_id
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
    snapshot = study_rows.snapshot(engine, "digits")
    assert [t.state for t in snapshot.trials] == ["failed", "failed"]
    assert snapshot.chosen is None
    with pytest.raises(RunFailedError, match="no completed trial"):
        settle(engine, "digits")
    with pytest.raises(RunFailedError, match="must have a winner before its model is used"):
        write_run_folder(engine, "digits", tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "study.yaml",
        "trials.csv",
        "curves.csv",
    }


def test_a_retraining_goes_on_from_its_checkpoint(
    new_store, tiny_spec, create_study, work, monkeypatch
):
    """Killed between two epochs, a retraining continues and ends with the same weights."""
    long = ("search.trials=2", "retrain.max_epochs=12", "retrain.patience=12", "retrain.seeds=2")
    whole = create_study(new_store("whole"), tiny_spec(*long))
    work(whole)
    engine = create_study(new_store("killed"), tiny_spec(*long))
    work(engine, kinds=("search",))
    monkeypatch.setattr("aesearch.workers.worker.CHECKPOINT_S", 0.0)
    # Commits of the child: its claim, then one for each epoch's checkpoint.
    child = forked_worker(new_store("killed"), killer(8))
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    study = study_rows.find_study(engine, "digits")
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
    work(engine, kinds=("retrain",))
    assert len(epochs) <= 12 - 5, "it began again instead of going on"
    work(engine)
    assert table_of(engine) == table_of(whole)
    with database.reading(engine) as connection:
        left = connection.execute(sa.select(sa.func.count()).select_from(tables.checkpoint))
        assert left.scalar() == 0


def test_a_checkpoint_that_no_store_takes_is_left_out(
    new_store, tiny_spec, create_study, work, monkeypatch, caplog
):
    """It is a comfort, not a condition: the retraining goes on to its end without."""
    engine = create_study(new_store("s"), tiny_spec("search.trials=2"))
    monkeypatch.setattr("aesearch.workers.worker.CHECKPOINT_S", 0.0)
    monkeypatch.setattr("aesearch.workers.worker.LARGEST_CHECKPOINT", 100)
    written = []
    monkeypatch.setattr(retrain_results, "write_checkpoint", lambda *_: written.append(1))
    work(engine)
    assert not written
    said = [r.getMessage() for r in caplog.records if "too large for a store" in r.getMessage()]
    assert len(said) == 1
    assert all(row.test_mse is not None for row in study_rows.snapshot(engine, "digits").retrains)


def test_a_choice_made_between_look_and_claim_is_seen(
    new_store, tiny_spec, create_study, work, monkeypatch
):
    """A worker that looked before another one chose retrains what was chosen."""
    engine = create_study(new_store("s"), tiny_spec())
    work(engine, kinds=("search",))
    study = study_rows.find_study(engine, "digits")
    retrain_results.reopen_choice(engine, study)
    claim = ledger.claim

    def choose_first(*arguments, **options):
        settle(engine, "digits")
        return claim(*arguments, **options)

    monkeypatch.setattr(ledger, "claim", choose_first)
    work(engine)
    snapshot = study_rows.snapshot(engine, "digits")
    assert len(snapshot.retrains) == 2
    assert all(row.test_mse is not None for row in snapshot.retrains)
