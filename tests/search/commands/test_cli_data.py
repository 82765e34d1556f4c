"""Images as people have them, from the command line: checked, searched, and put through a model."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import aesearch
from aesearch.cli import app

RNG = np.random.default_rng(0)
SMALL = (
    *("--trials", "2", "--folds", "2", "--epochs", "2", "--device", "cpu", "--workers", "1"),
    *("--architecture", "dense", "--set", "model.dense.hidden=8", "--set", "space.hidden=null"),
    *("--set", "retrain.seeds=1", "--set", "retrain.max_epochs=2", "--set", "search.pruner=none"),
    *("--set", "evaluation.bootstrap=10", "--set", "space.encoding_dim.choices=[2]"),
)


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03}.png")


def blobs(n, *shape):
    return RNG.integers(0, 256, (n, 9, 9, *shape), dtype=np.uint8)


def test_check_says_what_is_read_and_draws_it(here):
    """One line, one picture; the picture is no image of the folder."""
    save(here / "cat", blobs(6))
    save(here / "dog", blobs(8))
    (here / "notes.txt").touch()
    done = invoke("data", "check", ".")
    assert done.exit_code == 0, done.output
    name = here.name
    line = "14 images, 1 × 9 × 9, 2 classes (cat 6, dog 8); left out: 1 .txt"
    assert done.stdout.splitlines()[0] == f"{name}: {line}"
    with Image.open(here / f"{name}-contact-sheet.png") as sheet:
        assert min(sheet.size) > 100
    again = json.loads(invoke("data", "check", ".", "--json").stdout)
    assert again["classes"] == {"cat": 6, "dog": 8}
    assert "1 contact sheet of aesearch" in again["read"]
    refused = invoke("data", "check", ".", "--sheet", f"{name}-contact-sheet.png")
    assert (refused.exit_code, "must not exist" in refused.stderr) == (2, True)


def test_check_takes_the_settings_of_a_run(here):
    """Size, colour, test set and the rest; a bad value is named."""
    Image.new("L", (30, 20)).save(here / "a.png")
    save(here / "all", [*blobs(11, 3), RNG.integers(0, 255, (20, 30, 3), dtype=np.uint8)])
    done = invoke("data", "check", "all", "--resize", "16-fit", "--colour", "grey")
    assert done.stdout.startswith("all: 12 images, 1 × 16 × 16")
    refused = invoke("data", "check", "all", "--resize", "large")
    assert (refused.exit_code, "data.resize: must be a side" in refused.stderr) == (2, True)


def test_our_own_runs_are_no_images(here):
    """`--dataset .` twice, then verify: the run folder does not count."""
    save(here, blobs(40))
    words = ("run", "--dataset", ".", "--study", "mine", *SMALL, "--json")
    first = invoke(*words)
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    assert told["read"].startswith("40 images, 1 × 9 × 9")
    assert "read " in first.stderr
    assert told["read"] in (here / "runs/mine/worker-1.log").read_text()
    assert told["read"] in (here / "runs/mine/report.html").read_text()
    second = invoke(*words)
    assert second.exit_code == 0, second.output
    assert "left out: 1 run folder of aesearch" in second.stderr
    assert invoke("verify", "runs/mine/best.yaml").exit_code == 0
    assert invoke("encode", "runs/mine", ".", "codes.npy").exit_code == 0
    assert np.load("codes.npy").shape == (40, 2)


def test_what_run_takes_encode_takes(here):
    """A grey file among colours, alone too; deep files by the white that the study has."""
    colours = blobs(40, 3)
    save(here / "photos", colours)
    Image.fromarray(colours[0, ..., 0]).save(here / "photos/000.png")
    done = invoke("run", "--dataset", "photos", *SMALL)
    assert done.exit_code == 0, done.output
    save(here / "greys", colours[:2, ..., 0])
    assert invoke("encode", "runs/photos", "greys", "greys.npy").exit_code == 0
    assert invoke("encode", "runs/photos", "photos/000.png", "one.npy").exit_code == 0
    np.testing.assert_allclose(np.load("one.npy"), np.load("greys.npy")[:1], rtol=1e-5, atol=1e-6)
    model = aesearch.load("runs/photos")
    flat = np.repeat(colours[:2, ..., :1], 3, axis=3)
    codes = aesearch.encode(model, flat)
    np.testing.assert_allclose(np.load("greys.npy"), codes, rtol=1e-5, atol=1e-6)


def test_size_and_white_of_the_study_hold_for_the_model(here):
    """16-bit photographs of several sizes, searched and encoded with the same words."""
    wide = [RNG.integers(0, 4096, (20 + n % 3, 24), dtype=np.uint16) for n in range(40)]
    save(here / "deep", wide)
    refused = invoke("run", "--dataset", "deep", *SMALL)
    assert (refused.exit_code, "--resize SIDE" in refused.stderr) == (2, True)
    refused = invoke("run", "--dataset", "deep", "--resize", "12", *SMALL)
    assert (refused.exit_code, "data.white" in refused.stderr) == (2, True)
    words = ("--white", "4095", "--resize", "12", *SMALL)
    done = invoke("run", "--dataset", "deep", *words)
    assert done.exit_code == 0, done.output
    assert invoke("encode", "runs/deep", "deep", "codes.npy").exit_code == 0
    assert invoke("encode", "runs/deep", "deep/003.png", "one.npy").exit_code == 0
    np.testing.assert_allclose(np.load("one.npy"), np.load("codes.npy")[3:4], rtol=1e-5, atol=1e-6)


def test_five_channels_and_groups_to_the_end(here):
    """A search, its report and its pictures, of what no picture format holds."""
    many = RNG.integers(0, 256, (40, 5, 9, 9), dtype=np.uint8)
    np.savez(here / "many.npz", images=many, patient=np.arange(40) // 4)
    done = invoke("run", "--dataset", "many.npz", "--groups", "patient", *SMALL, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["read"] == "40 images, 5 × 9 × 9, 10 groups"
    assert list((here / "runs/many/pictures").glob("*.png"))
    assert invoke("reconstruct", "runs/many", "many.npz", "again.png").exit_code == 0


def test_an_excess_of_rounding_is_none(here):
    """1.0000005 and -1e-17 are white and black for run and for encode."""
    images = blobs(40) / 255
    np.save(here / "a.npy", np.where(images == 0, -1e-17, images * 1.0000005))
    np.save(here / "b.npy", images)
    assert invoke("run", "--dataset", "a.npy", *SMALL).exit_code == 0
    for name in ("a", "b"):
        assert invoke("encode", "runs/a", f"{name}.npy", f"{name}-codes.npy").exit_code == 0
    np.testing.assert_allclose(np.load("a-codes.npy"), np.load("b-codes.npy"), rtol=1e-4, atol=1e-5)
