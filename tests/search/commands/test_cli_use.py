"""The commands of the model in use: every INPUT, every OUTPUT, and nothing lost."""

import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import aesearch
from aesearch.artifacts import model_file
from aesearch.cli import app
from aesearch.evaluation.tiles import GAP, scale_of
from aesearch.inference.inputs import open_input
from aesearch.models.autoencoder import build_autoencoder

ROUNDING = {"rtol": 1e-5, "atol": 1e-6}
SHAPE = (1, 9, 9)


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def images_of(n_samples=12):
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (n_samples, *SHAPE[1:]), dtype=np.uint8)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Go to a folder with a model in ``run`` and images in every format."""
    monkeypatch.chdir(tmp_path)
    model = build_autoencoder(architecture="dense", image_shape=SHAPE, encoding_dim=3, hidden=(8,))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(model_file.to_bytes(model))
    images, labels = images_of(), np.arange(12) % 2
    np.save("images.npy", images)
    np.savez("images.npz", images=images, labels=labels)
    table = np.column_stack([labels, images.reshape(12, -1)])
    np.savetxt("images.csv", table, fmt="%d", delimiter=",")
    for index, image in enumerate(images):
        folder = tmp_path / "photos" / f"class-{labels[index]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"image-{index:02d}.png")
    Image.fromarray(images[0]).save("one.png")
    return tmp_path


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def rounded(images):
    return np.rint(images * 255).astype(np.uint8)


def by_class(array):
    """Order the images as their folders are sorted."""
    return np.concatenate([array[::2], array[1::2]])


@pytest.mark.parametrize("source", ["images.npy", "images.npz", "images.csv", "photos", "one.png"])
def test_every_input_gives_the_codes_of_its_images(source, here):
    """As the function gives them for the array; progress is silent without a terminal."""
    done = invoke("encode", "run", source, "codes.npy", "--batch-size", 5)
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    expected = aesearch.encode("run", images_of())
    if source == "photos":
        expected = by_class(expected)
    if source == "one.png":
        expected = expected[:1]
    codes = np.load("codes.npy")
    assert codes.dtype == np.float32
    np.testing.assert_allclose(codes, expected, **ROUNDING)
    assert done.stdout.startswith(f"codes.npy: codes of {len(expected)} image")
    assert done.stdout.strip().endswith(f"float32 {len(expected)} x 3")


SKIP = ["--bad-files", "skip"]


@pytest.mark.parametrize(("of_model", "options"), [("stop", SKIP), ("skip", []), (None, SKIP)])
@pytest.mark.parametrize("command", ["encode", "reconstruct", "denoise", "score"])
def test_bad_files_are_left_out_and_listed(command, of_model, options, here):
    """Where an option or the model's own specification says so: the codes are of the others."""
    if of_model is not None:
        text = f"data: {{bad_files: {of_model}}}\ntraining: {{corruption: none}}\n"
        (here / "run" / "best.yaml").write_text(text)
    whole = (here / "photos" / "class-1" / "image-05.png").read_bytes()
    (here / "photos" / "class-1" / "image-05.png").write_bytes(whole[:80])
    (here / "photos" / "class-0" / "image-00.png").write_text("no image")
    output = {"encode": "x.csv", "score": "x.csv"}.get(command, "x.npz")
    done = invoke(command, "run", "photos", output, *options)
    assert done.exit_code == 0, done.output
    assert "left out: 2 bad files; bad files: image-00.png (" in done.stderr
    assert "image-05.png (" in done.stderr
    left = np.delete(by_class(np.arange(12)), [0, 8])
    if command == "encode":
        table = pd.read_csv(output)
        assert table["file"].tolist() == [f"class-{i % 2}/image-{i:02d}.png" for i in left]
        assert table["label"].tolist() == [f"class-{i % 2}" for i in left]
        codes = aesearch.encode("run", images_of()[left])
        np.testing.assert_allclose(table.filter(like="code_"), codes, **ROUNDING)
    elif command == "score":
        assert len(pd.read_csv(output)) == 10
    else:
        expected = aesearch.reconstruct("run", images_of()[left])
        np.testing.assert_allclose(np.load(output)["images"][:, 0], expected, **ROUNDING)


