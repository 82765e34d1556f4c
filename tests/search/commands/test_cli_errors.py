"""Bad input on the command line: one message that names it, exit 2, nothing made."""

import re
import sqlite3

import pytest
from typer.testing import CliRunner

from aesearch import __version__
from aesearch.cli import app


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Go to an empty folder, without an AESEARCH_STORAGE of the caller's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AESEARCH_STORAGE", raising=False)
    return tmp_path


def invoke(*arguments: str):
    return CliRunner().invoke(app, arguments)


BAD = {
    "unknown preset": (["run", "mnits"], "got 'mnits'; did you mean 'mnist'?"),
    "a file as preset": (["run", "a/study.yaml"], "a file is given with --spec a/study.yaml"),
    "a data set as preset": (["run", "cifar10"], "a data set is given with --dataset"),
    "a folder as preset": (["run", "photos/"], "images are given with --dataset photos/"),
    "a folder here as preset": (["run", "minst"], "images are given with --dataset minst"),
    "a path as preset": (["run", "../faces.npy"], "images are given with --dataset ../faces.npy"),
    "images as preset": (["run", "faces.CSV.gz"], "images are given with --dataset faces.CSV.gz"),
    "an image as preset": (["run", "face.png"], "images are given with --dataset face.png"),
    "a file here as preset": (["run", "Study.YML"], "a file is given with --spec Study.YML"),
    "a long preset": (["run", "x" * 5000], "a data set is given with --dataset"),
    "preset and spec": (["run", "mnist", "--spec", "a.yaml"], "'mnist' and 'a.yaml'"),
    "no such spec": (["run", "--spec", "no.yaml"], "no.yaml is invalid"),
    "typo in --set": (
        ["run", "--set", "training.lerning_rate=1"],
        "training.lerning_rate: unknown key; did you mean 'learning_rate'?",
    ),
    "no value in --set": (["run", "--set", "seed"], "must be KEY=VALUE"),
    "one fold": (["run", "--folds", "1"], "search.folds: must be >= 2, got 1"),
    "unknown sampler": (["run", "--sampler", "magic"], "search.sampler: must be"),
    "unknown architecture": (["run", "--architecture", "rnn"], "model.architecture: must be"),
    "workers": (["run", "--workers", "0"], "workers must be >= 1, got 0"),
    "missing data": (["run", "--dataset", "./no.npz"], "no.npz must exist"),
    "unknown data set": (["run", "--dataset", "mnits"], "did you mean 'mnist'?"),
    "bad data": (["run", "--dataset", "bad.npz"], "bad.npz must be a complete NumPy archive"),
    "storage in no folder": (
        ["run", "--storage", "no/where.db"],
        "storage must lie in an existing folder",
    ),
    "storage of another kind": (["run", "--storage", "mysql://me:secret@host/x"], "***"),
    "out is a file": (["run", "--out", "bad.npz"], "out must be a folder"),
    "list without a store": (["list"], "'aesearch.db': no such file"),
    "show without a store": (["show", "x", "--storage", "my.db"], "'my.db': no such file"),
    "export without a store": (["export", "x"], "'aesearch.db': no such file"),
    "worker without a store": (["worker", "--study", "x"], "'aesearch.db': no such file"),
    "worker of another kind": (["worker", "--study", "x", "--only", "tests"], "only must be"),
    "store of another program": (["list", "--storage", "other.db"], "must hold studies"),
    "store is no database": (["list", "--storage", "bad.npz"], "not an SQLite file"),
    "train nothing": (["train", "no.yaml"], "no.yaml is invalid"),
    "verify a spec": (["verify", "spec.yaml"], "result: must say what was reached"),
    "verify json": (["verify", "spec.yaml", "--json"], "result: must say what was reached"),
    "fetch an unknown set": (["data", "fetch", "mnits"], "did you mean 'mnist'?"),
    "an unknown preset": (["presets", "mnits"], "got 'mnits'"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named_and_nothing_is_made(arguments, message, here):
    """Exit 2, the message on stderr and nowhere else, and no file more or less than before."""
    (here / "bad.npz").write_text("these are no images, and no database either")
    (here / "spec.yaml").write_text("seed: 1\n")
    (here / "minst").mkdir()
    connection = sqlite3.connect(here / "other.db")
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    before = sorted(path.name for path in here.iterdir())
    done = invoke(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert re.match(r"(read .+\n)?error: ", done.stderr)
    assert "Traceback" not in done.stderr
    assert "secret" not in done.output
    assert done.stdout == ""
    assert sorted(path.name for path in here.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "Did you mean 'run'"),
        (["run", "--fold", "3"], "--folds"),
        (["run", "--folds", "many"], "valid integer"),
        (["verify", "x", "--tolerance", "-1"], "--tolerance"),
    ],
)
def test_misspelt_usage_gets_a_suggestion(arguments, message, here):
    """Commands and options that do not exist name their neighbours, exit 2."""
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_bug_ends_in_one_line(here, monkeypatch):
    """An exception that nobody meant shows no traceback unless asked to."""
    monkeypatch.setattr("aesearch.api.study_spec", lambda *_, **__: 1 / 0)
    done = invoke("run")
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "error: ZeroDivisionError: division by zero; run again with --debug for the traceback"
    ]


