"""The commands on a real, small study: run, resume, interrupt, look, export, train, verify."""

import json
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import time
import weakref

import pytest
import yaml
from forked_command import PROGRAM, ForkedCommand, forked_command
from patience import PATIENCE_S
from typer.testing import CliRunner

import aesearch
from aesearch.api import found
from aesearch.artifacts import model_file
from aesearch.cli import app
from aesearch.driver import study_run
from aesearch.driver.study_run import Run
from aesearch.models.autoencoder import build_autoencoder
from aesearch.outputs import json_schema
from aesearch.studies.results.records import TrainedSeed
from aesearch.studies.store import study_rows

SMALL = [
    "run",
    "--epochs=2",
    "--architecture=dense",
    "--workers=1",
    "--set=data.limit=100",
    "--set=search.score_epochs=1",
    "--set=search.unstable_loss=1",
    "--pruner=none",
    "--set=retrain.max_epochs=3",
    "--set=retrain.seeds=2",
]
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("AESEARCH_")}


def command(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, in a folder."""
    return forked_command(*arguments, folder=folder, environment=ENVIRONMENT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run a small study to its end with --json: its folder, and what that said."""
    folder = tmp_path_factory.mktemp("study")
    done = command(folder, *SMALL, "--trials=3", "--json")
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def inside(finished, monkeypatch):
    """Go into that folder, to look at it from this process."""
    folder, _ = finished
    monkeypatch.chdir(folder)
    monkeypatch.delenv("AESEARCH_STORAGE", raising=False)
    return folder


def invoke(*arguments: str):
    return CliRunner().invoke(app, arguments)


def test_json_is_one_object_on_stdout_and_progress_is_on_stderr(finished):
    """A program can read stdout as it is; a person follows stderr."""
    folder, done = finished
    assert len(done.stdout.splitlines()) == 1
    found = json.loads(done.stdout)
    assert found["study"] == "digits"
    assert found["trials"]["complete"] == 3
    assert found["test_looks"] == 1
    assert all((folder / path).exists() for path in found["files"].values())
    assert "1/3 trial 0 complete" in done.stderr
    assert "seed 1 retrained" in done.stderr


def test_the_defaults_are_a_store_and_a_run_folder_here(finished):
    """``aesearch.db`` and ``runs/<study>`` in the current folder; no halves of files."""
    folder, _ = finished
    assert (folder / "aesearch.db").is_file()
    assert {path.name for path in (folder / "runs" / "digits").iterdir()} == {
        "artifacts",
        "best.yaml",
        "calibration.json",
        "evaluation.csv",
        "evaluation.json",
        "model.safetensors",
        "pictures",
        "report.html",
        "robustness.csv",
        "study.yaml",
        "trials.csv",
        "curves.csv",
        "worker-1.log",
    }


def test_the_same_command_again_says_that_it_is_finished(inside):
    """Nothing is trained or looked at again; --quiet leaves the result alone."""
    before = (inside / "runs/digits/best.yaml").read_bytes()
    done = invoke(*SMALL, "--trials=3", "--quiet")
    assert done.exit_code == 0
    assert done.stderr == ""
    assert "Test MSE per pixel" in done.stdout
    assert done.stdout.splitlines()[-1] == "Next: aesearch verify runs/digits/best.yaml"
    assert (inside / "runs/digits/best.yaml").read_bytes() == before
    assert (
        "study 'digits' is finished: all 3 trials are done" in invoke(*SMALL, "--trials=3").stderr
    )


def test_resuming_with_other_folds_is_refused(inside):
    """The key that differs is named, and the study stays as it was."""
    before = invoke("list", "--json").stdout
    done = invoke(*SMALL, "--trials=3", "--folds=4")
    assert done.exit_code == 2
    assert "search.folds: 3 -> 4" in done.stderr
    assert done.stdout == ""
    assert invoke("list", "--json").stdout == before


def test_list_and_show_tell_what_is_there(inside):
    """As a table and as JSON."""
    header, row = invoke("list").stdout.splitlines()
    assert header.split() == ["study", "dataset", "trials", "best", "state"]
    assert row.split()[:3] == ["digits", "digits", "3/3"]
    assert row.endswith("finished")
    shown = invoke("show", "digits")
    assert shown.stdout.startswith("Study digits on digits")
    assert "Best trials:" in shown.stdout
    facts = json.loads(invoke("show", "digits", "--json").stdout)
    values = [trial["value"] for trial in facts["best_trials"]]
    assert values == sorted(values)
    assert facts["winner"]["value"] == values[0]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("list", ["list"]),
        ("show", ["show", "digits"]),
        ("status", ["status"]),
        ("run", [*SMALL, "--trials=3", "--quiet"]),
        ("evaluate", ["evaluate", "./runs/digits"]),
        ("train", ["train", "runs/digits/best.yaml", "--out", "trained-again", "--force"]),
        ("verify", ["verify", "runs/digits/best.yaml", "--quiet"]),
    ],
)
def test_what_is_printed_as_json_is_what_its_schema_says(name, arguments, inside):
    """With the keys of the schema at the top, in its order; what a study has not is absent."""
    jsonschema = pytest.importorskip("jsonschema")
    done = invoke(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    printed, schema = json.loads(done.stdout), json_schema()
    jsonschema.validate({name: printed}, schema)
    top, of_command = printed, schema["properties"][name]
    if name == "list":
        top, of_command = printed[0], of_command["items"]
    reference = of_command.get("$ref") or of_command["anyOf"][0]["$ref"]
    definition = schema["$defs"][reference.removeprefix("#/$defs/")]
    absent = {"front", "noisy"}
    assert list(top) == [key for key in definition["properties"] if key not in absent]


def test_what_a_detached_study_prints_is_what_its_schema_says(tmp_path, monkeypatch):
    """One study, and a series of them."""
    jsonschema = pytest.importorskip("jsonschema")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AESEARCH_STORAGE", raising=False)
    (tmp_path / "two.yaml").write_text("name: two\nstudies: {a: {seed: 1}, b: {seed: 2}}\n")
    for start in ([], ["--spec", "two.yaml"]):
        done = invoke(*SMALL[:2], *SMALL[4:5], *start, "--detach", "--json")
        assert done.exit_code == 0, done.stderr
        jsonschema.validate({"run --detach": json.loads(done.stdout)}, json_schema())


def test_show_of_another_name_lists_the_names(inside):
    """A misspelt study is answered with those there are."""
    done = invoke("show", "digit")
    assert done.exit_code == 2
    assert "there: 'digits'" in done.stderr


@pytest.mark.parametrize(
    "name", ["best.yaml", "model.safetensors", "trials.csv", "curves.csv", "evaluation.json"]
)
def test_export_writes_the_same_bytes_again(name, inside):
    """The store alone is enough for the run folder."""
    assert invoke("export", "digits", "--out", "exported").exit_code == 0
    assert (inside / "exported" / name).read_bytes() == (inside / "runs/digits" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--seed", "1"), "seed: 0 -> 1"),
        (("--study", "other", "--out", "runs/digits"), "name: digits -> other"),
    ],
)
def test_the_model_of_another_study_is_never_replaced(inside, arguments, words):
    """Neither by a study of the same name in another store nor by one of another name."""
    before = {path: path.read_bytes() for path in (inside / "runs/digits").glob("*.*")}
    done = invoke(*SMALL, *arguments, "--storage", "another.db", "--quiet")
    assert done.exit_code == 2
    assert "out must hold nothing of another study, got 'runs/digits' with" in done.stderr
    assert words in done.stderr
    assert {path: path.read_bytes() for path in (inside / "runs/digits").glob("*.*")} == before
    assert not (inside / "another.db").exists()


