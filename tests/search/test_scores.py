"""A folder with odd images from the training to the scores, and pictures from Python."""

import numpy as np
import pandas as pd
from PIL import Image
from typer.testing import CliRunner

import aesearch
from aesearch.cli import app
from aesearch.models.autoencoder import build_autoencoder

RNG = np.random.default_rng(0)
SMALL = (
    *("--trials", "1", "--folds", "2", "--epochs", "2", "--device", "cpu", "--workers", "1"),
    *("--architecture", "dense", "--set", "model.dense.hidden=8", "--set", "space.hidden=null"),
    *("--set", "retrain.seeds=1", "--set", "retrain.max_epochs=2", "--set", "search.pruner=none"),
    *("--set", "evaluation.bootstrap=10", "--set", "space.encoding_dim.choices=[2]"),
)


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


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
    assert "AUROC 1.000: 20 ordinary (good), 5 odd" in done.stdout
    scores = pd.read_csv("scores.csv")
    assert list(scores) == ["file", "label", "error", "p_value"]
    assert scores.file[0] == "test/broken/00.png"
    # Against the 40 training images, each by a network that did not see it.
    assert (scores.p_value[scores.label == "broken"] <= 1 / 41 + 1e-9).all()
    maps = np.load("maps.npy")
    assert maps.shape == (25, 9, 9)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), scores.error, rtol=1e-4)