def test_debug_shows_the_traceback(here):
    """--debug adds where an error came from; the message stays the last line."""
    done = invoke("run", "--folds", "1", "--debug")
    assert done.exit_code == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "  - search.folds: must be >= 2, got 1"


def test_print_config_resolves_and_makes_nothing(here):
    """No auto is left but how images are read and trials scored; it is accepted back."""
    done = invoke("run", "--folds", "4", "--set", "data.limit=100", "--print-config")
    assert done.exit_code == 0
    assert "folds: 4" in done.stdout
    automatic = {line.strip() for line in done.stdout.splitlines() if "auto" in line}
    assert automatic == {"colour: auto", "delimiter: auto", "epochs: auto"}
    assert list(here.iterdir()) == []
    (here / "again.yaml").write_text(done.stdout)
    assert invoke("run", "--spec", "again.yaml", "--print-config").stdout == done.stdout


@pytest.mark.parametrize("where", [["--detach"], ["--ray", "auto"]])
def test_print_config_of_what_trains_elsewhere_needs_no_device_here(here, where, monkeypatch):
    """The device that is asked for, as the study would have it."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = invoke("run", "--device", "cuda", *where, "--print-config")
    assert done.exit_code == 0, done.stderr
    assert "device: cuda" in done.stdout
    assert invoke("run", "--device", "cuda", "--print-config").exit_code == 2


def test_the_small_version_of_a_long_name_has_a_shorter_one(here):
    """As long as a name may be."""
    done = invoke("run", "--study", "x" * 200, "--quick", "--print-config")
    assert done.exit_code == 0, done.stderr
    assert f"name: {'x' * 194}-quick\n" in done.stdout


def test_print_config_downloads_nothing(here):
    """Without the images, what depends on them stays auto, and stderr says so."""
    done = invoke("run", "mnist", "--data-dir", "nothing", "--print-config")
    assert done.exit_code == 0
    assert "batch_size: auto" in done.stdout
    assert "which are not here" in done.stderr
    assert list(here.iterdir()) == []


def test_print_config_of_images_that_are_nowhere_is_refused(here):
    """A data set by name may come later; a path that is not there is a mistake."""
    done = invoke("run", "--dataset", "nothing.npz", "--print-config")
    assert done.exit_code == 2
    assert "nothing.npz must exist" in done.stderr
    assert not done.stdout


def test_presets_lists_and_shows(here):
    """Every preset has a line; one alone is its YAML."""
    assert "fashion-mnist" in invoke("presets").stdout
    assert "dataset: fashion-mnist" in invoke("presets", "fashion-mnist").stdout
    wrong = invoke("presets", "mnst")
    assert wrong.exit_code == 2
    assert "did you mean 'mnist'?" in wrong.stderr
    assert invoke("presets", "mnist", "--schema").exit_code == 2


def test_a_level_without_a_corruption_is_refused(here):
    """It would train no denoiser; in a file it may stand, since a best.yaml holds everything."""
    done = invoke("run", "--corruption-level", "0.5")
    assert done.exit_code == 2
    assert "--corruption-level must be given with a corruption" in done.stderr
    assert list(here.iterdir()) == []
    level = ("--set", "training.corruption_level=0.5", "--print-config")
    assert invoke("run", *level).exit_code == 0


@pytest.mark.parametrize(
    "told",
    [
        ("space.hidden.choices=['64']", "model.architecture=conv", "space.architecture=null"),
        ("space.dropout.when.architecture=[dense]", "space.architecture.choices=[conv]"),
    ],
)
def test_a_dimension_that_no_trial_has_is_refused(here, told):
    """Who types it means it; a preset's own goes with the architecture that it is for."""
    sets = [word for each in told for word in ("--set", each)]
    done = invoke("run", *sets)
    assert done.exit_code == 2
    assert f"--set {'.'.join(told[0].split('.')[:2])} must be of something" in done.stderr
    assert "conv networks" in done.stderr
    assert list(here.iterdir()) == []
    both = ("--set", "space.architecture.choices=[dense, conv]", "--print-config")
    assert invoke("run", *sets, *both).exit_code == 0


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            ["model.encoding_dim=100"],
            (
                "--set model.encoding_dim must be one of 4, 8, 16, 32, over which it is searched, "
                "got 100; fix it with --encoding-dim 100 instead"
            ),
        ),
        (["training.learning_rate = 0.1"], "learning_rate must be from 0.001 to 0.008, over which"),
        (["training . weight_decay=0"], "training.weight_decay must be from 0.03 to 1.0"),
        (
            ["training.weight_decay=0", "training.optimizer=adam"],
            "training.weight_decay must be from 1e-07 to 0.001",
        ),
        (["model.dropout=0.9"], "--set model.dropout must be from 0.0 to 0.1"),
        (
            ["model.dropout=0.15", "space.dropout={low: 0, high: 0.5, step: 0.1}"],
            "must be from 0.0 to 0.5 in steps of 0.1, over which it is searched, got 0.15",
        ),
        (
            ["model.dense.hidden=[64, 9]", "space.hidden.choices=[none, 256-128]"],
            "must be one of none, 256-128, over which it is searched, got '64-9'; fix it with",
        ),
        (
            ["model.code_activation=relu", "space.code_activation.choices=[linear]"],
            "--set model.code_activation must be one of linear",
        ),
        (
            [
                "training.corruption=gaussian",
                "training.corruption_level=2",
                "space.corruption_level.choices=[0.1, 0.5]",
            ],
            "--set training.corruption_level must be one of 0.1, 0.5",
        ),
    ],
)
def test_a_setting_that_no_trial_has_is_refused(here, told, words):
    """Who types it means it; both remedies that are told are some."""
    command = ["run", "--print-config", *(word for each in told for word in ("--set", each))]
    done = invoke(*command)
    assert done.exit_code == 2
    assert words in done.stderr
    assert list(here.iterdir()) == []
    remedy = done.stderr.partition("fix it with ")[2].partition(" beside this")[0].split()
    if remedy[-1] == "instead":
        assert invoke("run", "--print-config", *remedy[:-1]).exit_code == 0
        return
    assert invoke(*command, *remedy).exit_code == 0
    remedy = done.stderr.partition("search over it with ")[2].split()
    assert invoke(*command, *remedy).exit_code == 0


