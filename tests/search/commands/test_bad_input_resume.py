"""A study is given again with something changed: refused with the key, or gone on with."""

import numpy as np
import optuna
import pytest
import sqlalchemy as sa
import torch

from aesearch.driver import create
from aesearch.driver.create import leave_study
from aesearch.driver.study_run import run_study
from aesearch.studies.errors import SpecError, StudyMismatchError
from aesearch.studies.store import study_rows, tables
from aesearch.studies.store.connection import database
from aesearch.terminal.display import make_display

SPACE = (
    "space={defaults: false, learning_rate: {low: 0.001, high: 0.01}, dropout: {choices: [0, 0.1]}}"
)


@pytest.fixture
def given(tmp_path, tiny_spec):
    """Create the study, or give it again with overrides."""
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    fixed = (f"data.dataset={tmp_path / 'images.npz'}", "data.limit=null", "name=s", SPACE)

    def give(*overrides):
        return leave_study(
            tiny_spec(*fixed, *overrides),
            storage=str(tmp_path / "s.db"),
            display=make_display(quiet=True),
        )

    give()
    return give


def everything(path):
    """Every row of ours in a store."""
    engine = study_rows.open_store(str(path))
    with database.reading(engine) as connection:
        rows = [connection.execute(table.select()).all() for table in tables.OWN_TABLES]
    engine.dispose()
    return rows


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("space.learning_rate={low: 0.001, high: 0.1}", "space.learning_rate.high: 0.01 -> 0.1"),
        ("space.dropout={choices: [0, 0.2]}", "space.dropout.choices: [0.0, 0.1] -> [0.0, 0.2]"),
        ("space.dropout=null", "space.dropout"),
        ("space.encoding_dim={low: 2, high: 4}", "space.encoding_dim"),
        ("search.folds=4", "search.folds: 3 -> 4"),
        ("seed=1", "seed: 0 -> 1"),
        ("search.sampler=random", "search.sampler: gp -> random"),
        ("search.pruner=none", "search.pruner: halving -> none"),
        ("search.lookahead=4", "search.lookahead: 2 -> 4"),
        ("search.generation_size=1", "search.generation_size: 2 -> 1"),
        ("training.epochs=4", "training.epochs: 3 -> 4"),
        ("model.encoding_dim=5", "model.encoding_dim"),
        ("data.limit=50", "data.limit: null -> 50"),
        ("compute.threads=2", "compute.threads: 1 -> 2"),
        ("compute.precision=bfloat16", "compute.precision: float32 -> bfloat16"),
        ("compute.population=1", "compute.population"),
    ],
)
def test_what_would_change_the_table_is_refused(given, tmp_path, override, words):
    """The key with both values, and what to do; the store is not touched."""
    before = everything(tmp_path / "s.db")
    with pytest.raises(StudyMismatchError) as caught:
        given(override)
    assert words in str(caught.value)
    assert str(caught.value).endswith("name a new study with --study")
    assert everything(tmp_path / "s.db") == before


def test_every_difference_is_named_at_once(given):
    """Not one after the other."""
    with pytest.raises(StudyMismatchError) as caught:
        given("search.folds=4", "seed=1", "training.epochs=4")
    assert len([line for line in str(caught.value).splitlines() if line.startswith("  - ")]) == 3


def test_another_device_is_named(given, tmp_path):
    """A study that was begun on another device is not continued on this one unasked."""
    engine = study_rows.open_store(str(tmp_path / "s.db"))
    study = study_rows.find_study(engine, "s")
    spec = study_rows.stored_spec(study)
    compute = spec.compute.model_copy(update={"device": "cuda"})
    study_rows.replace_spec(engine, study, spec.model_copy(update={"compute": compute}))
    engine.dispose()
    with pytest.raises(StudyMismatchError, match=r"compute\.device: cuda -> cpu"):
        given()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_study_of_a_gpu_is_not_reopened_where_there_is_none(tmp_path, tiny_spec):
    """A run that could not train the trials that it adds changes nothing; workers may."""
    path, display = tmp_path / "s.db", make_display(quiet=True)
    leave_study(tiny_spec("compute.device=cuda"), storage=str(path), display=display)
    before = everything(path)
    more = tiny_spec("compute.device=auto", "search.trials=9")
    with pytest.raises(StudyMismatchError, match="must be trained on cuda, where it was begun"):
        run_study(more, storage=str(path), out=tmp_path / "out", workers=1, display=display)
    assert everything(path) == before
    assert leave_study(more, storage=str(path), display=display).trials == 9


