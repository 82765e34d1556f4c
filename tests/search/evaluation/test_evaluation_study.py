"""A study is evaluated with its one look at the test set; again only by command, and counted."""

import json
import shutil
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner

from aesearch.artifacts import model_file
from aesearch.artifacts.run_folder import write_run_folder
from aesearch.cli import app
from aesearch.data.study_data import load_problem
from aesearch.driver.create import leave_study
from aesearch.evaluation.evaluate import evaluate
from aesearch.models.autoencoder import build_autoencoder
from aesearch.studies.results.evaluation import EvaluationSummary, Interval, PcaSummary
from aesearch.studies.results.evaluation_text import evaluation_lines
from aesearch.studies.results.summary import summary
from aesearch.studies.results.summary_text import summary_text
from aesearch.studies.spec.load import load_spec
from aesearch.studies.store import (
    evaluation_results,
    retrain_results,
    study_rows,
    tables,
    whole_studies,
)
from aesearch.studies.store.contents import read_contents
from aesearch.terminal.display import make_display
from aesearch.training.out_of_fold import calibrate
from aesearch.training.retrain_key import retrain_key
from aesearch.workers.worker import Worker

SMALL = ("search.trials=1", "retrain.max_epochs=2", "evaluation.bootstrap=30")


_built = []


@pytest.fixture
def tested(tmp_path, tmp_path_factory, tiny_spec, create_study, work):
    """A study that was searched, retrained and tested: its engine, in the file study.db."""
    if not _built:
        path = tmp_path_factory.mktemp("tested") / "study.db"
        engine = create_study(path, tiny_spec(*SMALL))
        work(engine)
        engine.dispose()
        _built.append(path)
    # A copy for each test: what one writes is not seen by the next.
    shutil.copy(_built[0], tmp_path / "study.db")
    engine = study_rows.open_store(str(tmp_path / "study.db"))
    yield engine
    engine.dispose()


def study_of(engine):
    return study_rows.find_study(engine, "digits")


def found_in(engine):
    return evaluation_results.read_evaluation(engine, study_of(engine))


def pictures_in(engine):
    return read_contents(engine, "digits", pictures=True).pictures


def invoke(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_the_test_leaves_an_evaluation_of_the_exported_seed(tested, tmp_path):
    """Stored with the test errors: what evaluating the exported model gives, and in the folder."""
    study = study_of(tested)
    document, rows = found_in(tested), retrain_results.retrained(tested, study)
    exported = min(rows, key=lambda row: (row.validation_loss, row.seed_index))
    assert document.seed_index == exported.seed_index
    # summed image by image, not batch by batch
    assert document.metrics.overall.mse.mean == pytest.approx(exported.test_mse)
    assert study.test_looks == 1
    problem = load_problem(study_rows.stored_spec(study), device="cpu")
    model = model_file.from_bytes(exported.weights)
    chosen = study_rows.snapshot(tested, "digits")
    configuration = problem.spec.configuration(chosen.trials[chosen.chosen].params)
    again = evaluate(
        model,
        problem,
        seed_index=exported.seed_index,
        calibration=calibrate(model, problem, configuration),
    )
    assert again.document == document
    assert sorted(again.pictures) == pictures_in(tested)
    assert document.n_test == 359
    assert [row.label for row in document.metrics.per_class] == list("0123456789")
    assert sum(row.n for row in document.metrics.per_class) == 359
    assert document.image_shape == [1, 8, 8]
    assert len(document.robustness) == 18
    assert document.omitted == []
    folder = tmp_path / "out"
    write_run_folder(tested, "digits", folder)
    read = json.loads((folder / "evaluation.json").read_text())
    assert read == document.without_errors().to_dict()
    calibration = model_file.load(folder).find_calibration()
    assert calibration.errors.tolist() == document.calibration.errors
    assert len(calibration.errors) == len(problem.images)
    assert calibration.source == "out-of-fold"
    metrics = pd.read_csv(folder / "evaluation.csv", dtype={"label": str})
    assert metrics["images"].tolist() == ["all", *["class"] * 10, "pca"]
    overall = document.metrics.overall.ssim
    assert metrics.loc[0, ["ssim", "ssim_low", "ssim_high"]].tolist() == pytest.approx(
        [overall.mean, overall.low, overall.high]
    )
    noise = pd.read_csv(folder / "robustness.csv")
    assert noise.to_dict("records") == [pytest.approx(row.to_dict()) for row in document.robustness]
    drawn = {path.stem: path.read_bytes() for path in (folder / "pictures").glob("*.png")}
    assert drawn == {picture.name: picture.png for picture in again.pictures}
    test = yaml.safe_load((folder / "best.yaml").read_text())["result"]["test"]
    assert test["psnr"] == document.metrics.overall.psnr.mean
    assert test["pca_mse"] == document.pca.mse


def test_the_same_study_gives_the_same_files(tested, tmp_path):
    """Exported twice, to the byte."""
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        write_run_folder(tested, "digits", folder)
    one, other = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in folders
    )
    assert {"evaluation.json", "robustness.csv", "samples.png"} <= {path.name for path in one}
    assert one == other


