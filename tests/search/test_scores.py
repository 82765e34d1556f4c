"""Which images are odd: errors, p-values with the share of false alarms that they promise."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import aesearch
from aesearch.cli import app
from aesearch.inference.scores import p_values
from aesearch.models.autoencoder import build_autoencoder
from aesearch.studies.errors import DataError

RNG = np.random.default_rng(0)
SMALL = (
    *("--trials", "1", "--folds", "2", "--epochs", "2", "--device", "cpu", "--workers", "1"),
    *("--architecture", "dense", "--set", "model.dense.hidden=8", "--set", "space.hidden=null"),
    *("--set", "retrain.seeds=1", "--set", "retrain.max_epochs=2", "--set", "search.pruner=none"),
    *("--set", "evaluation.bootstrap=10", "--set", "space.encoding_dim.choices=[2]"),
)


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_p_values_are_those_of_a_count():
    """``(1 + #{c >= e}) / (n + 1)``, counted one by one; equal errors count."""
    calibration = np.array([3.0, 1.0, 2.0, 2.0])
    errors = np.array([0.5, 1.0, 2.0, 2.5, 3.0, 9.0])
    expected = [(1 + sum(calibration >= error)) / 5 for error in errors]
    np.testing.assert_array_equal(p_values(errors, calibration), expected)


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_ordinary_images_raise_as_many_false_alarms_as_is_said(alpha):
    """Over many calibrations of 999 errors: alpha itself."""
    rng = np.random.default_rng(1)
    alarms = [
        p_values(rng.exponential(size=200), rng.exponential(size=999)) <= alpha for _ in range(300)
    ]
    # 60,000 images, alike within a calibration: their share has a standard error of 2% of 5%.
    assert np.mean(alarms) == pytest.approx(alpha, rel=0.1)


def test_errors_are_those_of_the_reconstructions():
    """Mean over pixels and channels; a p-value beside each where there is a calibration."""
    model = build_autoencoder(
        architecture="dense", image_shape=(3, 9, 9), encoding_dim=3, hidden=(8,)
    )
    images = RNG.integers(0, 256, (7, 3, 9, 9), dtype=np.uint8)
    expected = ((aesearch.reconstruct(model, images) - images / 255) ** 2).mean(axis=(1, 2, 3))
    found = aesearch.score_samples(model, images)
    np.testing.assert_allclose(found["error"], expected, rtol=1e-5)
    assert list(found) == ["error"]
    known = aesearch.score_samples(model, images, calibration=expected * 1.001)
    np.testing.assert_allclose(known["p"].min(), 2 / 8)
    with pytest.raises(DataError, match="calibration must hold errors"):
        aesearch.score_samples(model, images, calibration=[])


def test_lists_of_pictures_and_datasets_go_through_a_model():
    """Of any mode; grey ones through a colour model."""
    model = build_autoencoder(
        architecture="dense", image_shape=(3, 9, 9), encoding_dim=3, hidden=(8,)
    )
    grey = RNG.integers(0, 256, (4, 9, 9), dtype=np.uint8)
    expected = aesearch.encode(model, np.stack([grey] * 3, axis=1))
    pictures = [Image.fromarray(image) for image in grey]

    class Pairs:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return pictures[index], index

    for given in (pictures, Pairs()):
        np.testing.assert_array_equal(aesearch.encode(model, given), expected)


def test_the_odd_ones_of_an_anomaly_data_set(tmp_path, monkeypatch):
    """The command: file names, errors, p-values by the good test images, maps, AUROC."""
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[:9, :9]
    for part, kind, n in (("train", "good", 40), ("test", "good", 20), ("test", "broken", 5)):
        folder = tmp_path / "set" / part / kind
        folder.mkdir(parents=True)
        for number in range(n):
            image = 20 * x + RNG.integers(0, 20, (9, 9)) + RNG.integers(0, 40)
            if kind == "broken":
                image = np.where((y - 4) ** 2 + (x - 4) ** 2 < 9, 255 - image, image)
            Image.fromarray(image.astype(np.uint8)).save(folder / f"{number:02}.png")
    steady = ("--set", "search.unstable_oscillation=100")
    assert invoke("run", "--dataset", "set", *SMALL, *steady).exit_code == 0
    done = invoke("score", "runs/set", "set", "scores.csv", "--part", "test", "--map", "maps.npy")
    assert done.exit_code == 0, done.output
    assert "p-values by the errors of 20 test images of 'good' of the study" in done.stdout
    assert "AUROC 1.0000 for 5 of them that are not ordinary" in done.stdout
    scores = pd.read_csv("scores.csv")
    assert list(scores) == ["file", "label", "error", "p"]
    assert scores.file[0] == "test/broken/00.png"
    assert (scores.p[scores.label == "broken"] <= 1 / 21 + 1e-9).all()
    maps = np.load("maps.npy")
    assert maps.shape == (25, 9, 9)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), scores.error, rtol=1e-4)
    refused = invoke("score", "runs/set", "set", "scores.npy")
    assert (refused.exit_code, ".csv or .parquet" in refused.stderr) == (2, True)


def test_codes_know_their_files(tmp_path, monkeypatch):
    """In an archive, and in a table, beside the classes."""
    monkeypatch.chdir(tmp_path)
    for kind in ("cat", "dog"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for number in range(10):
            image = RNG.integers(0, 256, (9, 9), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / "set" / kind / f"{number}.png")
    assert invoke("run", "--dataset", "set", *SMALL).exit_code == 0
    for name in ("codes.npz", "codes.csv", "codes.parquet"):
        assert invoke("encode", "runs/set", "set", name).exit_code == 0
    archive = np.load("codes.npz")
    assert archive["files"][10] == "dog/0.png"
    for table in (pd.read_csv("codes.csv"), pd.read_parquet("codes.parquet")):
        assert list(table) == ["file", "label", "code_0", "code_1"]
        assert table.file.tolist() == archive["files"].tolist()
        assert table.label.tolist() == ["cat"] * 10 + ["dog"] * 10
        np.testing.assert_allclose(table[["code_0", "code_1"]], archive["codes"], rtol=1e-6)