def test_fewer_images_than_the_folders_study_has_folds_are_a_difference(
    finished, tmp_path, monkeypatch
):
    """The model in the folder was never meant for the few images of today."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    best = tmp_path / "runs/digits/best.yaml"
    text = best.read_text()
    best.write_text(text.replace("folds: 3\n", "folds: 50\n"))
    assert best.read_text() != text
    done = invoke(*SMALL, "--set=data.limit=20", "--quiet")
    assert done.exit_code == 2
    assert "out must hold nothing of another study" in done.stderr
    assert "data.limit: 100 -> 20" in done.stderr


def test_a_folder_with_the_name_of_a_data_set_is_told_of(tmp_path, monkeypatch):
    """The data set wins; who meant the folder learns how to say so."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    for dataset, told in (("digits", True), ("Digits", False)):
        done = invoke("run", "--detach", "--dataset", dataset, "--study", dataset)
        assert done.exit_code == 0, done.stderr
        assert ("give --dataset ./digits" in done.stderr) == told


def test_what_another_device_chose_is_no_other_study(finished, tmp_path):
    """A study that was begun on a GPU, say, has other generations."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    best = tmp_path / "runs/digits/best.yaml"
    text = best.read_text()
    assert "lookahead: 2\n" in text
    best.write_text(text.replace("lookahead: 2\n", "lookahead: 7\n"))
    done = command(tmp_path, *SMALL, "--trials=3", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "lookahead: 2\n" in best.read_text()


def test_what_goes_by_the_number_of_trials_is_no_other_study(finished, tmp_path, monkeypatch):
    """Beyond 500 trials another sampler is automatic; this study keeps the one that it has."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    done = invoke(*SMALL, "--trials=501", "--timeout=0.001", "--quiet")
    assert done.exit_code == 0, done.stderr
    assert "sampler: gp" in (tmp_path / "copy/runs/digits/best.yaml").read_text()


