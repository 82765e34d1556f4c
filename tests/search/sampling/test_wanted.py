"""Known configurations: read from files, held against the space, tried first, and recorded."""

import os

import optuna
import pytest
import yaml
from chaos import bury, check_whole, forked_worker, killer, table_of

from aesearch.data.study_data import load_problem
from aesearch.driver.create import leave_study
from aesearch.sampling.wanted import WishError, completed, read_wanted
from aesearch.studies.spec.load import load_spec, to_yaml
from aesearch.studies.spec.resolved import resolve
from aesearch.studies.store import retrain_results, study_rows
from aesearch.terminal.display import make_display

SHAPE = (1, 8, 8)
KNOWN = [
    {"architecture": "conv", "encoding_dim": 8, "learning_rate": 0.002},
    {"encoding_dim": 4, "dropout": 0.05, "architecture": "dense"},
]
SHORT = ("search.pruner=median", "retrain.seeds=1", "search.startup_trials=2")


@pytest.fixture(scope="module")
def spec(tiny_spec):
    """Everything resolved."""
    return load_problem(tiny_spec(*SHORT), device="cpu").spec


def begin(storage, spec, enqueue=KNOWN):
    """Create a study, or go on with it, with what is asked for."""
    leave_study(spec, storage=storage, display=make_display(quiet=True), enqueue=enqueue)
    return study_rows.open_store(storage)


def test_what_is_left_out_is_as_in_the_default_configuration(spec):
    """A configuration is whole, in the order of the space."""
    found = completed(spec, {"learning_rate": 0.002, "encoding_dim": 8.0}, SHAPE)
    assert found == spec.default_configuration_params() | {
        "learning_rate": 0.002,
        "encoding_dim": 8,
    }
    assert list(found) == list(spec.default_configuration_params())


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"lerning_rate": 1}, "got 'lerning_rate'"),
        ({"learning_rate": 1.0}, "learning_rate of an enqueued trial must be from 0.001 to 0.008"),
        ({"learning_rate": float("nan")}, "got nan"),
        ({"learning_rate": True}, "got True"),
        ({"learning_rate": "fast"}, "got 'fast'"),
        ({"encoding_dim": 5}, "must be one of 4, 8, 16, 32, got 5"),
        ({"code_activation": "relu"}, "must be as the study has it"),
    ],
)
def test_what_is_no_configuration_of_the_space_is_named(spec, wish, said):
    """The dimension, what it has, and what was found."""
    with pytest.raises(WishError, match=said):
        completed(spec, wish, SHAPE)


def test_what_has_too_many_weights_is_named():
    """With how many it has; what is left out is as in the nearest configuration that fits."""
    space = ("space.hidden.choices=[16, 48, 96]", "space.encoding_dim.choices=[4, 32]")
    asked = load_spec(overrides=[*space, "model.dense.hidden=[96]", "search.max_parameters=14000"])
    spec = resolve(asked, image_shape=SHAPE, n_train=100, device="cpu")
    assert completed(spec, {"encoding_dim": 4}, SHAPE)["hidden"] == "96"
    assert completed(spec, {"encoding_dim": 32}, SHAPE)["hidden"] == "48"
    said = r"at most 14000 weights \(search.max_parameters\), got 22880 with dense, hidden 96, enc"
    with pytest.raises(WishError, match=said):
        completed(spec, {"hidden": 96, "encoding_dim": 32}, SHAPE)


def test_files_of_every_kind(tmp_path, spec):
    """A list, one mapping, a specification, and the table of another study."""
    (tmp_path / "list.yaml").write_text(yaml.safe_dump(KNOWN))
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(KNOWN[0]))
    (tmp_path / "study.yaml").write_text(to_yaml(spec))
    (tmp_path / "trials.csv").write_text(
        "number,state,value,unstable,architecture,hidden,encoding_dim\n"
        "0,complete,0.1,,dense,256-128,8\n1,pruned,0.2,,conv,,4\n2,complete,0.3,high,conv,,4\n"
    )
    assert read_wanted(tmp_path / "list.yaml") == KNOWN
    assert read_wanted([tmp_path / "one.yaml", KNOWN[1]]) == KNOWN
    (found,) = read_wanted(str(tmp_path / "study.yaml"))
    assert completed(spec, found, SHAPE) == spec.default_configuration_params()
    assert read_wanted(tmp_path / "trials.csv") == [
        {"architecture": "dense", "hidden": "256-128", "encoding_dim": 8}
    ]
    (tmp_path / "none.csv").write_text("a,b\n1,2\n")
    with pytest.raises(WishError, match=r"none\.csv must hold complete, stable trials"):
        read_wanted(tmp_path / "none.csv")
    with pytest.raises(WishError, match="no such file"):
        read_wanted(tmp_path / "absent.yaml")