@pytest.mark.parametrize("error", [MemoryError, IndexError])
def test_a_failed_evaluation_costs_no_model(
    tmp_path, tiny_spec, create_study, work, monkeypatch, error
):
    """The test errors are written, the model is exported; the evaluation can be made up for."""

    def fail(*_arguments, **_options):
        raise error

    engine = create_study(tmp_path / "study.db", tiny_spec(*SMALL))
    with monkeypatch.context() as patched:
        patched.setattr("aesearch.evaluation.evaluate.evaluate", fail)
        work(engine)
    assert found_in(engine) is None
    write_run_folder(engine, "digits", tmp_path / "out")
    assert (tmp_path / "out" / "best.yaml").exists()
    assert not (tmp_path / "out" / "evaluation.json").exists()
    done = invoke("digits", "--storage", tmp_path / "study.db")
    assert done.exit_code == 0, done.stderr
    assert "look 2 at the test set" in done.stdout
    assert "is in the store now" in done.stdout
    assert found_in(engine)["n_test"] == 359
    engine.dispose()


def test_figures_beyond_all_numbers_cost_no_model(tmp_path, tiny_spec, create_study, work):
    """Noise of 1e20 is legal, its square in float32 is infinite, and JSON has no such number."""
    engine = create_study(
        tmp_path / "study.db", tiny_spec(*SMALL, "evaluation.robustness.gaussian=[1.0e20]")
    )
    work(engine)
    assert found_in(engine) is None
    write_run_folder(engine, "digits", tmp_path / "out")
    assert (tmp_path / "out" / "best.yaml").exists()
    engine.dispose()


def test_a_stopped_evaluation_is_no_look(tmp_path, tiny_spec, create_study, work, monkeypatch):
    """A worker that must stop gives the test back; whoever takes it next looks once."""
    stop = threading.Event()

    def interrupted(*_arguments, check, **_options):
        stop.set()
        check()

    engine = create_study(tmp_path / "study.db", tiny_spec(*SMALL))
    with monkeypatch.context() as patched:
        patched.setattr("aesearch.evaluation.evaluate.evaluate", interrupted)
        Worker(engine, "digits", stop=stop).run()
    study = study_of(engine)
    assert [row.test_mse for row in retrain_results.retrained(engine, study)] == [None, None]
    assert study.test_looks == 0
    work(engine)
    assert study_of(engine).test_looks == 1
    assert found_in(engine) is not None
    engine.dispose()


def test_a_deleted_study_leaves_no_evaluation(tested):
    """SQLite gives the number of the study to the next one, which must not inherit."""
    whole_studies.delete_study(tested, "digits")
    with tested.connect() as connection:
        for table in (tables.evaluation, tables.picture):
            assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0


def test_what_was_evaluated_keeps_its_settings(tested, tmp_path, tiny_spec):
    """Another evaluation is another look at the test set: a run says how, and does not look."""
    said = []
    asked = tiny_spec(*SMALL, "evaluation.bootstrap=31", "evaluation.robustness.gaussian=[0.7]")
    with make_display(quiet=True) as display:
        display.message = said.append
        leave_study(asked, storage=str(tmp_path / "study.db"), display=display)
    (how,) = [text for text in said if "evaluate" in text]
    assert "'aesearch evaluate digits --save' with options of its own measures again" in how
    assert study_of(tested).spec["evaluation"]["bootstrap"] == 30
    assert found_in(tested).bootstrap == 30


def test_another_model_is_evaluated_as_it_was_asked_for(tested, tmp_path, tiny_spec, work):
    """What is retrained anew has no evaluation whose settings could be kept."""
    asked = tiny_spec(*SMALL, "evaluation.bootstrap=31", "retrain.max_epochs=3")
    with make_display(quiet=True) as display:
        leave_study(asked, storage=str(tmp_path / "study.db"), display=display)
    work(tested)
    assert found_in(tested).bootstrap == study_of(tested).spec["evaluation"]["bootstrap"] == 31


