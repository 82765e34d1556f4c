"""The command ``score`` and ``score_samples``: which images are odd, and how sure that is."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import aesearch
from aesearch.artifacts import model_file
from aesearch.artifacts.model_file import weights_sha256
from aesearch.cli import app
from aesearch.models.autoencoder import build_autoencoder
from aesearch.studies.results.calibration import calibration_of

SHAPE = (1, 9, 9)
READERS = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}


def invoke(*arguments):
    return CliRunner().invoke(app, ["score", *map(str, arguments)])


def images_of(n_images, seed=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n_images, *SHAPE[1:]), dtype=np.uint8)


def errors_of(model, images):
    found = aesearch.reconstruct(model, images)
    return ((found - images / 255.0) ** 2).reshape(len(images), -1).mean(1)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Go to a folder with a model in ``run``, calibrated on 150 images, and new images."""
    monkeypatch.chdir(tmp_path)
    model = build_autoencoder(architecture="dense", image_shape=SHAPE, encoding_dim=3, hidden=(8,))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(model_file.to_bytes(model))
    ordinary = images_of(150, seed=1)
    calibration = calibration_of(
        "out-of-fold",
        errors_of("run", ordinary),
        np.arange(150),
        ordinary[:, None],
        weights_sha256=weights_sha256(model),
        seed=0,
    )
    document = json.dumps(calibration.document())
    (tmp_path / "run" / "calibration.json").write_text(document)
    images = images_of(12)
    np.save("images.npy", images)
    return tmp_path