@pytest.mark.parametrize("options", [[], ["--bad-files", "stop"]])
def test_bad_files_stop_where_nothing_else_is_said(options, here):
    """And where the option says so, whatever the model's specification says."""
    if options:
        (here / "run" / "best.yaml").write_text("data: {bad_files: skip}\n")
    (here / "photos" / "class-0" / "image-02.png").write_text("no image")
    done = invoke("encode", "run", "photos", "x.csv", *options)
    assert done.exit_code == 2
    assert "image-02.png must be a readable image" in done.stderr
    assert not (here / "x.csv").exists()


def test_files_that_are_all_bad_are_an_error(here):
    """As is a word that is none."""
    for file in (here / "photos").rglob("*.png"):
        file.write_text("no image")
    done = invoke("encode", "run", "photos", "x.csv", *SKIP)
    assert done.exit_code == 2
    assert "image-00.png" in done.stderr
    done = invoke("encode", "run", "photos", "x.csv", "--bad-files", "perhaps")
    assert done.exit_code == 2
    assert "bad_files must be stop or skip, got 'perhaps'" in done.stderr


def test_an_array_is_mapped_and_read_by_batches(here):
    """Memory is bounded: the file is not read, and a folder is opened as it is needed."""
    assert isinstance(open_input("images.npy").parts[0], np.memmap)
    photos = open_input("photos")
    (here / "photos" / "class-1" / "image-11.png").unlink()
    assert photos.read(slice(0, 11), SHAPE).shape == (11, *SHAPE)
    with pytest.raises(aesearch.AesearchError, match=r"image-11\.png must stay where"):
        photos.read(slice(11, 12), SHAPE)


@pytest.mark.parametrize("size", [1, 5, 12, 100])
def test_batches_make_one_array(size, here):
    """Streaming equals one batch to rounding, and the layout is that of INPUT."""
    assert (
        invoke("reconstruct", "run", "images.npy", "out.npy", "--batch-size", size).exit_code == 0
    )
    found = np.load("out.npy")
    assert found.shape == images_of().shape
    np.testing.assert_allclose(found, aesearch.reconstruct("run", images_of()), **ROUNDING)


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_a_table_of_codes_names_the_files(ending, here):
    """Each row can be mapped back to its image: by the file within INPUT, or by its number."""
    readers = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}
    codes = aesearch.encode("run", images_of())
    done = invoke("encode", "run", "photos", f"codes.{ending}", "--batch-size", 5)
    assert done.exit_code == 0, done.output
    found = readers[ending](f"codes.{ending}")
    assert found.columns.tolist() == ["file", "label", "code_0", "code_1", "code_2"]
    assert found.file[:2].tolist() == ["class-0/image-00.png", "class-0/image-02.png"]
    assert found.label.tolist() == ["class-0"] * 6 + ["class-1"] * 6
    np.testing.assert_allclose(found.filter(like="code_"), by_class(codes), **ROUNDING)
    assert invoke("encode", "run", "images.npy", f"numbers.{ending}").exit_code == 0
    found = readers[ending](f"numbers.{ending}")
    assert found.columns.tolist() == ["index", "code_0", "code_1", "code_2"]
    assert found["index"].tolist() == list(range(12))
    assert invoke("encode", "run", "one.png", f"one.{ending}").exit_code == 0
    assert readers[ending](f"one.{ending}").file.tolist() == ["one.png"]


def test_a_file_name_that_is_no_utf8_is_written_all_the_same(here):
    """Its odd bytes can be seen in the table."""
    os.rename(b"photos/class-0/image-00.png", b"photos/class-0/image-\xff.png")  # noqa: PTH104
    assert invoke("encode", "run", "photos", "codes.csv").exit_code == 0
    assert "class-0/image-\\xff.png" in (here / "codes.csv").read_text()


def test_an_archive_has_the_labels_and_is_the_same_bytes_every_time(here):
    """Codes with classes; reconstructions under names that ``aesearch run`` reads."""
    assert invoke("encode", "run", "photos", "codes.npz").exit_code == 0
    with np.load("codes.npz") as codes:
        np.testing.assert_array_equal(codes["labels"], by_class(np.arange(12) % 2))
        assert codes["class_names"].tolist() == ["class-0", "class-1"]
        assert codes["files"][[0, 11]].tolist() == ["class-0/image-00.png", "class-1/image-11.png"]
        np.testing.assert_allclose(
            codes["codes"], by_class(aesearch.encode("run", images_of())), **ROUNDING
        )
    assert invoke("reconstruct", "run", "images.npz", "first.npz").exit_code == 0
    assert invoke("reconstruct", "run", "images.npz", "second.npz").exit_code == 0
    assert (here / "first.npz").read_bytes() == (here / "second.npz").read_bytes()
    again = open_input("first.npz")
    assert again.shape == (12, 9, 9)
    np.testing.assert_array_equal(again.labels, np.arange(12) % 2)