def test_a_name_that_another_program_has_given_is_told(tmp_path, tiny_spec):
    """Its store may be shared, its study not."""
    path = tmp_path / "s.db"
    optuna.create_study(storage=f"sqlite:///{path}", study_name="digits")
    with pytest.raises(StudyMismatchError, match="which another program has given to a study"):
        leave_study(tiny_spec(), storage=str(path), display=make_display(quiet=True))


def test_the_direction_is_no_setting(given):
    """A loss is minimised: nothing that is given can turn it round."""
    with pytest.raises(SpecError, match=r"search\.direction: unknown key"):
        given("search.direction=maximize")


def test_images_that_were_moved_are_found_where_they_are(given, tmp_path):
    """The same images under another name are the study's, and workers look for them there."""
    moved = tmp_path / "elsewhere" / "pictures.npz"
    moved.parent.mkdir()
    (tmp_path / "images.npz").rename(moved)
    assert given(f"data.dataset={moved}").trials == 5
    engine = study_rows.open_store(str(tmp_path / "s.db"))
    assert study_rows.stored_spec(study_rows.find_study(engine, "s")).data.dataset == str(moved)
    engine.dispose()


def test_other_images_in_another_file_are_refused(given, tmp_path):
    """By their path, and they never take its place."""
    other = tmp_path / "other.npz"
    np.savez(other, images=np.random.default_rng(1).integers(0, 256, (60, 8, 8), dtype=np.uint8))
    before = everything(tmp_path / "s.db")
    with pytest.raises(StudyMismatchError, match=r"data\.dataset: .*images\.npz -> .*other\.npz"):
        given(f"data.dataset={other}")
    assert everything(tmp_path / "s.db") == before


@pytest.mark.parametrize("change", ["pixel", "order", "fewer"])
def test_other_images_in_the_same_file_are_refused(given, tmp_path, change):
    """One pixel, their order or their number: the file is no longer that of the study."""
    path = tmp_path / "images.npz"
    with np.load(path) as archive:
        images = archive["images"]
    if change == "pixel":
        images[7, 3, 3] ^= 1
    np.savez(path, images={"pixel": images, "order": images[::-1], "fewer": images[:-1]}[change])
    with pytest.raises(StudyMismatchError, match="must go on with the images it was made with"):
        given()


def test_more_trials_come_in_the_generations_of_the_study(given, tmp_path, monkeypatch):
    """Whatever the machine that asks for them would choose."""
    given("search.generation_size=auto", "search.lookahead=auto", "name=made", "search.trials=10")
    monkeypatch.setattr(create, "planned_device", lambda _: "cuda")
    elsewhere = ("search.generation_size=auto", "search.lookahead=auto", "name=made")
    given(*elsewhere, "compute.device=auto", "search.trials=30")
    engine = study_rows.open_store(str(tmp_path / "s.db"))
    with database.reading(engine) as connection:
        query = sa.select(tables.lease.c.first, tables.lease.c.size)
        study = study_rows.find_study(engine, "made")
        rows = connection.execute(
            query.where(tables.lease.c.study_id == study.study_id).order_by(tables.lease.c.first)
        ).all()
    engine.dispose()
    assert [tuple(row) for row in rows] == [(first, 5) for first in range(0, 30, 5)]


@pytest.mark.parametrize(
    "override",
    [
        "search.trials=9",
        "retrain.seeds=3",
        "search.select=one-se",
        "search.objectives=[mse, n_parameters]",
        "description=more",
    ],
)
def test_what_changes_no_trial_is_taken(given, override):
    """More trials, another choice or retraining are no other study."""
    assert given(override).trials == (9 if "trials" in override else 5)