def test_the_command_measures_again_and_counts_it(tested, tmp_path):
    """Own levels, files, one more look; the store keeps the first unless told otherwise."""
    storage, out = tmp_path / "study.db", tmp_path / "out"
    before = found_in(tested)
    noise = ("--noise", "gaussian=0.5,1", "--noise", "salt_and_pepper=0.2")
    done = invoke("digits", "--storage", storage, *noise, "--out", out, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    plain = before.to_dict()
    kinds = [(row["corruption"], row["level"], row["clamped"]) for row in found["robustness"]]
    assert kinds == [
        ("gaussian", 0.5, True),
        ("gaussian", 0.5, False),
        ("gaussian", 1.0, True),
        ("gaussian", 1.0, False),
        ("salt-and-pepper", 0.2, True),
    ]
    old = {(row["corruption"], row["level"], row["clamped"]): row for row in plain["robustness"]}
    assert found["robustness"] == [old[kind] for kind in kinds]
    assert found["metrics"] == plain["metrics"]
    assert (found["test_looks"], found["saved"]) == (2, False)
    assert all(path in found["files"] for path in map(str, out.rglob("*.*")))
    assert study_of(tested).test_looks == 2
    assert found_in(tested) == before
    saved = json.loads(invoke("digits", "--storage", storage, *noise, "--save", "--json").stdout)
    assert (saved["test_looks"], saved["saved"]) == (3, True)
    assert found_in(tested).to_dict()["robustness"] == found["robustness"]
    names = {picture.name for picture in pictures_in(tested)}
    assert "corruption-occlusion" not in names


def test_the_command_reads_a_run_folder_too(tested, tmp_path, monkeypatch):
    """The folder, its best.yaml and its model mean the same; other images are refused."""
    write_run_folder(tested, "digits", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    document = found_in(tested).without_errors().to_dict()
    for what in ("./run", "run/", "run/best.yaml", "run/model.safetensors"):
        done = invoke(what, "--json")
        assert done.exit_code == 0, done.stderr
        found = json.loads(done.stdout)
        assert {key: found[key] for key in document} == document
        assert found["test_looks"] == 2
    images = np.random.default_rng(0).integers(0, 256, (90, 8, 8), dtype=np.uint8)
    np.savez("other.npz", images=images)
    done = invoke("./run", "--dataset", "other.npz")
    assert done.exit_code == 2
    assert "images must be those of run/best.yaml" in done.stderr


def test_the_tables_show_all_rows(tested, tmp_path):
    """Classes, the baseline, each corruption; nothing is cut off without a terminal."""
    done = invoke("digits", "--storage", tmp_path / "study.db")
    assert done.exit_code == 0, done.stderr
    for words in ("class 7", "all, by PCA of", "salt-and-pepper", "uniform, not clamped"):
        assert words in done.stdout
    assert "…" not in done.stdout
    assert "5 nearest training codes" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--noise", "gausian=1"], "noise must be of gaussian, uniform"),
        (["--noise", "gaussian"], "--noise must be KIND=LEVEL,LEVEL"),
        (["--noise", "gaussian=a"], "--noise must be KIND=LEVEL,LEVEL"),
        (["--noise", "occlusion=1.5"], "evaluation.robustness.occlusion.0: must be <= 1"),
        (["--bootstrap", "0"], "evaluation.bootstrap: must be >= 1, got 0"),
    ],
)
def test_wrong_options_are_named_and_are_no_look(tested, tmp_path, arguments, words):
    """Exit code 2, one message; the test set stays sealed."""
    done = invoke("digits", "--storage", tmp_path / "study.db", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert study_of(tested).test_looks == 1


def test_an_evaluation_that_is_there_is_not_written_over(tested, tmp_path):
    """Unless --force says so; refused before the test set is looked at."""
    storage, out = tmp_path / "study.db", tmp_path / "out"
    write_run_folder(tested, "digits", out)
    refused = invoke("digits", "--storage", storage, "--out", out)
    assert refused.exit_code == 2
    assert "out must hold no evaluation yet" in refused.stderr
    assert study_of(tested).test_looks == 1
    assert invoke("digits", "--storage", storage, "--out", out, "--force").exit_code == 0


def test_what_was_not_retrained_is_not_evaluated(tmp_path, tiny_spec, create_study):
    """A study in mid-search is told what to do."""
    create_study(tmp_path / "study.db", tiny_spec(*SMALL)).dispose()
    done = invoke("digits", "--storage", tmp_path / "study.db")
    assert done.exit_code == 1
    assert "must be retrained and tested before its model is used" in done.stderr


def test_a_file_that_is_no_model_of_a_run_is_refused(tmp_path):
    """It must lie beside its best.yaml."""
    (tmp_path / "model.safetensors").write_bytes(b"")
    done = invoke(tmp_path / "model.safetensors")
    assert done.exit_code == 2
    assert "must lie beside its best.yaml" in done.stderr


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_images_without_labels_are_evaluated(tmp_path, channels, architecture):
    """In grey and in colour, with a code of one number; what is left out is said."""
    images = np.random.default_rng(0).integers(0, 256, (60, 9, 12, channels), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", images=images)
    overrides = [f"data.dataset={tmp_path / 'noise.npz'}", "evaluation.bootstrap=10"]
    problem = load_problem(load_spec(overrides=overrides), device="cpu")
    model = build_autoencoder(
        architecture=architecture,
        image_shape=problem.image_shape,
        encoding_dim=1,
        hidden=(8,),
        channels=(2, 3, 4),
        conv_hidden=8,
    ).eval()
    document = evaluate(model, problem, seed_index=0).document
    assert document.omitted == [
        "per-class metrics: the data set has no labels",
        "silhouette and neighbour accuracy: the data set has no labels",
    ]
    assert document.metrics.per_class is None
    latent = document.latent
    assert (latent.labels, latent.class_names, latent.knn_accuracy) == (None, None, None)
    assert latent.explained_variance == [1.0, 0.0]
    assert document.n_live_units == 1
    assert document.pca.encoding_dim == 1


def test_settings_of_the_evaluation_change_no_retraining(tiny_spec):
    """The same weights serve: their name in the store does not depend on it."""
    one, other = (
        load_problem(tiny_spec(*more), device="cpu").spec
        for more in ((), ("evaluation.bootstrap=7", "evaluation.robustness.gaussian=[3]"))
    )
    assert one != other
    keys = {retrain_key(spec, spec.configuration({})) for spec in (one, other)}
    assert len(keys) == 1


def test_the_summary_tells_the_main_numbers(tested):
    """With intervals, and against PCA; a study without an evaluation says nothing of it."""
    snapshot = study_rows.snapshot(tested, "digits")
    document = found_in(tested)
    found = summary(snapshot, document)
    assert found.evaluation == document.summary(snapshot.spec.training)
    assert found.evaluation.denoised is None
    text = summary_text(found)
    mse = document.metrics.overall.mse
    assert f"MSE {mse.mean:#.4g} [{mse.low:#.4g}, {mse.high:#.4g}], PSNR" in text
    assert "PCA of the same dimension" in text
    assert "not evaluated further" not in text
    assert summary(snapshot).evaluation is None
    assert "bootstrap" not in summary_text(summary(snapshot))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "(16): MSE 0.02000, PSNR 17.00 dB, SSIM 0.500; the model's MSE is 50% lower"),
        ({"pca": {"mse": 0.005}}, "the model's MSE is 100% higher"),
        ({"pca": {"mse": 0.01000001}}, "SSIM 0.500; the model's MSE is the same"),
        ({"pca": {"mse": 0.01004}}, "SSIM 0.500; the model's MSE is 0.4% lower"),
        ({"pca": {"mse": 1e-16}}, "the model's MSE is higher: they reconstruct the images exactly"),
        ({"pca": {"mse": 0.0}}, "MSE 0.000, PSNR 17.00 dB, SSIM 0.500"),
        ({"pca": {"encoding_dim": 9}}, "PCA of dimension (9)"),
        ({"n_live_units": 5}, "encoding dimension 16, 5 of 16 units in use"),
        ({"ssim": None}, "dB, binary accuracy 0.0100"),
    ],
)
def test_the_comparison_is_in_plain_words(changes, words):
    """Lower, higher, no division by a perfect baseline; what is missing is left out."""
    metric = Interval(0.01, 0.009, 0.011)
    pca = PcaSummary(16, 0.02, 17.0, 0.9, 0.5)
    found = EvaluationSummary(0, 9, 16, 16, metric, metric, metric, metric, pca, None)
    changed = {"pca": replace(pca, **changes.pop("pca"))} if "pca" in changes else {}
    found = replace(found, **changes, **changed)
    assert words in "\n".join(evaluation_lines(found))