@pytest.mark.parametrize(("part", "rows"), [("all", 7), ("train", 4), ("test", 3)])
def test_a_test_set_is_a_part(part, rows, here):
    """All means the training images and then the test images, also within one batch."""
    images = images_of()
    np.savez("parts.npz", x_train=images[:4], x_test=images[4:7])
    done = invoke("encode", "run", "parts.npz", "codes.npy", "--part", part, "--batch-size", 3)
    assert done.exit_code == 0, done.output
    wanted = {"all": images[:7], "train": images[:4], "test": images[4:7]}[part]
    np.testing.assert_allclose(np.load("codes.npy"), aesearch.encode("run", wanted), **ROUNDING)
    assert len(wanted) == rows
    said = {"all": "7 images (4 for training, then 3 for testing)"}
    assert said.get(part, f"(part {part})") in done.stdout


def test_one_image_keeps_its_size_and_many_make_a_sheet(here):
    """Pixel for pixel, and enlarged by a whole number in rows."""
    assert invoke("reconstruct", "run", "one.png", "new.png").exit_code == 0
    expected = rounded(aesearch.reconstruct("run", images_of()))
    np.testing.assert_array_equal(pixels("new.png"), expected[0])
    assert invoke("reconstruct", "run", "images.npy", "sheet.png").exit_code == 0
    sheet = pixels("sheet.png")
    times = scale_of(9, 9)
    side, step = 9 * times, 9 * times + GAP
    assert sheet.shape == (3 * step - GAP, 4 * step - GAP)
    for index, image in enumerate(expected):
        top, left = index // 4 * step, index % 4 * step
        cell = sheet[top : top + side, left : left + side]
        np.testing.assert_array_equal(cell[::times, ::times], image)


def test_a_folder_keeps_the_names_of_the_files(here):
    """One PNG per image, in the same sub-folders; numbers where there are no names."""
    assert invoke("reconstruct", "run", "photos", "out").exit_code == 0
    names = {path.relative_to(here / "photos") for path in (here / "photos").rglob("*.png")}
    assert {path.relative_to(here / "out") for path in (here / "out").rglob("*.png")} == names
    expected = rounded(aesearch.reconstruct("run", images_of()))
    np.testing.assert_array_equal(pixels("out/class-1/image-05.png"), expected[5])
    assert invoke("reconstruct", "run", "images.npy", "numbered/").exit_code == 0
    np.testing.assert_array_equal(pixels("numbered/000005.png"), expected[5])
    assert len(list((here / "numbered").iterdir())) == 12


def test_a_dark_picture_among_others_is_read(here):
    """Its largest value is 1 of 255, which only a whole folder of such would be refused for."""
    dark = np.zeros(SHAPE[1:], np.uint8)
    dark[0] = 1
    Image.fromarray(dark).save(here / "photos/class-0/image-00.png")
    assert invoke("encode", "run", "photos", "codes.npy", "--batch-size", 1).exit_code == 0
    (here / "dark").mkdir()
    Image.fromarray(dark).save(here / "dark/one.png")
    done = invoke("encode", "run", "dark", "none.npy")
    assert done.exit_code == 2
    assert "got integers that are only 0 and 1" in done.stderr


def test_names_that_differ_in_their_ending_stay_apart(here):
    """``a.png`` beside ``a.bmp`` are two images."""
    (here / "twins").mkdir()
    for suffix in ("png", "bmp"):
        Image.fromarray(images_of()[0]).save(here / "twins" / f"a.{suffix}")
    assert invoke("reconstruct", "run", "twins", "out").exit_code == 0
    assert {path.name for path in (here / "out").iterdir()} == {"a.bmp.png", "a.png.png"}


OUTPUTS = {"codes.npy": "encode", "codes.npz": "encode", "sheet.png": "reconstruct"}


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_exists_is_replaced_only_by_force(name, here):
    """Exit 2 and the bytes as they were; then the new ones."""
    (here / name).write_bytes(b"precious")
    done = invoke(OUTPUTS[name], "run", "images.npy", name)
    assert done.exit_code == 2
    assert f"OUTPUT must not exist, got '{name}'" in done.stderr
    assert "--force" in done.stderr
    assert (here / name).read_bytes() == b"precious"
    assert invoke(OUTPUTS[name], "run", "images.npy", name, "--force").exit_code == 0
    assert (here / name).read_bytes() != b"precious"


