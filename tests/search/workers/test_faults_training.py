"""Training that goes wrong: a loss that is none, an exception, a death; the study goes on."""

import os

import optuna
import pytest
from chaos import (
    at_epoch,
    bury,
    by_themselves,
    check_whole,
    create,
    die,
    finish,
    forked_worker,
    table_of,
)
from optuna.trial import TrialState
from typer.testing import CliRunner

from aesearch.cli import app
from aesearch.models.training.population import Population
from aesearch.studies.store import ledger, search_results, study_rows
from aesearch.studies.store.connection import database
from aesearch.studies.store.search_results import Outcome
from aesearch.workers.schedule import settle

SMALL = (
    *("search.trials=4", "search.pruner=none", "retrain.seeds=1", "evaluation.bootstrap=10"),
    *("space.architecture={choices: [dense]}", "search.generation_size=1", "search.lookahead=1"),
    "search.sampler=random",
)
FOLDS, EPOCHS = 3, 3


@pytest.fixture
def in_epoch(monkeypatch):
    """Call something after an epoch of the search, counted from 1, with its losses."""

    def arrange(number, call):
        run_epoch, seen = Population.run_epoch, []

        def changed(population, **asked):
            losses = run_epoch(population, **asked)
            seen.append(1)
            if len(seen) == number:
                call(losses)
            return losses

        monkeypatch.setattr(Population, "run_epoch", changed)

    return arrange


def others(engine):
    """Every trial but the second, which is the one that goes wrong."""
    trials = study_rows.snapshot(engine, "digits").trials
    return by_themselves(trial for trial in trials if trial.number != 1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_spec):
    """The trials of the study when nothing goes wrong."""
    path = tmp_path_factory.mktemp("undisturbed") / "s.db"
    engine = create(path, tiny_spec(*SMALL))
    finish(path)
    trials = others(engine)
    engine.dispose()
    return trials


# The second trial trains in epochs 4 to 6 of the process.
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("which", ["train", "validation"])
def test_a_loss_that_is_no_number_fails_its_trial(
    new_store, tiny_spec, create_study, work, in_epoch, undisturbed, value, which
):
    """On one fold of one epoch: the reason names both, it is never best, the others are equal."""

    def spoil(losses):
        getattr(losses, which)[2] = value

    engine = create_study(new_store("s"), tiny_spec(*SMALL))
    in_epoch(5, spoil)
    work(engine)
    snapshot = study_rows.snapshot(engine, "digits")
    bad = snapshot.trials[1]
    assert (bad.state, bad.value) == ("failed", None)
    assert bad.reason == "fold 2 diverged at epoch 2: its loss is not finite"
    assert bad.epochs == 1
    assert others(engine) == undisturbed
    assert snapshot.chosen != 1
    check_whole(engine)
    theirs = database.optuna_storage(engine)
    study = optuna.load_study(study_name="digits", storage=theirs, sampler=None, pruner=None)
    assert study.best_trial.number == snapshot.chosen
    database.close_storage(theirs)


class StrangeError(Exception):
    """Of a library, and no kind that anybody foresaw."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("shape\nand more"), "RuntimeError: shape"),
        (MemoryError(), "MemoryError"),
        (SystemExit(3), "SystemExit: 3"),
        (StrangeError("odd"), "StrangeError: odd"),
        (KeyError("name"), "KeyError: 'name'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_exception_in_training_fails_its_trial(
    new_store, tiny_spec, create_study, work, in_epoch, undisturbed, error, reason
):
    """With its name and first line as the reason; the other trials are what they were."""

    def fail(_losses):
        raise error

    engine = create_study(new_store("s"), tiny_spec(*SMALL))
    in_epoch(5, fail)
    work(engine)
    bad = study_rows.snapshot(engine, "digits").trials[1]
    assert (bad.state, bad.reason) == ("failed", reason)
    assert others(engine) == undisturbed
    check_whole(engine)


def test_what_kills_every_process_is_given_up(new_store, tiny_spec, create_study, undisturbed):
    """Three deaths on one trial, real ones: it fails with the reason, the others are equal."""
    storage = new_store("s")
    engine = create_study(storage, tiny_spec(*SMALL))
    for epoch in (EPOCHS + 1, 1, 1):  # the first trial is finished by the first worker
        child = forked_worker(storage, prepare=at_epoch(epoch, die))
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        bury(engine, child)
    finish(storage)
    bad = study_rows.snapshot(engine, "digits").trials[1]
    assert bad.state == "failed"
    assert bad.reason == "worker died 3 times on this trial (out of memory?)"
    assert others(engine) == undisturbed
    check_whole(engine)


def test_a_run_whose_trials_all_fail_ends_with_one(tmp_path, monkeypatch):
    """Exit code 1, the reasons on stderr, tables but neither model nor best.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AESEARCH_STORAGE", raising=False)
    command = [
        *("run", "--trials", "2", "--epochs", "1", "--workers", "1", "--quiet"),
        *("--set", "data.limit=60", "--set", "training.optimizer=sgd"),
        *("--set", "space={defaults: false, learning_rate: {low: 1.0e+29, high: 1.0e+30}}"),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "no completed trial" in done.stderr
    assert "diverged at epoch 1" in done.stderr
    assert not list(tmp_path.rglob("best.yaml"))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_tie_goes_to_the_lowest_number(new_store, tiny_spec, create_study):
    """Whichever finished first, and whatever order the database gives its rows in."""
    engine = create_study(new_store("s"), tiny_spec("search.generation_size=1"))
    study = study_rows.find_study(engine, "digits")
    claims = [ledger.claim(engine, study, owner="me", lookahead=9) for _ in range(5)]
    for lease in reversed(claims):
        value = 0.5 if lease.position else 0.6
        outcome = Outcome(
            lease.position,
            TrialState.COMPLETE,
            value=value,
            fold_scores=(value,) * FOLDS,
            user_attributes={"fold_scores": [value] * FOLDS, "standard_error": 0.0},
        )
        search_results.write_rung(
            engine, lease, curves=[], reports={}, outcomes=[outcome], done=True
        )
    assert settle(engine, "digits")
    assert study_rows.snapshot(engine, "digits").chosen == 1


def test_training_that_went_wrong_is_as_it_was_after_a_kill(
    new_store, tiny_spec, create_study, work
):
    """A diverged trial is part of the table that a killed study ends with."""
    diverging = ("training.optimizer=sgd", "search.sampler=grid", "search.trials=2")
    space = "space={defaults: false, learning_rate: {choices: [1.0e+30, 0.1]}}"
    spec = tiny_spec(*SMALL, *diverging, space)
    whole = create_study(new_store("whole"), spec)
    work(whole)
    engine = create_study(new_store("killed"), spec)

    child = forked_worker(new_store("killed"), prepare=at_epoch(EPOCHS + 1, die))
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    bury(engine, child)
    work(engine)
    assert table_of(engine) == table_of(whole)
