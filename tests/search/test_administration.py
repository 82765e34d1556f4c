"""A study renamed, deleted and copied, a trial excluded, another trial delivered."""

import json
import shutil

import pytest
from chaos import create, finish, table_of
from typer.testing import CliRunner

import aesearch
from aesearch.cli import app
from aesearch.options import OptionError
from aesearch.studies.errors import StudyMismatchError, StudyNotFoundError
from aesearch.studies.store import study_rows, tables, whole_studies
from aesearch.studies.store.connection import database

SHORT = ("search.trials=3", "search.pruner=none", "retrain.seeds=1", "search.generation_size=2")


@pytest.fixture(scope="module")
def kept(tmp_path_factory, tiny_spec):
    """A finished study that every test gets a copy of."""
    path = tmp_path_factory.mktemp("kept") / "s.db"
    engine = create(path, tiny_spec(*SHORT))
    finish(path)
    engine.dispose()
    return path


@pytest.fixture
def store(kept, tmp_path, monkeypatch):
    """Path of the store; the default one of the present folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(kept, tmp_path / "aesearch.db")
    return tmp_path / "aesearch.db"


def invoke(*arguments, **options):
    return CliRunner().invoke(app, list(map(str, arguments)), **options)


def table(storage, name="digits"):
    engine = study_rows.open_store(str(storage))
    found = table_of(engine, name)
    engine.dispose()
    return found


def test_a_renamed_study_is_the_same(store):
    """Under its new name only; a name that is taken, or blank, is refused."""
    before = table(store)
    assert invoke("rename", "digits", "pens").exit_code == 0
    assert table(store, "pens") == before
    with pytest.raises(StudyNotFoundError):
        aesearch.open_study("digits")
    aesearch.copy_study("pens", store, new_name="other")
    done = invoke("rename", "pens", "other")
    assert (done.exit_code, "got 'other'" in done.stderr) == (2, True)
    done = invoke("rename", "pens", "  ")
    assert (done.exit_code, "must be more than blanks" in done.stderr) == (2, True)


def test_a_study_is_deleted_when_that_is_confirmed(store):
    """Nothing of it stays in the store."""
    done = invoke("delete", "digits", input="n\n")
    assert done.exit_code == 1
    assert [s.name for s in aesearch.list_studies()] == ["digits"]
    done = invoke("delete", "digits", "--yes")
    assert done.stdout == "study 'digits' with 3 trials and its models is deleted\n"
    assert aesearch.list_studies() == []


def test_a_copy_goes_to_another_database_and_back(store, new_store):
    """With models and curves, verified; the same command again finds it there."""
    before = table(store)
    there = new_store("there")
    copied = aesearch.copy_study("digits", there, new_name="moved")
    assert (copied.there, copied.rows["trials"], copied.rows["aesearch_retrain"]) == (False, 3, 1)
    assert table(there, "moved") == before
    assert aesearch.copy_study("digits", there, new_name="moved").there
    back = aesearch.copy_study("moved", "back.db", there, new_name="digits")
    assert back.sha256 == copied.sha256
    assert table("back.db") == before
    done = invoke("copy", "digits", "--to", there, "--name", "moved")
    assert done.stdout.startswith("study 'digits' was there already, the same: 3 trials,")


def test_a_copy_never_takes_the_place_of_another_study(store):
    """Nor of one that went on since it was copied."""
    aesearch.copy_study("digits", "there.db")
    engine = study_rows.open_store("there.db")
    study_rows.raise_trials(engine, study_rows.find_study(engine, "digits"), 5, 2)
    engine.dispose()
    with pytest.raises(StudyMismatchError, match="got 'digits'; give another"):
        aesearch.copy_study("digits", "there.db")


def test_a_study_goes_on_where_it_was_copied_to(kept, tmp_path, new_store, tiny_spec):
    """Half of it here, half there: the table of one that stayed."""
    half = create(tmp_path / "half.db", tiny_spec(*SHORT))
    there = new_store("there")
    aesearch.copy_study("digits", there, tmp_path / "half.db")
    finish(there)
    assert table(there) == table(kept)
    half.dispose()


def test_what_arrives_otherwise_does_not_stay(store, monkeypatch):
    """A row that the target changes takes the whole copy back."""
    from aesearch.studies.store import copying

    digests = iter(["a", "b"])
    monkeypatch.setattr(copying, "_digest", lambda _rows: next(digests))
    with pytest.raises(aesearch.AesearchError, match="nothing of it stays"):
        aesearch.copy_study("digits", "there.db")
    engine = study_rows.open_store("there.db")
    assert study_rows.study_names(engine) == []
    with database.reading(engine) as connection:
        assert connection.execute(tables.curve.select()).first() is None
    engine.dispose()


def test_an_excluded_trial_is_not_chosen_until_it_is_put_back(store):
    """Another winner is chosen at once; the first one's model is still there when it is back."""
    study = aesearch.open_study()
    winner = study.best.number
    done = invoke("exclude", "digits", "--trial", winner, "--reason", "dead units")
    assert done.exit_code == 0, done.stderr
    assert "has yet to be retrained" in done.stdout
    after = aesearch.open_study()
    assert after.best.number == study.best_trials(2)[1].number
    row = after.trials().set_index("number").loc[winner]
    assert row["unstable"] == "excluded: dead units"
    found = aesearch.exclude_trial("digits", winner, None)
    assert (found.winner, found.retrained) == (winner, True)
    assert aesearch.open_study().trials().equals(study.trials())


def test_what_cannot_be_excluded_is_named(store):
    """A number that there is not; no reason."""
    with pytest.raises(OptionError, match="finished trial of study 'digits', got 99"):
        aesearch.exclude_trial("digits", 99, "why")
    assert invoke("exclude", "digits", "--trial", 1).exit_code == 2
    for number in range(3):
        found = aesearch.exclude_trial("digits", number, "no")
    assert found.winner is None


def test_another_trial_is_delivered_beside_the_winner(store):
    """Trained and tested like it, in a folder of its own; the store counts the look."""
    study = aesearch.open_study()
    other = study.best_trials(3)[-1].number
    done = invoke("train", "digits", "--trial", other, "--json", "--quiet")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)["result"]
    assert (result["trial"], result["test"]["looks"]) == (other, 2)
    assert aesearch.open_study().summary()["test_looks"] == 2
    assert aesearch.open_study().best.number == study.best.number
    done = invoke("train", "digits", "--trial", 99)
    assert (done.exit_code, "got 99" in done.stderr) == (2, True)
    assert invoke("train", "digits", "--trial", 1, "--encoding-dim", 8).exit_code == 2


def test_a_deletion_leaves_no_row(store):
    """In any table of ours or Optuna's."""
    engine = study_rows.open_store(str(store))
    whole_studies.delete_study(engine, "digits")
    with database.reading(engine) as connection:
        for table in tables.OWN_TABLES:
            if table is not tables.schema:
                assert connection.execute(table.select()).first() is None
    engine.dispose()