@pytest.mark.parametrize("dataset", ["photos/", "faces.npz"])
@pytest.mark.parametrize("name", ["train", "verify"])
def test_images_that_are_not_where_the_run_had_them(finished, tmp_path, monkeypatch, name, dataset):
    """A path of the folder that the run was started in, read in another: the option is named."""
    monkeypatch.chdir(tmp_path)
    text = (finished[0] / "runs/digits/best.yaml").read_text()
    (tmp_path / "best.yaml").write_text(
        text.replace("dataset: digits\n", f"dataset: {dataset}\n", 1)
    )
    done = invoke(name, "best.yaml")
    assert done.exit_code == 2
    assert "'best.yaml' names its images as the run did" in done.stderr
    assert "with --dataset" in done.stderr


def test_what_was_made_of_another_model_goes_with_it(finished, tmp_path, monkeypatch):
    """Exports and figures of a model do not stand beside the next winner's."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished[0], tmp_path / "copy")
    folder, storage = tmp_path / "copy/runs/digits", tmp_path / "copy/aesearch.db"
    (folder / "encoder.onnx").write_bytes(b"of the model that is here")
    (folder / "pictures/corruption-old.png").write_bytes(b"likewise")
    (folder / "pictures/reconstructions-old.png").write_bytes(b"likewise")
    (folder / "pictures/holiday.png").write_bytes(b"somebody's own")
    export = ("export", "digits", "--storage", str(storage), "--out", str(folder))
    assert invoke(*export).exit_code == 0
    assert (folder / "encoder.onnx").exists(), "it is of this model"
    another = build_autoencoder(architecture="dense", image_shape=(1, 8, 8), encoding_dim=2)
    (folder / "model.safetensors").write_bytes(model_file.to_bytes(another))
    assert invoke(*export).exit_code == 0
    assert not (folder / "encoder.onnx").exists()
    assert not (folder / "pictures/corruption-old.png").exists()
    assert not (folder / "pictures/reconstructions-old.png").exists()
    assert (folder / "pictures/holiday.png").exists()
    assert (folder / "evaluation.json").exists()


def test_a_model_of_somebody_else_is_never_replaced(inside):
    """The name is a common one, and a folder without best.yaml is no run folder."""
    mine = inside / "mine"
    mine.mkdir()
    (mine / "model.safetensors").write_bytes(b"of another library")
    for arguments in (("export", "digits", "--out", "mine"), (*SMALL, "--out", "mine", "--quiet")):
        done = invoke(*arguments)
        assert done.exit_code == 2
        assert "out must hold no model that aesearch did not write" in done.stderr
    assert [path.name for path in mine.iterdir()] == ["model.safetensors"]
    assert (mine / "model.safetensors").read_bytes() == b"of another library"


def test_an_interrupted_measurement_costs_no_model(inside, monkeypatch):
    """What took hours is whole before it is measured; what is there of another goes first."""
    again = inside / "again"
    shutil.copytree(inside / "runs/digits", again)
    (again / "model.onnx").write_bytes(b"of the former model")

    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("aesearch.retraining.measured", interrupted)
    done = invoke("train", "runs/digits/best.yaml", "--out", "again", "--force", "--quiet")
    assert done.exit_code == 130
    assert "the model is written: again/model.safetensors" in done.stderr
    assert yaml.safe_load((again / "best.yaml").read_text())["result"]["test"]["mse"] > 0
    assert not (again / "model.onnx").exists()
    assert not (again / "evaluation.json").exists()


def test_a_best_yaml_is_a_specification_to_search_from(inside):
    """What it reached is left out; the winner is the first trial."""
    done = invoke("run", "--spec", "runs/digits/best.yaml", "--print-config")
    assert done.exit_code == 0, done.stderr
    assert "result" not in yaml.safe_load(done.stdout)


def test_a_study_that_is_looked_at_with_fewer_trials_keeps_its_number(finished, tmp_path):
    """The same command without --trials must not make its own command another study's."""
    shutil.copytree(finished[0], tmp_path / "copy")
    done = command(tmp_path / "copy", *SMALL, "--trials=1", "--quiet")
    assert done.returncode == 0, done.stderr
    best = yaml.safe_load((tmp_path / "copy/runs/digits/best.yaml").read_text())
    assert best["search"]["trials"] == best["result"]["n_trials"] == 3
    study = yaml.safe_load((tmp_path / "copy/runs/digits/study.yaml").read_text())
    assert study["search"]["trials"] == 3