def layout_of(root, *, masks=True):
    """Make an MVTec layout: 8 good images, 4 with a square that is odd."""
    for number, image in enumerate(images_of(12) // 4 + 96):
        name = "scratch" if number < 4 else "good"
        if number < 4:
            image[2:5, 3:6] = 255
            mask = np.zeros(SHAPE[1:], np.uint8)
            mask[2:5, 3:6] = 255
            folder = root / "ground_truth" / "scratch"
            folder.mkdir(parents=True, exist_ok=True)
            if masks:
                Image.fromarray(mask).save(folder / f"{number:03d}_mask.png")
        folder = root / "test" / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    (root / "train" / "good").mkdir(parents=True)
    Image.fromarray(images_of(1)[0]).save(root / "train" / "good" / "000.png")


@pytest.mark.parametrize("ending", list(READERS))
def test_every_image_has_an_error_and_a_p_value(ending, here):
    """As the function gives them, beside the number or the file; the oddest are said."""
    expected = aesearch.score_samples("run", images_of(12))
    np.testing.assert_allclose(expected.error, errors_of("run", images_of(12)), rtol=1e-4)
    assert expected.p_value.between(1 / 151, 1).all()
    done = invoke("run", "images.npy", f"scores.{ending}", "--batch-size", 5)
    assert done.exit_code == 0, done.output
    found = READERS[ending](f"scores.{ending}")
    assert found.columns.tolist() == ["index", "error", "p_value"]
    np.testing.assert_allclose(found[["error", "p_value"]], expected, rtol=1e-5)
    worst = expected.error.idxmax()
    assert f"  {worst}: error {expected.error[worst]:.4g}, p " in done.stdout
    assert "p <= 0.05: " in done.stdout
    assert "training images" not in done.stdout


def test_training_images_are_judged_by_networks_that_did_not_see_them(here):
    """Their errors and ranks are those of the calibration, and it is said how many they are."""
    ordinary = images_of(150, seed=1)
    found = aesearch.score_samples("run", ordinary)
    expected = pd.Series(errors_of("run", ordinary)).rank(ascending=False) / 150
    np.testing.assert_allclose(found.p_value, expected, rtol=1e-6)
    np.save("mixed.npy", np.concatenate([ordinary[:5], images_of(2)]))
    done = invoke("run", "mixed.npy", "scores.csv")
    assert "5 of them are training images" in done.stdout


def test_a_model_without_calibration_gives_errors_and_says_so(here):
    """Of a former version, or of another model: never p-values that mean nothing."""
    (here / "run" / "calibration.json").unlink()
    done = invoke("run", "images.npy", "scores.csv")
    assert done.exit_code == 0, done.output
    assert "no p-values" in done.stderr
    assert "p <=" not in done.stdout
    assert pd.read_csv("scores.csv").p_value.isna().all()
    with pytest.warns(UserWarning, match="no p-values"):
        found = aesearch.score_samples(model_file.load("run"), images_of(12))
    assert found.p_value.isna().all()
    assert found.error.notna().all()


def test_a_damaged_calibration_stops_scores_only(here):
    """The model is as good as before; the file is named, with what to do."""
    (here / "run" / "calibration.json").write_text("{}")
    assert CliRunner().invoke(app, ["encode", "run", "images.npy", "codes.npy"]).exit_code == 0
    done = invoke("run", "images.npy", "scores.csv")
    assert done.exit_code == 2
    assert "calibration.json must hold errors of ordinary images" in done.stderr
    assert not (here / "scores.csv").exists()


@pytest.mark.parametrize("source", ["bottle", "bottle/test"])
def test_an_mvtec_layout_says_what_is_odd(source, here):
    """Images by their class, pixels by their masks; the classes stand in the table."""
    layout_of(here / "bottle")
    done = invoke("run", source, "scores.csv", "--map", "maps.npy", "--json")
    assert done.exit_code == 0, done.output
    table = pd.read_csv("scores.csv")
    assert table.file[0] == "good/004.png"
    is_odd = (table.label == "scratch").to_numpy()
    said = json.loads(done.stdout)
    # A dumber count: of all pairs, how often the odd one errs more.
    pairs = table.error[is_odd].to_numpy()[:, None] > table.error[~is_odd].to_numpy()
    assert said["auroc"] == pytest.approx(pairs.mean())
    maps = np.load("maps.npy")
    np.testing.assert_allclose(maps.mean((1, 2)), table.error, rtol=1e-5)
    masks = np.zeros(maps.shape, bool)
    masks[8:, 2:5, 3:6] = True
    of_pixels = (maps[masks][:, None] > maps[~masks]) + 0.5 * (maps[masks][:, None] == maps[~masks])
    assert said["auroc_of_pixels"] == pytest.approx(of_pixels.mean())
    assert (said["ordinary"], said["n_images"]) == (["good"], 12)


def test_masks_that_are_missing_are_said(here):
    """The images alone are compared then; nothing is left out silently."""
    layout_of(here / "bottle", masks=False)
    done = invoke("run", "bottle", "scores.csv")
    assert done.exit_code == 0, done.output
    assert "AUROC 0" in done.stdout or "AUROC 1" in done.stdout
    assert "AUROC of the pixels" not in done.stdout
    folder = here / "bottle" / "ground_truth" / "scratch"
    Image.fromarray(np.eye(9, dtype=np.uint8)).save(folder / "000_mask.png")
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(folder / "001_mask.png")
    done = invoke("run", "bottle", "again.csv")
    assert "AUROC of the pixels" in done.stdout
    assert "3 images without a mask of their size are left out" in done.stdout


def test_labels_say_what_is_odd_where_asked(here):
    """Any class by its name or number; without a class called good nothing is guessed."""
    labels = np.arange(12) % 3
    np.savez("labelled.npz", images=images_of(12), labels=labels)
    done = invoke("run", "labelled.npz", "scores.csv")
    assert "AUROC" not in done.stdout
    done = invoke("run", "labelled.npz", "s.csv", "--ordinary", 0, "--ordinary", 1)
    assert "8 ordinary (0, 1), 4 odd" in done.stdout
    done = invoke("run", "labelled.npz", "t.csv", "--ordinary", "fine")
    assert done.exit_code == 2
    assert "ordinary must name classes of INPUT, got 'fine'; there: 0, 1, 2" in done.stderr
    done = invoke("run", "images.npy", "t.csv", "--ordinary", "fine")
    assert "there: none: INPUT has no labels" in done.stderr


def test_maps_show_where_an_image_errs(here):
    """Pictures hold the square roots, so that small errors are seen; files keep their names."""
    layout_of(here / "bottle")
    assert invoke("run", "bottle", "a.csv", "--map", "maps").exit_code == 0
    assert invoke("run", "bottle", "b.csv", "--map", "maps.npz").exit_code == 0
    with np.load("maps.npz") as archive:
        maps, files = archive["maps"], archive["files"]
    assert maps.shape == (12, 9, 9)
    for squares, file in zip(maps, files, strict=True):
        with Image.open(here / "maps" / file) as picture:
            np.testing.assert_array_equal(np.asarray(picture), np.rint(np.sqrt(squares) * 255))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "images.npy", "scores.npy"], "OUTPUT must end in .csv, .json or .parquet"),
        (["run", "images.npy", "s.csv", "--map", "m.csv"], "--map must end in .npy, .npz or .png"),
        (["run", "images.npy", "s.csv", "--map", "images.npy"], "--map must not be INPUT"),
        (["run", "no.npy", "s.csv"], "no.npy must exist"),
        (["no", "images.npy", "s.csv"], "model must be a model.safetensors file"),
    ],
)
def test_bad_input_is_named_and_nothing_is_made(arguments, message, here):
    """Exit code 2, one line."""
    before = sorted(here.rglob("*"))
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert sorted(here.rglob("*")) == before
