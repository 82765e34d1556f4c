"""Every searched size of the code can be delivered: principal components beside it, and trained."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import yaml
from sklearn.decomposition import PCA
from typer.testing import CliRunner

import aesearch
from aesearch.cli import app
from aesearch.data.study_data import load_problem
from aesearch.evaluation import baseline
from aesearch.evaluation.baseline import principal_components_by_fold
from aesearch.studies.spec.load import load_spec
from aesearch.studies.store import study_rows


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """Search two sizes in epochs that are few; the store and the run folder."""
    folder = tmp_path_factory.mktemp("sizes")
    aesearch.search(
        trials=4,
        epochs=2,
        workers=1,
        quiet=True,
        storage=str(folder / "a.db"),
        out=folder / "run",
        study="pens",
        set=[
            "data.limit=120",
            (
                "space={defaults: false, encoding_dim: {choices: [4, 8]},"
                " learning_rate: {choices: [2e-3, 4e-3]}}"
            ),
            "search.sampler=grid",
            "search.pruner=none",
            "search.unstable_loss=1",
            "search.unstable_oscillation=1000",
            "retrain.max_epochs=2",
            "retrain.seeds=2",
        ],
    )
    return folder


def invoke(folder, *arguments):
    """Call the command line in this process."""
    storage = ("--storage", str(folder / "a.db"))
    return CliRunner().invoke(app, ["train", *arguments, *storage, "--quiet"])


def test_principal_components_are_those_of_scikit_learn():
    """Of the training part of each fold, on the images that it holds out."""
    overrides = ["space.encoding_dim.choices=[8,4]", "search.folds=4"]
    problem = load_problem(load_spec(overrides=overrides), device="cpu")
    flat = problem.images.reshape(len(problem.images), -1) / 255
    for row in principal_components_by_fold(problem):
        errors = []
        for fold in range(4):
            train, held_out = problem.fold_indices(fold)
            fitted = PCA(row["encoding_dim"]).fit(flat[train])
            again = fitted.inverse_transform(fitted.transform(flat[held_out])).clip(0, 1)
            errors.append(((again - flat[held_out]) ** 2).mean())
        assert row["mse"] == pytest.approx(np.mean(errors), rel=1e-5)
    fixed = load_spec(overrides=["space.encoding_dim=null", "model.encoding_dim=5"])
    found = principal_components_by_fold(load_problem(fixed, device="cpu"))
    assert [row["encoding_dim"] for row in found] == [5]
    ranged = load_spec(overrides=["space.encoding_dim={low: 2, high: 9}"])
    assert principal_components_by_fold(load_problem(ranged, device="cpu")) == []


def test_principal_components_copy_no_part_of_the_images(monkeypatch):
    """Of a mapped set it would be larger than all else; the numbers are those of the parts."""
    monkeypatch.setattr(baseline, "LARGEST_TRAINING", 1 << 16)
    overrides = ["space.encoding_dim.choices=[2,4]", "search.folds=2", "data.dataset=digits"]
    problem = load_problem(load_spec(overrides=overrides), device="cpu")
    many = np.tile(problem.images, (20, 1, 1, 1))
    folds = np.tile(problem.fold_of_sample, 20)
    problem = replace(problem, images=many, fold_of_sample=folds)
    parts = [problem.fold_indices(fold) for fold in range(2)]
    expected = [
        baseline.pca_baseline(
            many[train], many[held_out], encoding_dim=4, curve_dims=(2,), seed=problem.spec.seed
        )
        for train, held_out in parts
    ]
    tracemalloc.start()
    found = principal_components_by_fold(problem)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < many.nbytes / 2
    for number, row in enumerate(found):
        assert row["mse"] == sum(of_fold.curve[number].mse / 2 for of_fold in expected)


@pytest.mark.parametrize("size", [4, 8])
def test_the_best_of_a_size_is_trained_and_verified(studied, size, tmp_path):
    """Its best.yaml names the trial, and gives the same weights again."""
    done = invoke(studied, "pens", f"--encoding-dim={size}", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    document = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    engine = study_rows.open_store(str(studied / "a.db"))
    trials = study_rows.snapshot(engine, "pens").trials
    looks = study_rows.find_study(engine, "pens").test_looks
    engine.dispose()
    of_size = [trial for trial in trials if trial.params["encoding_dim"] == size]
    best = min(of_size, key=lambda trial: trial.value)
    assert document["result"]["trial"] == best.number
    assert document["result"]["cross_validation"]["per_fold"] == list(best.fold_scores)
    assert document["model"]["encoding_dim"] == size
    assert document["training"]["learning_rate"] == best.params["learning_rate"]
    assert document["result"]["test"]["looks"] == looks >= 2, "the store counts it"
    model = aesearch.load(tmp_path / "out")
    assert model.encoding_dim == size
    verified = CliRunner().invoke(
        app, ["verify", str(tmp_path / "out" / "best.yaml"), "--json", "--quiet"]
    )
    assert json.loads(verified.stdout)["verdict"] == "identical"


def test_the_winners_size_is_delivered_as_the_run_did(studied, tmp_path):
    """The same configuration and seeds: the same weights."""
    won = yaml.safe_load((studied / "run" / "best.yaml").read_text())
    size = won["model"]["encoding_dim"]
    done = invoke(studied, "pens", f"--encoding-dim={size}", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    again = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    assert again["result"]["retrained"] == won["result"]["retrained"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pens", "--encoding-dim=5"), "stable trial (4, 8), got 5"),
        (("pans", "--encoding-dim=4"), "'pans'"),
        (("pens", "--encoding-dim=0"), "--encoding-dim"),
    ],
)
def test_a_size_or_study_that_is_not_there_is_named(studied, arguments, words, tmp_path):
    done = invoke(studied, *arguments, "--out", str(tmp_path / "out"))
    assert done.exit_code == 2
    assert words in done.output
    assert not (tmp_path / "out").exists()
