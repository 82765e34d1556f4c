"""Trials of a plain Optuna study as configurations to try: which, and under which names."""

import hashlib
import sqlite3

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial
from typer.testing import CliRunner

import aesearch
from aesearch.cli import app
from aesearch.options import OptionError
from aesearch.sampling.imported import import_trials
from aesearch.sampling.wanted import WishError, read_wanted
from aesearch.studies.errors import StoreError, StudyNotFoundError
from aesearch.studies.spec.load import load_spec

KINDS = {
    "lr": FloatDistribution(1e-6, 1.0),
    "encoding_dim": CategoricalDistribution([4, 8, 16]),
    "momentum": FloatDistribution(0, 1),
}
NAMES = {"lr": "learning_rate", "momentum": ""}


def trial(value, lr=0.002, dim=4, state=TrialState.COMPLETE, momentum=0.5):
    params = {"lr": lr, "encoding_dim": dim, "momentum": momentum}
    return create_trial(state=state, value=value, params=params, distributions=KINDS)


TRIALS = [
    trial(0.5, lr=0.003),
    trial(None, state=TrialState.FAIL),
    trial(0.1, lr=0.5),
    trial(0.2, lr=0.002, dim=8),
    trial(0.01, state=TrialState.PRUNED),
    trial(0.3, lr=0.002, dim=8, momentum=0.9),  # the same, but for what is left out
    trial(float("inf"), lr=0.004),
    trial(0.4, lr=0.001, dim=16),
]


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A store of somebody else: SQLite, several studies."""
    path = tmp_path_factory.mktemp("old") / "old.db"
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    for name, trials, directions in (
        ("down", TRIALS, ["minimize"]),
        ("up", TRIALS, ["maximize"]),
        ("both", [], ["minimize", "maximize"]),
        ("none", [TRIALS[1], TRIALS[4]], ["minimize"]),
    ):
        study = optuna.create_study(study_name=name, storage=storage, directions=directions)
        study.add_trials(trials)
    storage.engine.dispose()
    return path


def test_the_best_come_first_each_once(old):
    """By value, without what was pruned, failed or is not finite; the same one counts once."""
    found = import_trials(old, "down", map=NAMES)
    assert found.numbers == [2, 3, 7, 0]
    assert found.values == [0.1, 0.2, 0.4, 0.5]
    assert found.configurations[1] == {"learning_rate": 0.002, "encoding_dim": 8}
    assert import_trials(old, "down", map=NAMES, top=2).numbers == [2, 3]


def test_of_a_study_that_maximises_the_largest_are_the_best(old):
    assert import_trials(f"sqlite:///{old}", "up", map=NAMES).numbers == [0, 7, 5, 2]


def test_what_is_outside_of_a_space_is_left_out_and_named(old):
    """Before the best are counted: so many as asked for come of what is left."""
    spec = load_spec(overrides=["space.encoding_dim.choices=[4, 8]"])
    found = import_trials(old, "down", map=NAMES, spec=spec, top=2)
    assert found.numbers == [3, 0]
    assert found.left_out == [
        "trial 2: learning_rate of an enqueued trial must be from 0.001 to 0.008, got 0.5",
        "trial 7: encoding_dim of an enqueued trial must be one of 4, 8, got 16",
    ]
    nowhere = load_spec(overrides=["space.learning_rate={low: 0.9, high: 1}"])
    with pytest.raises(WishError, match="must have configurations of the space, got none in 5"):
        import_trials(old, "down", map=NAMES, spec=nowhere)


def test_the_file_is_what_enqueue_reads(old, tmp_path):
    """Numbers to the last bit."""
    found = import_trials(old, "down", map=NAMES)
    (tmp_path / "known.yaml").write_text(found.to_yaml())
    assert read_wanted(tmp_path / "known.yaml") == found.configurations


def test_nothing_is_written_to_the_other_store(old):
    """Neither a byte of the file, nor a file beside it."""
    before = hashlib.sha256(old.read_bytes()).digest()
    import_trials(old, "down", map=NAMES)
    assert hashlib.sha256(old.read_bytes()).digest() == before
    assert [path.name for path in old.parent.iterdir()] == ["old.db"]


def test_a_journal_file_is_read_too(tmp_path):
    """Optuna's storage without a database; its only study needs no name."""
    path = tmp_path / "a.log"
    study = optuna.create_study(storage=JournalStorage(JournalFileBackend(str(path))))
    study.add_trials(TRIALS)
    assert import_trials(path, map=NAMES, top=1).numbers == [2]


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ({"study": "downn"}, StudyNotFoundError, "got 'downn'; there: 'down', 'up', 'both'"),
        ({"study": None}, StudyNotFoundError, "got none; there: 'down', 'up', 'both', 'none'"),
        ({"study": "both"}, WishError, "must have one objective, got 2"),
        ({"study": "none"}, WishError, r"got none \(1 fail, 1 pruned\)"),
        ({"map": {}}, WishError, "got 'lr', 'momentum'; .* --map lr=learning_rate, .* --map lr=$"),
        ({"map": NAMES | {"x": ""}}, OptionError, r"must begin with .*\(lr, .*got 'x'"),
        ({"map": NAMES | {"lr": "rate"}}, OptionError, "must end with a name of a space .*'rate'"),
        ({"map": NAMES | {"lr": "encoding_dim"}}, OptionError, "got encoding_dim twice"),
        ({"map": dict.fromkeys(KINDS, "")}, WishError, "5 complete trials: they have no param"),
        ({"top": 0}, OptionError, "top must be >= 1, got 0"),
    ],
)
def test_what_cannot_be_meant_is_one_line(old, asked, kind, said):
    """With what was found and what to do."""
    with pytest.raises(kind, match=said) as caught:
        import_trials(old, **{"study": "down", "map": NAMES, **asked})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("absent.db", "got 'absent.db': no such file"),
        ("sqlite:///absent.db", "got 'absent.db': no such file"),
        ("text.yaml", "got 'text.yaml', which is none of them"),
        ("plain.db", "must be a store of Optuna, got 'sqlite:///plain.db'"),
        ("mysqlite://me:secret@h/x", "whose driver is installed, got 'mysqlite://me:.*@h/x'"),
        ("postgresql://me:secret@localhost:1/x", "no server answers there"),
    ],
)
def test_no_store_of_optuna_is_said_in_one_line(tmp_path, monkeypatch, storage, said):
    """No file is made, and no password told."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.yaml").write_text("a: 1\n")
    with sqlite3.connect("plain.db") as plain:
        plain.execute("CREATE TABLE a (b)")
    plain.close()
    with pytest.raises(StoreError, match=said) as caught:
        aesearch.import_trials(storage)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain.db", "text.yaml"]


def test_the_command_writes_the_file(old, tmp_path, monkeypatch):
    """What was left out on stderr; a file that is there stays."""
    monkeypatch.chdir(tmp_path)
    words = ["import", "--from", str(old), "--study", "down", "--map", "lr=learning_rate"]
    (tmp_path / "s.yaml").write_text("space: {encoding_dim: {choices: [4, 8]}}\n")
    done = CliRunner().invoke(app, [*words, "--map", "momentum=", "--spec", "s.yaml"])
    assert done.exit_code == 0, done.output
    assert done.stderr.count("left out trial ") == 2
    assert done.stdout.count("\n- {") == 2
    out = [*words, "--map=momentum=", "--out", "k.yaml"]
    assert "k.yaml: 4 configurations of 'down'" in CliRunner().invoke(app, out).stdout
    for wrong, said in ((out, "k.yaml"), ([*words, "--map", "momentum"], "must be THEIRS=OURS")):
        refused = CliRunner().invoke(app, wrong)
        assert refused.exit_code == 2
        assert said in refused.stderr