def test_what_is_left_out_of_a_grid_is_said(tmp_path, monkeypatch):
    """Fewer trials than configurations always lose the same end."""
    monkeypatch.chdir(tmp_path)
    grid = ("--sampler=grid", "--set=space.defaults=false", "--detach", "--dataset=digits")
    grid += ("--set=space.architecture.choices=[dense, conv]",)
    grid += ("--set=space.encoding_dim.choices=[4, 8]",)
    done = invoke("run", *grid, "--trials=2", "--data-dir=data")
    assert done.exit_code == 0, done.stderr
    engine = study_rows.open_store(str(tmp_path / "aesearch.db"))
    spec = study_rows.stored_spec(study_rows.find_study(engine, "digits"))
    engine.dispose()
    assert spec.data.data_dir == str(tmp_path / "data"), "workers may be started elsewhere"
    said = done.stderr
    assert "the grid has 4 configurations, of which 2 are tried" in said
    assert "never tried: architecture conv; all of them with 4 trials" in said
    done = invoke("run", *grid, "--trials=4", "--study=whole")
    assert "the grid has" not in done.stderr


def test_train_gives_the_same_weights_from_the_file_alone(inside):
    """Bit for bit the model of the study; only the number of looks differs."""
    done = invoke("train", "runs/digits/best.yaml", "--json")
    assert done.exit_code == 0, done.stderr
    assert "seed 1: best epoch" in done.stderr
    files = json.loads(done.stdout)["files"]
    original, again = inside / "runs/digits", inside / "runs/digits-retrained"
    assert files["best"] == "runs/digits-retrained/best.yaml"
    model = (again / "model.safetensors").read_bytes()
    assert model == (original / "model.safetensors").read_bytes()
    before = yaml.safe_load((original / "best.yaml").read_text())
    after = yaml.safe_load((again / "best.yaml").read_text())
    assert after["result"]["test"].pop("looks") == before["result"]["test"].pop("looks") + 1
    assert after == before


def test_train_never_replaces_what_it_read(inside):
    """The folder of the best.yaml itself is refused as output."""
    done = invoke("train", "runs/digits/best.yaml", "--out", "runs/../runs/digits")
    assert done.exit_code == 2
    assert "out must be another folder" in done.stderr


def test_train_never_replaces_another_model(inside):
    """Neither that of a study nor one that it wrote itself; it says so before it trains."""
    shutil.copytree(inside / "runs/digits", inside / "other")
    before = {path.name: path.read_bytes() for path in (inside / "other").glob("*.*")}
    done = invoke("train", "runs/digits/best.yaml", "--out", "other")
    assert done.exit_code == 2
    assert "out must hold no model yet, got 'other' with best.yaml and model.saf" in done.stderr
    assert {path.name: path.read_bytes() for path in (inside / "other").glob("*.*")} == before
    forced = invoke("train", "runs/digits", "--out", "other", "--force", "--quiet")
    assert forced.exit_code == 0, forced.stderr
    assert "looks: 2" in (inside / "other/best.yaml").read_text()


def test_a_failed_evaluation_costs_no_retrained_model(inside, monkeypatch):
    """The model and its best.yaml are written, and it is said that nothing was measured."""

    def fail(*_arguments, **_options):
        raise RuntimeError("no memory")

    monkeypatch.setattr("aesearch.retraining.measured", fail)
    done = invoke("train", "runs/digits/best.yaml", "--out", "unmeasured", "--quiet")
    assert done.exit_code == 0, done.stderr
    assert "could not be evaluated: no memory" in done.stderr
    folder = inside / "unmeasured"
    assert sorted(path.name for path in folder.iterdir()) == ["best.yaml", "model.safetensors"]


@pytest.mark.parametrize("what", ["runs/digits/best.yaml", "runs/digits"])
def test_verify_says_identical(inside, what):
    """On the machine that made it, the weights come out the same."""
    done = invoke("verify", what, "--quiet")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("identical: same weights, test MSE 0.")
    assert done.stderr == ""


