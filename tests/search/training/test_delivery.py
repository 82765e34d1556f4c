"""A trial is scored by what would be delivered: early stopping inside a fold, folds bought last."""

import os

import numpy as np
import pytest
import torch
from chaos import (
    bury,
    check_whole,
    commits_of,
    create,
    finish,
    forked_worker,
    killer,
    table_of,
    work_to_the_end,
)

from aesearch.data.study_data import load_problem
from aesearch.seeds import derive_seed
from aesearch.studies.errors import SpecError
from aesearch.studies.spec.former import with_former_settings
from aesearch.studies.spec.load import diff, load_spec
from aesearch.studies.store import study_rows
from aesearch.training.members import build_member, build_population, early_stopping
from aesearch.training.memory import images_for

DELIVERED = (
    "training.epochs=auto",
    "search.score_epochs=auto",
    "search.trials=9",
    "search.warmup_epochs=1",
    "search.reduction_factor=2",
    "retrain.max_epochs=6",
    "space.architecture.choices=[dense, conv]",
    "space.encoding_dim.choices=[2,5]",
    "model.shortcut=auto",
    "model.activation=gelu",
    "training.averaging=ema",
)


COMMITS = 37  # so many does a worker need for this study


def commits():
    """All of them, of which the ordinary run takes one."""
    return [
        pytest.param(commit, marks=() if commit == 20 else pytest.mark.slow)
        for commit in range(1, COMMITS + 1)
    ]


@pytest.fixture(scope="module")
def finished(tiny_spec, tmp_path_factory):
    """A finished study of nine trials, done by one worker in one go: its engine."""
    path = tmp_path_factory.mktemp("whole") / "study.db"
    engine = create(path, tiny_spec(*DELIVERED))
    work_to_the_end(path)
    yield engine
    engine.dispose()


def test_a_fold_score_is_that_of_a_network_stopped_early_and_measured_once(finished):
    """Each complete trial, trained again alone by a loop of our own."""
    snapshot = study_rows.snapshot(finished, "digits")
    spec = study_rows.stored_spec(study_rows.find_study(finished, "digits"))
    problem = load_problem(spec, device="cpu")
    images = images_for(problem, "cpu")
    complete = [trial for trial in snapshot.trials if trial.state == "complete"]
    assert complete
    for trial in complete:
        for fold, score in enumerate(trial.fold_scores):
            configuration = spec.configuration(trial.params)
            train, inner = problem.delivery_indices(fold)
            held_out = np.flatnonzero(problem.fold_of_sample == fold)
            assert not set(held_out) & {*train, *inner}
            seed = derive_seed(spec.seed, "member", trial.number, fold)
            member = build_member(configuration, seed, train, inner)
            population = build_population(problem, images, [member], configuration, epochs=6)
            stopping = early_stopping(spec, population)
            while population.epoch < 6 and population.status == ["training"]:
                stopping.update(population, population.run_epoch().validation)
            stopping.restore(population)
            rows = torch.from_numpy(problem.images[held_out]).double() / 255
            with torch.no_grad():
                errors = population.extract(0).double()(rows) - rows
            # float32, and summed in another order than beside other members.
            assert score == pytest.approx(errors.square().mean().item(), rel=1e-4)


def test_a_trial_that_gets_no_better_than_pca_scores_as_pca(
    tmp_path, tiny_spec, create_study, work
):
    """Of images that the code holds whole, the fold's score is rounding: nothing was kept worse."""
    levels = np.random.default_rng(1).integers(0, 100, size=(2, 8, 8))
    mix = np.random.default_rng(2).integers(0, 2, size=(120, 2))
    np.save(tmp_path / "digits.npy", np.tensordot(mix, levels, 1).astype(np.uint8))
    spec = tiny_spec(
        *DELIVERED,
        f"data.dataset={tmp_path / 'digits.npy'}",
        "data.limit=null",
        "space.architecture=null",
        "training.learning_rate=0.01",
    )
    engine = create_study(tmp_path / "study.db", spec)
    work(engine)
    snapshot = study_rows.snapshot(engine, "digits")
    complete = [trial for trial in snapshot.trials if trial.state == "complete"]
    assert complete
    assert all(max(trial.fold_scores) < 1e-12 for trial in complete)
    assert [record.best_epoch for record in snapshot.retrains] == [0] * len(snapshot.retrains)


