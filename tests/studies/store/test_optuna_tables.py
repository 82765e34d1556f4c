"""What we write into Optuna's tables is what Optuna's public API reads."""

import math

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError

from aesearch.studies.store import study_rows
from aesearch.studies.store.connection import database
from aesearch.studies.store.optuna import optuna_tables

KINDS = {
    "learning_rate": FloatDistribution(1e-5, 1.0, log=True),
    "encoding_dim": CategoricalDistribution([4, 8, 16]),
    "architecture": CategoricalDistribution(["dense", "conv"]),
    "width": IntDistribution(2, 20),
}
PARAMS = {"learning_rate": 0.01, "encoding_dim": 8, "architecture": "conv", "width": 7}


@pytest.fixture
def engine(new_store):
    engine = study_rows.open_store(new_store("s"))
    yield engine
    engine.dispose()


@pytest.fixture
def through_optuna(engine):
    """Load a study as Optuna's own tools do."""
    theirs = database.optuna_storage(engine)
    yield lambda name="s": optuna.load_study(study_name=name, storage=theirs)
    database.close_storage(theirs)


def new_study(engine, name="s", n_trials=3):
    with database.writing(engine) as connection:
        study_id = optuna_tables.create_study(connection, name)
        optuna_tables.add_waiting_trials(connection, study_id, range(n_trials))
    return study_id


def test_a_finished_trial_reads_the_same(engine, through_optuna):
    """State, value, parameters, distributions, reports and attributes survive the round trip."""
    study_id = new_study(engine)
    with database.writing(engine) as connection:
        ids = optuna_tables.trial_ids(connection, study_id)
        optuna_tables.start_trial(connection, ids[1], PARAMS, KINDS)
        optuna_tables.report(connection, ids[1], {1: 0.5, 2: math.nan, 3: math.inf, 4: 5e-324})
        optuna_tables.finish_trial(
            connection,
            ids[1],
            TrialState.COMPLETE,
            value=0.25,
            params=PARAMS,
            distributions=KINDS,
            last_step=4,
            user_attributes={"fold_scores": [0.2, 0.3]},
            system_attributes={"constraints:stability": 1.0},
        )
    study = through_optuna()
    trial = study.trials[1]
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert [t.state for t in study.trials] == [
        TrialState.WAITING,
        TrialState.COMPLETE,
        TrialState.WAITING,
    ]
    assert (trial.value, trial.params, trial.distributions) == (0.25, PARAMS, KINDS)
    assert trial.user_attrs == {"fold_scores": [0.2, 0.3]}
    assert trial.constraints == {"stability": 1.0}
    reports = trial.intermediate_values
    assert (reports[1], reports[3], reports[4]) == (0.5, math.inf, 5e-324)
    assert math.isnan(reports[2])
    with database.reading(engine) as connection:
        ours = optuna_tables.frozen_trials(connection, study_id)[1]
    assert (ours.params, ours.value, ours.user_attrs) == (trial.params, 0.25, trial.user_attrs)


def end(connection, trial_id, value):
    """End a trial without parameters."""
    optuna_tables.finish_trial(
        connection,
        trial_id,
        TrialState.COMPLETE,
        value=value,
        params={},
        distributions={},
        last_step=0,
    )


def test_what_else_stood_in_a_trial_is_replaced(engine, through_optuna):
    """Value, parameters and reports of another writer go; attributes of other names stay."""
    study_id = new_study(engine)
    with database.writing(engine) as connection:
        trial_id = optuna_tables.trial_ids(connection, study_id)[0]
        optuna_tables.start_trial(connection, trial_id, PARAMS, KINDS)
        optuna_tables.report(connection, trial_id, {1: 0.5, 1000: 0.1})
        optuna_tables.finish_trial(
            connection,
            trial_id,
            TrialState.PRUNED,
            value=0.1,
            params=PARAMS,
            distributions=KINDS,
            last_step=1000,
        )
        optuna_tables.finish_trial(
            connection,
            trial_id,
            TrialState.COMPLETE,
            value=1.0,
            params={"width": 7},
            distributions=KINDS,
            last_step=2,
        )
    (trial, *_) = through_optuna().trials
    assert (trial.value, trial.params, trial.intermediate_values) == (1.0, {"width": 7}, {1: 0.5})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_must_be_finite(engine, through_optuna, value):
    """Optuna takes -inf as the best trial there ever was; we do not let it in."""
    study_id = new_study(engine)
    with (
        pytest.raises(ValueError, match="must be finite"),
        database.writing(engine) as connection,
    ):
        trial_id = optuna_tables.trial_ids(connection, study_id)[0]
        end(connection, trial_id, value)
    assert through_optuna().trials[0].state == TrialState.WAITING


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_floats_come_back_to_the_bit(engine, value):
    """A loss read from the store is the loss that was computed."""
    name = value.hex()
    with database.writing(engine) as connection:
        known = optuna_tables.find_study(connection, name)
    study_id = known if known is not None else new_study(engine, name, 1)
    with database.writing(engine) as connection:
        trial_id = optuna_tables.trial_ids(connection, study_id)[0]
        end(connection, trial_id, value)
    with database.reading(engine) as connection:
        assert optuna_tables.frozen_trials(connection, study_id)[0].value == value


@pytest.mark.parametrize("name", ["it's", '"; DROP TABLE trials; --', "../x", "{a}", "日本", "%s"])
def test_names_are_data(engine, through_optuna, name):
    """Quotes, braces, paths and scripts are a name like any other."""
    new_study(engine, name)
    assert len(through_optuna(name).trials) == 3


def test_a_name_is_taken_once(engine):
    """The database itself refuses a second study of one name."""
    new_study(engine)
    with pytest.raises(IntegrityError):
        new_study(engine)
