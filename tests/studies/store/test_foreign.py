"""Optuna used by somebody else on our studies: nothing is lost, nothing of theirs is chosen."""

import sqlite3
from contextlib import closing, suppress

import optuna
import pytest
from chaos import by_themselves, check_whole, table_of

from aesearch.studies.store import search_results, study_rows, whole_studies
from aesearch.studies.store.status import statuses

SHORT = ("search.pruner=none", "search.sampler=random", "retrain.seeds=1")


@pytest.fixture
def optuna_storage():
    """Open stores as Optuna itself does, without anything of ours."""
    opened = []

    def open_one(url):
        url = url if "://" in url else f"sqlite:///{url}"
        opened.append(optuna.storages.RDBStorage(url.replace("postgresql:", "postgresql+psycopg:")))
        return opened[-1]

    yield open_one
    for storage in opened:
        storage.remove_session()
        storage.engine.dispose()


def escaped(storage):
    """A URL as Optuna wants it: it fills braces."""
    return storage.replace("{", "{{").replace("}", "}}")


@pytest.fixture
def finished(new_store, tiny_spec, create_study, work, optuna_storage):
    """A finished study: (engine, Optuna's storage of the same database)."""
    where = new_store("s")
    engine = create_study(where, tiny_spec(*SHORT))
    work(engine)
    return engine, optuna_storage(escaped(where))


@pytest.fixture
def untouched(tmp_path, tiny_spec, create_study, work):
    """The table of the same study in a store that nobody else opens."""
    engine = create_study(tmp_path / "untouched.db", tiny_spec(*SHORT))
    work(engine)
    return table_of(engine)


def test_a_copy_takes_the_place_of_a_study_that_is_deleted(finished):
    """What the dashboard calls renaming: every trial, curve and weight is under the new name."""
    engine, theirs = finished
    before = table_of(engine)
    optuna.copy_study(
        from_study_name="digits", from_storage=theirs, to_storage=theirs, to_study_name="new"
    )
    optuna.delete_study(study_name="digits", storage=theirs)
    assert study_rows.study_names(engine) == ["new"]
    assert table_of(engine, "new") == before
    check_whole(engine, "new")


def test_the_dashboards_way_of_renaming_is_followed(finished):
    """It copies user attributes and trials, one after the other, and deletes the original."""
    engine, theirs = finished
    before = table_of(engine)
    source = optuna.load_study(study_name="digits", storage=theirs)
    target = optuna.create_study(storage=theirs, study_name="b", directions=source.directions)
    target.add_trials(source.get_trials(deepcopy=False))
    for key, value in source.user_attrs.items():
        target.set_user_attr(key, value)
    theirs.delete_study(source._study_id)
    assert table_of(engine, "b") == before


def test_optuna_cannot_delete_a_study_without_a_copy(finished):
    """Its models are nowhere else: the database refuses, and names the command that does it.

    Optuna keeps to itself what SQLite says.
    """
    engine, theirs = finished
    before = table_of(engine)
    if engine.dialect.name == "sqlite":
        optuna.delete_study(study_name="digits", storage=theirs)
        with (
            closing(sqlite3.connect(engine.url.database)) as connection,
            pytest.raises(sqlite3.IntegrityError, match="aesearch delete STUDY"),
        ):
            connection.execute("DELETE FROM studies")
    else:
        with pytest.raises(optuna.exceptions.StorageInternalError) as raised:
            optuna.delete_study(study_name="digits", storage=theirs)
        assert "aesearch delete STUDY" in str(raised.value.__cause__)
    assert table_of(engine) == before


def test_a_copy_without_the_last_trials_is_no_copy(
    new_store, tiny_spec, create_study, work, optuna_storage
):
    """A study that went on after it was copied keeps what only it has."""
    where = new_store("s")
    engine = create_study(where, tiny_spec(*SHORT))
    theirs = optuna_storage(escaped(where))
    optuna.copy_study(
        from_study_name="digits", from_storage=theirs, to_storage=theirs, to_study_name="early"
    )
    work(engine)
    with suppress(optuna.exceptions.StorageInternalError):
        optuna.delete_study(study_name="digits", storage=theirs)
    assert "digits" in study_rows.study_names(engine)