def test_an_architecture_that_no_trial_has_is_refused(here):
    """Its remedy is the flag that takes it out of the space."""
    (here / "dense.yaml").write_text("space: {architecture: {choices: [dense]}}")
    command = ("run", "--spec", "dense.yaml", "--print-config")
    done = invoke(*command, "--set", "model.architecture=conv")
    assert done.exit_code == 2
    assert done.stderr.endswith(
        "--set model.architecture must be one of dense, over which it is searched, got 'conv'; "
        "fix it with --architecture conv instead\n"
    )
    assert invoke(*command, "--architecture", "conv").exit_code == 0


@pytest.mark.parametrize(
    "told",
    [
        ["model.encoding_dim=32"],
        ["training.learning_rate=0.008"],
        ["model.architecture=conv"],
        ["model.architecture=conv", "space.architecture.choices=[dense, conv]"],
        ["model.encoding_dim=100", "model.encoding_dim=8"],
        ["model.dropout=0.9", "space.dropout.when.architecture=[conv]"],
        ["model.dense.hidden=[64]"],
        ["model.dense.hidden=auto", "space.hidden.choices=[none, 256-128]"],
        ["model.conv.hidden=3"],
    ],
)
def test_a_setting_that_some_trial_has_is_accepted(here, told):
    """The first trial, or all trials of an architecture that the dimension is not for."""
    sets = [word for each in told for word in ("--set", each)]
    done = invoke("run", *sets, "--print-config")
    assert done.exit_code == 0, done.stderr


def test_a_setting_of_a_series_is_refused_where_no_study_has_it(here):
    """An override holds for every study: one that has it is enough."""
    (here / "series.yaml").write_text(
        "space: {architecture: null, hidden: null}\n"
        "studies:\n  few: {space: {encoding_dim: {choices: [2, 4]}}}\n"
        "  many: {space: {encoding_dim: {choices: [40, 50]}}}\n"
        "  one: {space: {encoding_dim: {choices: [9]}}}\n"
    )
    command = ("run", "--spec", "series.yaml", "--print-config", "--set")
    assert invoke(*command, "model.encoding_dim=9").exit_code == 0
    refused = invoke(*command, "model.encoding_dim=3")
    assert refused.exit_code == 2
    assert "model.encoding_dim must be one of 2, 4, over which it is searched" in refused.stderr


def test_a_store_that_is_away_leaves_no_folder(here):
    """A run that cannot begin leaves nothing, not even the folders above its own."""
    away = "postgresql+psycopg://me@127.0.0.1:1/studies?connect_timeout=2"
    done = invoke("run", "--storage", away, "--trials", "1")
    assert done.exit_code == 2
    assert list(here.iterdir()) == []


def test_fetching_what_is_installed_says_so(here):
    """The digits come with scikit-learn."""
    done = invoke("data", "fetch", "digits", "--data-dir", str(here))
    assert done.exit_code == 0
    assert "nothing to fetch" in done.stdout


def test_version(here):
    """``--version`` is the package's."""
    assert invoke("--version").stdout.strip() == f"aesearch {__version__}"