def test_only_those_that_do_well_on_fold_0_train_on_the_others(finished):
    """Every trial has one of: no score, that of fold 0, those of all folds."""
    snapshot = study_rows.snapshot(finished, "digits")
    folds = {trial.number: len(trial.fold_scores) for trial in snapshot.trials}
    states = {trial.number: trial.state for trial in snapshot.trials}
    assert {3} == {folds[n] for n, state in states.items() if state == "complete"}
    assert {folds[n] for n, state in states.items() if state == "pruned"} <= {0, 1}
    study = study_rows.find_study(finished, "digits")
    trained = {(number, fold) for number, fold, *_ in study_rows.curves(finished, study)}
    for number, state in states.items():
        n_trained = sum(one == number for one, _ in trained)
        assert n_trained == (3 if state == "complete" else 1)


def test_sizes_take_turns_and_begin_with_the_default(finished):
    """So that the table by size is worth looking at."""
    trials = study_rows.snapshot(finished, "digits").trials
    assert [trial.params["encoding_dim"] for trial in trials] == [2, 5, 2, 5, 2, 5, 2, 5, 2]
    first, second = (dict(trial.params) for trial in trials[:2])
    assert first | {"encoding_dim": 5} == second
    assert {trial.state for trial in trials[:2]} == {"complete"}


def test_settings_of_the_retraining_decide_such_a_table(tiny_spec):
    """They may not differ on a resume, but for the number of seeds."""
    spec = tiny_spec(*DELIVERED)
    other = tiny_spec(*DELIVERED, "retrain.patience=3", "retrain.seeds=5")
    assert diff(spec, other) == ["retrain.patience: 2 -> 3"]
    assert diff(tiny_spec(), tiny_spec("retrain.patience=3", "retrain.seeds=5")) == []


def test_what_was_written_before_a_setting_came_means_what_was_done_then():
    """A stored specification without the new settings is that of a plain network."""
    document = load_spec(overrides=["model.shortcut=auto", "model.activation=gelu"]).model_dump(
        mode="json"
    )
    kept = with_former_settings(document)
    assert kept == document
    for section, name in (
        ("model", "shortcut"),
        ("model", "activation"),
        ("training", "averaging"),
    ):
        del document[section][name]
    former = with_former_settings(document)
    assert former["model"]["shortcut"] == "none"
    assert former["model"]["activation"] == "relu"
    assert former["training"]["averaging"] == "none"


def test_every_commit_is_swept(finished):
    """The number above is that of this study: no commit comes after it."""
    assert commits_of(finished) == COMMITS


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("commit", commits())
def test_killed_at_a_commit(tmp_path, tiny_spec, create_study, finished, commit, after):
    """Also between fold 0 and the other folds: the same table."""
    storage = tmp_path / "killed.db"
    engine = create_study(storage, tiny_spec(*DELIVERED))
    child = forked_worker(storage, killer(commit, after=after))
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    bury(engine, child)
    finish(storage)
    assert table_of(engine) == table_of(finished)
    check_whole(engine)


def test_three_workers_end_with_the_table_of_one(tmp_path, tiny_spec, create_study, finished):
    """Whoever comes first to a generation."""
    storage = tmp_path / "three.db"
    engine = create_study(storage, tiny_spec(*DELIVERED))
    children = [forked_worker(storage) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert table_of(engine) == table_of(finished)
    check_whole(engine)


def test_a_share_of_all_the_loss_is_no_progress():
    """Nothing would ever count as progress."""
    with pytest.raises(SpecError, match="min_delta: must be < 1"):
        load_spec(overrides=["retrain.min_delta=1", "retrain.min_delta_mode=relative"])