def test_verify_says_that_a_number_differs(inside, monkeypatch):
    """Exit 1, one JSON object with both numbers, and the version that is not the recorded one."""
    document = yaml.safe_load((inside / "runs/digits/best.yaml").read_text())
    document["result"]["versions"]["torch"] = "1.0"
    (inside / "other.yaml").write_text(yaml.safe_dump(document))
    recorded = document["result"]["test"]
    worse = TrainedSeed(
        recorded["seed_index"], 1, 3, 3, 0.1, "00", 2 * recorded["mse"], weights=b""
    )
    monkeypatch.setattr("aesearch.retraining.train_seeds", lambda *_, **__: [worse])
    done = invoke("verify", "other.yaml", "--json", "--quiet")
    assert done.exit_code == 1
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["verdict"] == "differs"
    assert found["relative_difference"] == pytest.approx(1.0)
    assert found["versions"]["torch"][0] == "1.0"


def test_other_images_are_not_trained_on(inside):
    """A best.yaml of one data set refuses another, by name."""
    document = yaml.safe_load((inside / "runs/digits/best.yaml").read_text())
    document["data"]["limit"] = 90
    (inside / "limited.yaml").write_text(yaml.safe_dump(document))
    done = invoke("verify", "limited.yaml")
    assert done.exit_code == 2
    assert "split must be those of limited.yaml" in done.stderr


def wait_for(process: subprocess.Popen, path, word: str) -> None:
    """Wait until a file holds a word."""
    deadline = time.monotonic() + PATIENCE_S
    while word not in (path.read_text() if path.exists() else ""):
        assert process.poll() is None, path.read_text()
        assert time.monotonic() < deadline, f"{word!r} never came"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_an_interrupted_run_keeps_what_is_finished_and_says_how_to_go_on(number, code, tmp_path):
    """Exit 130 or 143, the same command quoted for a shell, and no lease left behind."""
    arguments = [*SMALL, "--trials=500", "--epochs=30", "--out=my results"]
    said = tmp_path / "stderr"
    with said.open("w") as stream:
        process = ForkedCommand(
            [*PROGRAM, *arguments],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )
        try:
            wait_for(process, tmp_path / "my results" / "worker-1.log", "search 0: attempt")
            process.send_signal(number)
            stdout, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == code
    assert stdout == ""
    resume = f"To go on: {shlex.join(['aesearch', *arguments])}"
    assert said.read_text().splitlines()[-1].endswith(resume)
    rows = json.loads(invoke("list", "--storage", str(tmp_path / "aesearch.db"), "--json").stdout)
    assert [row["state"] for row in rows] == ["unfinished"]


def test_a_signal_that_python_drops_ends_a_run_too(tmp_path, monkeypatch):
    """It comes in the callback of a weak reference, at the first look at the study."""

    class Thing:
        pass

    things = [Thing()]
    reference = weakref.ref(things[0], lambda _: os.kill(os.getpid(), signal.SIGTERM))

    def look(*arguments):
        things.clear()
        return snapshot(*arguments)

    snapshot = study_rows.snapshot
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study_run.study_rows, "snapshot", look)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    assert invoke(*SMALL, "--trials=3").exit_code == 143
    assert reference() is None


def test_a_worker_on_a_finished_study_ends_at_once(finished):
    """There is nothing to do, and that is no error."""
    done = command(finished[0], "worker", "--study", "digits", "--exit-when-idle")
    assert done.returncode == 0, done.stderr


def test_a_worker_says_why_it_cannot_work_in_its_last_line(inside):
    """The run that started it reads that line."""
    done = invoke("worker", "--study", "nothing")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("error: study must be one of the studies")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_that_is_not_utf_8_shows_what_it_can(finished, encoding):
    """What it cannot show is escaped, and the command succeeds.

    Click takes ASCII for a locale that nobody has set, and writes UTF-8.
    """
    environment = ENVIRONMENT | {"PYTHONIOENCODING": encoding}
    for arguments in (["show", "digits"], ["list"], ["status"], ["--help"]):
        done = subprocess.run(
            [*PROGRAM, *arguments],
            cwd=finished[0],
            env=environment,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode("utf-8" if encoding == "ascii" else encoding)


def test_a_result_and_a_specification_are_pickled(finished):
    """For joblib and for processes: what comes out is what went in."""
    folder, _ = finished
    study = aesearch.open_study("digits", folder / "aesearch.db")
    assert pickle.loads(pickle.dumps(study.spec)) == study.spec
    run = Run(str(folder / "aesearch.db"), "digits", folder / "runs" / "digits", None)
    result = found(run)
    again = pickle.loads(pickle.dumps(result))
    assert (again.spec, again.summary) == (result.spec, result.summary)
    assert again.trials.equals(result.trials)