def test_renaming_and_deleting_are_whole(finished):
    """Our own commands: a name alone changes; a deletion leaves no row."""
    engine, theirs = finished
    before = table_of(engine)
    whole_studies.rename_study(engine, "digits", "new")
    assert table_of(engine, "new") == before
    whole_studies.delete_study(engine, "new")
    assert study_rows.study_names(engine) == []
    assert theirs.get_all_studies() == []


def tell(study, value):
    """What optimize does: ask, suggest, report, tell."""
    trial = study.ask()
    trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    trial.suggest_int("mine", 1, 3)
    trial.report(value, 2)
    trial.report(value, 1000)
    trial.set_user_attr("fold_scores", [value, value])
    study.tell(trial, value)


def test_trials_of_others_are_never_chosen(finished, work):
    """Added to a finished study, they are shown as theirs; more of ours get the next numbers."""
    engine, theirs = finished
    before = table_of(engine)
    study = optuna.load_study(study_name="digits", storage=theirs)
    tell(study, 1e-9)
    kind = {"learning_rate": optuna.distributions.FloatDistribution(1e-5, 1, log=True)}
    study.add_trial(
        optuna.trial.create_trial(value=1e-8, params={"learning_rate": 0.1}, distributions=kind)
    )
    assert table_of(engine) == before
    assert statuses(engine)[0].n_trials == 5
    assert [t.value for t in study_rows.snapshot(engine, "digits").foreign] == [1e-9, 1e-8]
    row = study_rows.find_study(engine, "digits")
    study_rows.raise_trials(engine, row, 7, 2)
    work(engine)
    snapshot = study_rows.snapshot(engine, "digits")
    assert [t.number for t in snapshot.trials] == list(range(7))
    assert by_themselves(snapshot.trials)[:5] == by_themselves(snapshot.trials[:5])
    assert [(t.number, t.value) for t in snapshot.foreign] == [(7, 1e-9), (8, 1e-8)]
    assert [t.number for t in study.trials] == list(range(9))


def test_a_slot_that_others_took_is_given_back(
    new_store, tiny_spec, create_study, work, optuna_storage, untouched
):
    """``ask`` takes waiting trials, ours too: before the study begins, the table is the same."""
    where = new_store("s")
    engine = create_study(where, tiny_spec(*SHORT))
    study = optuna.load_study(study_name="digits", storage=optuna_storage(escaped(where)))
    tell(study, 1e-9)
    study.ask()
    status = statuses(engine)[0]
    assert (status.trials["waiting"], status.finished, status.best) == (5, 0, None)
    work(engine)
    assert table_of(engine) == untouched
    check_whole(engine)
    assert [t.value for t in study_rows.snapshot(engine, "digits").foreign] == [1e-9, None]


def test_a_value_that_others_tell_in_our_midst_is_replaced(
    new_store, tiny_spec, create_study, work, optuna_storage, untouched, monkeypatch
):
    """Told, reported and parametrised by another process while we train it: ours is what stays."""
    where = new_store("s")
    engine = create_study(where, tiny_spec(*SHORT))
    theirs = optuna_storage(escaped(where))
    study = optuna.load_study(study_name="digits", storage=theirs)
    write_rung, told = search_results.write_rung, []

    def disturbed(*arguments, **options):
        if not told:
            trial_id = next(t._trial_id for t in study.trials if t.number == 1)
            kind = optuna.distributions.IntDistribution(1, 3)
            theirs.set_trial_param(trial_id, "mine", 2, kind)
            theirs.set_trial_intermediate_value(trial_id, 1, 1e-9)
            theirs.set_trial_intermediate_value(trial_id, 1000, 1e-9)
            theirs.set_trial_user_attr(trial_id, "fold_scores", [1e-9])
            theirs.set_trial_state_values(trial_id, optuna.trial.TrialState.COMPLETE, [1e-9])
            told.append(trial_id)
        return write_rung(*arguments, **options)

    monkeypatch.setattr(search_results, "write_rung", disturbed)
    work(engine)
    assert told
    assert table_of(engine) == untouched
    trial = next(t for t in study.trials if t.number == 1)
    assert max(trial.intermediate_values) == 3
    assert "mine" not in trial.params