def test_force_leaves_other_files_of_a_folder_alone(here):
    """Files of the same names are replaced, nothing is deleted."""
    (here / "out").mkdir()
    (here / "out" / "mine.txt").write_text("precious")
    (here / "out" / "000000.png").write_text("old")
    assert invoke("reconstruct", "run", "images.npy", "out").exit_code == 2
    assert invoke("reconstruct", "run", "images.npy", "out", "--force").exit_code == 0
    assert (here / "out" / "mine.txt").read_text() == "precious"
    assert pixels("out/000000.png").shape == (9, 9)
    assert len(list((here / "out").iterdir())) == 13


@pytest.mark.parametrize("name", ["out.npy", "out.npz", "out.png", "out"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_failure_in_the_middle_leaves_what_was_there(name, exists, here):
    """Bad pixels in the last batch: no half of a file, no temporary file, the old one whole."""
    images = images_of() / 255
    images[11, 0, 0] = np.nan
    np.save("bad.npy", images)
    if exists and name == "out":
        (here / name).mkdir()
        (here / name / "000000.png").write_bytes(b"precious")
    elif exists:
        (here / name).write_bytes(b"precious")
    before = {path: path.is_dir() or path.read_bytes() for path in here.rglob("*")}
    done = invoke("reconstruct", "run", "bad.npy", name, "--batch-size", 5, "--force")
    assert done.exit_code == 2
    assert "bad.npy must hold finite intensities" in done.stderr
    assert {path: path.is_dir() or path.read_bytes() for path in here.rglob("*")} == before


@pytest.mark.parametrize(
    "words",
    [
        ["--pairs", "3,7", "10,11", "--steps", "4"],
        ["--pairs", "3,7 10,11", "--steps", "4"],
        ["--steps", "4", "--pairs", "3,7", "--pairs", "10,11"],
    ],
)
def test_lines_between_pairs(words, here):
    """As the function computes them, however the pairs are written."""
    done = invoke("interpolate", "run", "images.npy", "line.npy", *words)
    assert done.exit_code == 0, done.output
    expected = aesearch.interpolate("run", images_of(), [(3, 7), (10, 11)], steps=4)
    np.testing.assert_allclose(np.load("line.npy"), expected, **ROUNDING)


def test_a_line_is_a_row_of_a_picture(here):
    """A row per pair, a column per step; the first two images where no pair is named."""
    assert invoke("interpolate", "run", "images.npy", "line.png", "--steps", "5").exit_code == 0
    height, width = pixels("line.png").shape
    assert width == 5 * height + 4 * GAP
    assert invoke("interpolate", "run", "images.npy", "line", "--steps", "5").exit_code == 0
    names = sorted(path.name for path in (here / "line").iterdir())
    assert names == [f"0-1-0{step}.png" for step in range(5)]
    expected = rounded(aesearch.interpolate("run", images_of(), [(0, 1)], steps=5))
    np.testing.assert_array_equal(pixels("line/0-1-03.png"), expected[0, 3, 0])


@pytest.mark.parametrize(
    ("best", "said"),
    [
        (None, "whether this model was trained to denoise is not known"),
        ("training: {corruption: none}\n", "was not trained to denoise"),
        ("training: {learning_rate: 0.1}\n", "was not trained to denoise"),
        ("tabs:\t- [", "is not known"),
        (
            "training: {corruption: gaussian, corruption_level: 0.5}\n",
            "gaussian corruption of level 0.5",
        ),
        ("training: {}\ndata: {noisy: noisy/}\n", "trained on noisy images beside their clean"),
    ],
)
def test_denoise_reconstructs_and_says_what_the_model_was_trained_for(best, said, here):
    """The best.yaml beside the model tells; the pictures are those of ``reconstruct``."""
    if best is not None:
        (here / "run" / "best.yaml").write_text(best)
    done = invoke("denoise", "run", "images.npy", "clean.npy")
    assert done.exit_code == 0, done.output
    assert said in done.stderr
    is_denoiser = "gaussian" in said or "noisy" in said
    assert done.stderr.startswith("warning: ") != is_denoiser
    np.testing.assert_allclose(
        np.load("clean.npy"), aesearch.reconstruct("run", images_of()), **ROUNDING
    )


def test_denoise_takes_noise_that_was_not_cut_off_when_asked(here):
    """Refused without ``--unclamped``, and then equal to the function's."""
    noisy = images_of() / 255 + np.random.default_rng(0).normal(0, 1, (12, 9, 9))
    np.save("noisy.npy", noisy)
    assert invoke("denoise", "run", "noisy.npy", "clean.npy").exit_code == 2
    assert invoke("denoise", "run", "noisy.npy", "clean.npy", "--unclamped").exit_code == 0
    expected = aesearch.reconstruct("run", noisy, unclamped=True)
    np.testing.assert_allclose(np.load("clean.npy"), expected, **ROUNDING)


BAD = {
    "size": (["encode", "run", "digits", "x.npy"], "1 x 9 x 9, in one of the layouts"),
    "both shapes": (["encode", "run", "digits", "x.npy"], "got shape (1797, 1, 8, 8)"),
    "no model": (["encode", "nothing", "images.npy", "x.npy"], "'nothing': no file"),
    "no model in it": (["encode", "photos", "images.npy", "x.npy"], "photos/model.safetensors"),
    "no such model": (["encode", "images.npy", "images.npy", "x.npy"], "a safetensors file"),
    "no input": (["encode", "run", "no.npy", "x.npy"], "no.npy must exist"),
    "unknown input": (["encode", "run", "digist", "x.npy"], "did you mean 'digits'?"),
    "codes as PNG": (["encode", "run", "images.npy", "x.png"], "to hold codes, got 'x.png'"),
    "codes in a folder": (["encode", "run", "images.npy", "x/"], "to hold codes"),
    "unknown ending": (["reconstruct", "run", "images.npy", "x.jpg"], "write 'x.jpg/' if it is"),
    "no such folder": (["encode", "run", "images.npy", "no/x.npy"], "lie in an existing folder"),
    "onto itself": (["reconstruct", "run", "photos", "photos", "--force"], "must not be INPUT"),
    "a file as folder": (["reconstruct", "run", "photos", "one.png/"], "which is a file"),
    "part": (["encode", "run", "images.npy", "x.npy", "--part", "dev"], "part must be one of"),
    "no test part": (["encode", "run", "images.npy", "x.npy", "--part", "test"], "leave --part"),
    "device": (["encode", "run", "images.npy", "x.npy", "--device", "tpu"], "device must be"),
    "pair": (["interpolate", "run", "images.npy", "x.png", "--pairs", "3"], "a comma, got '3'"),
    "pair too far": (
        ["interpolate", "run", "images.npy", "x.png", "--pairs", "3,12"],
        "samples in 0..11, got 12",
    ),
    "sheet": (["reconstruct", "run", "many.npy", "x.png"], "a folder for more than 1024 images"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named_and_nothing_is_made(arguments, message, here):
    """Exit 2, one message on stderr, and no file more or less than before."""
    if "many.npy" in arguments:
        np.save("many.npy", np.zeros((1025, 9, 9), np.uint8))
    before = sorted(here.rglob("*"))
    done = invoke(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""
    assert sorted(here.rglob("*")) == before


def test_a_full_disk_is_named(here, monkeypatch):
    """The cause in one line; what was written until then is gone."""

    def full(stream, block):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aesearch.inference.outputs._append", full)
    done = invoke("encode", "run", "images.npy", "x.npy")
    assert done.exit_code == 2
    assert "x.npy cannot be written: No space left on device" in done.stderr
    assert not list(here.glob("*x.npy*"))


def test_the_real_mnist(here, mnist_dir):
    """Its test images, encoded in a few batches, with their labels."""
    model = build_autoencoder(architecture="dense", image_shape=(1, 28, 28), encoding_dim=2)
    (here / "mnist.safetensors").write_bytes(model_file.to_bytes(model))
    done = invoke(
        *("encode", "mnist.safetensors", "mnist", "codes.npz"),
        *("--data-dir", mnist_dir, "--part", "test", "--batch-size", 3000),
    )
    assert done.exit_code == 0, done.output
    with np.load("codes.npz") as found:
        assert found["codes"].shape == (10_000, 2)
        assert found["labels"][:5].tolist() == [7, 2, 1, 0, 4]