@pytest.fixture(scope="module")
def table(tmp_path_factory, tiny_spec):
    """The study with two known configurations, by one worker that nobody disturbs."""
    storage = str(tmp_path_factory.mktemp("whole") / "s.db")
    engine = begin(storage, tiny_spec(*SHORT))
    assert os.waitpid(forked_worker(storage), 0)[1] == 0
    yield table_of(engine)
    engine.dispose()


def test_they_are_the_first_trials_and_the_default_comes_next(table, spec):
    """As asked for, whatever the sampler; what it would have tried first is tried after them."""
    params = [trial[2] for trial in table[0]]
    assert params[:2] == [completed(spec, wish, SHAPE) for wish in KNOWN]
    assert params[2] == spec.default_configuration_params()
    assert len(params) == 5


@pytest.mark.parametrize(
    "commit", [2, 9, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 4))]
)
def test_killed_at_a_commit_with_enqueued_trials(new_store, tiny_spec, table, commit):
    """The same list gives the same table, killed or not, on both databases."""
    storage = new_store("killed")
    engine = begin(storage, tiny_spec(*SHORT))
    child = forked_worker(storage, killer(commit, after=commit % 2 == 0))
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    bury(engine, child)
    children = [forked_worker(storage) for _ in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert table_of(engine) == table
    check_whole(engine)
    engine.dispose()


def test_the_same_list_again_asks_for_nothing_more(tmp_path, tiny_spec):
    """Given with every resume, before they are tried and after."""
    storage = str(tmp_path / "s.db")
    for _ in range(2):
        engine = begin(storage, tiny_spec(*SHORT))
        assert len(study_rows.snapshot(engine, "digits").foreign) == 2
        engine.dispose()


def test_a_trial_that_optuna_enqueues_is_tried(tmp_path, tiny_spec, create_study, work):
    """Also one that cannot be: it fails with the reason, and the study goes on."""
    path = tmp_path / "s.db"
    engine = create_study(path, tiny_spec(*SHORT))
    study = optuna.load_study(study_name="digits", storage=f"sqlite:///{path}")
    study.enqueue_trial({"learning_rate": 5.0})
    study.enqueue_trial({"architecture": "conv", "encoding_dim": 8}, user_attrs={"from": "me"})
    work(engine)
    snapshot = study_rows.snapshot(engine, "digits")
    assert snapshot.trials[0].params["architecture"] == "conv"
    assert [(t.number, t.state) for t in snapshot.foreign] == [(5, "failed")]
    assert "must be from 0.001 to 0.008" in study.trials[5].user_attrs["reason"]
    assert study.trials[0].user_attrs["from"] == "me"
    study.enqueue_trial({"encoding_dim": 16})
    again = study_rows.find_study(engine, "digits")
    study_rows.raise_trials(engine, again, 6, 2)
    retrain_results.reopen_choice(engine, again)
    work(engine)
    assert study_rows.snapshot(engine, "digits").trials[5].params["encoding_dim"] == 16


@pytest.mark.parametrize("sampler", ["random", "qmc", "gp"])
def test_every_sampler_goes_on_behind_them(tmp_path, sampler):
    """What is suggested beside known configurations is what would have come first."""
    asked = load_spec(
        overrides=[
            f"search.sampler={sampler}",
            "search.trials=4",
            "data.limit=60",
            "training.epochs=1",
            "search.generation_size=4",
            "search.startup_trials=4",
            "retrain.seeds=1",
            "retrain.max_epochs=1",
            "search.unstable_loss=10",
            "compute.device=cpu",
        ]
    )
    engine = begin(str(tmp_path / "s.db"), asked, [{"encoding_dim": 8}])
    assert os.waitpid(forked_worker(tmp_path / "s.db"), 0)[1] == 0
    first, second, *_ = study_rows.snapshot(engine, "digits").trials
    assert (first.params["encoding_dim"], second.params["encoding_dim"]) == (8, 16)
    engine.dispose()
