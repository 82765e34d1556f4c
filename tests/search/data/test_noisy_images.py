"""Noisy images beside their clean ones: matched by name or place, kept together in every split."""

import json

import numpy as np
import pytest
from PIL import Image

from aesearch.cli import app
from aesearch.data import cache, study_data
from aesearch.data.arrays.images import as_image_set
from aesearch.data.load import load
from aesearch.data.study_data import load_problem
from aesearch.studies.errors import DataError, SpecError
from aesearch.studies.spec.load import load_spec
from aesearch.studies.spec.sections import DataSpec

RNG = np.random.default_rng(0)
CLEAN = RNG.integers(0, 200, (30, 9, 10), dtype=np.uint8)
NOISY = CLEAN + 50  # so that each tells whose partner it is


def save(images, folder, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}{suffix}")


def noisy_of(tmp_path, **how):
    return load(tmp_path / "clean", how=DataSpec(noisy=str(tmp_path / "noisy"), **how))


def assert_paired(found):
    np.testing.assert_array_equal(found.noisy, found.images + 50)
    if found.test_images is not None:
        np.testing.assert_array_equal(found.test_noisy, found.test_images + 50)


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_files_of_folders_are_matched_by_name(tmp_path, suffix):
    """Whatever their ending; a set with noisy images has another fingerprint than one without."""
    save(CLEAN, tmp_path / "clean")
    save(NOISY, tmp_path / "noisy", suffix)
    found = noisy_of(tmp_path)
    assert_paired(found)
    assert found.described.startswith("30 images, 1 × 9 × 10, each beside its noisy one")
    alone = load(tmp_path / "clean")
    assert alone.noisy is None
    assert alone.fingerprint != found.fingerprint


def test_classes_and_a_split_take_their_partners_along(tmp_path):
    """Names are paths within the folders; one of these may lie a folder deeper."""
    for part, images in (("clean", CLEAN), ("noisy/all", NOISY)):
        for number, where in enumerate(["train/a", "train/b", "test/a", "test/b"]):
            save(images[number * 5 : number * 5 + 10], tmp_path / part / where)
    found = noisy_of(tmp_path)
    assert (found.n_samples, len(found.test_images)) == (20, 20)
    assert_paired(found)


def test_unmatched_names_are_listed(tmp_path):
    """The first of them, and how many, in both folders."""
    save(CLEAN, tmp_path / "clean")
    save(NOISY, tmp_path / "noisy")
    for number in range(10, 18):
        (tmp_path / "noisy" / f"{number}.png").rename(tmp_path / "noisy" / f"x{number}.png")
    with pytest.raises(DataError) as caught:
        noisy_of(tmp_path)
    text = str(caught.value)
    assert "none for 8 of 30 (10.png, 11.png, 12.png, 13.png, 14.png and 3 more)" in text
    assert "8 without a clean one (x10.png, x11.png, x12.png, x13.png, x14.png and 3 more)" in text


def test_a_bad_file_takes_its_partner_along(tmp_path):
    """Whichever of the two is bad."""
    save(CLEAN, tmp_path / "clean")
    save(NOISY, tmp_path / "noisy")
    (tmp_path / "clean" / "3.png").write_bytes(b"no image")
    (tmp_path / "noisy" / "7.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"3\.png"):
        noisy_of(tmp_path)
    found = noisy_of(tmp_path, bad_files="skip")
    assert found.n_samples == 28
    assert_paired(found)
    assert "1 image whose noisy one is bad" in found.described
    assert "noisy images: left out: 1 bad file" in found.described


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (NOISY[:, :, :9], r"noisy/0\.png must have the size of .*clean/0\.png, 10x9 .*got 9x9"),
        (np.stack([NOISY, CLEAN, CLEAN], 3), "must be greyscale, got colours"),
        (CLEAN, "must differ from the clean ones"),
    ],
)
def test_other_sizes_and_channels_are_refused(tmp_path, images, message):
    """By the name of the first."""
    save(CLEAN, tmp_path / "clean")
    save(images, tmp_path / "noisy")
    with pytest.raises(DataError, match=message):
        noisy_of(tmp_path)


def test_both_are_resized_alike(tmp_path):
    """Other sizes are no hindrance then."""
    save(CLEAN, tmp_path / "clean")
    save(NOISY.repeat(2, 1).repeat(2, 2), tmp_path / "noisy")
    found = noisy_of(tmp_path, resize={"side": 8})
    assert found.noisy.shape == found.images.shape == (30, 1, 8, 8)


def test_arrays_are_matched_by_place(tmp_path):
    """Of two files, of two arrays in an archive, of two arrays in memory: one and the same set."""
    np.save(tmp_path / "clean.npy", CLEAN)
    np.save(tmp_path / "noisy.npy", NOISY)
    np.savez(tmp_path / "both.npz", images=CLEAN, Noisy=NOISY)
    files = load(tmp_path / "clean.npy", how=DataSpec(noisy=str(tmp_path / "noisy.npy")))
    archive = load(tmp_path / "both.npz", how=DataSpec(noisy="noisy"))
    memory = as_image_set(CLEAN, noisy=NOISY / np.float32(255))
    assert_paired(files)
    assert files.fingerprint == archive.fingerprint == memory.fingerprint
    assert "left out" not in archive.described


def test_test_sets_have_noisy_images_too(tmp_path):
    """Of the archive's own, in it or in another; or of a set of its own, named beside it."""
    how = {"images": CLEAN[:20], "test_images": CLEAN[20:]}
    np.savez(tmp_path / "a.npz", **how, noisy=NOISY[:20], noisy_test=NOISY[20:])
    np.savez(tmp_path / "b.npz", images=NOISY[:20], test_images=NOISY[20:])
    found = [
        load(tmp_path / "a.npz", how=DataSpec(noisy="noisy", noisy_test="noisy_test")),
        load(tmp_path / "a.npz", how=DataSpec(noisy=str(tmp_path / "b.npz"))),
    ]
    for part, images in (("clean", CLEAN), ("noisy", NOISY)):
        np.save(tmp_path / f"{part}.npy", images[:20])
        np.save(tmp_path / f"{part}-test.npy", images[20:])
    names = {name: str(tmp_path / f"{name}.npy") for name in ("noisy", "clean-test", "noisy-test")}
    own = {"noisy": names["noisy"], "test": names["clean-test"], "noisy_test": names["noisy-test"]}
    found.append(load(tmp_path / "clean.npy", how=DataSpec(**own)))
    files = {"noisy": names["noisy"], "noisy_test": names["noisy-test"]}
    found.append(load(tmp_path / "a.npz", how=DataSpec(**files)))
    for each in found:
        assert_paired(each)
        assert each.fingerprint == found[0].fingerprint
    with pytest.raises(DataError, match="noisy image for each of its 10 test images, got none"):
        load(tmp_path / "a.npz", how=DataSpec(noisy="noisy"))


@pytest.mark.parametrize("how", [{}, {"limit": 20}, {"groups": "groups"}])
def test_every_split_keeps_pairs_together(tmp_path, how, monkeypatch):
    """The drawn test set, a limit and groups; also where large sets are mapped."""
    np.savez(tmp_path / "a.npz", images=CLEAN, noisy=NOISY, groups=np.arange(30) // 2)
    words = [f"data.{name}={value}" for name, value in how.items()]
    words += [f"data.dataset={tmp_path}/a.npz", "data.noisy=noisy"]
    read = load_problem(load_spec(overrides=words), device="cpu")
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SMALLEST_BYTES", 1)
    first = load_problem(load_spec(overrides=words), device="cpu")
    monkeypatch.setattr(study_data, "load_images", None)  # whoever reads now fails
    again = load_problem(load_spec(overrides=words), device="cpu", facts=first.facts())
    assert isinstance(again.noisy.base, np.memmap)
    for problem in (read, first, again):
        np.testing.assert_array_equal(problem.noisy, problem.images + 50)
        np.testing.assert_array_equal(problem.test_noisy, problem.test_images + 50)
        assert problem.inputs is problem.noisy
        assert problem.test_inputs is problem.test_noisy
        assert problem.facts() == read.facts()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.noisy=n", "training.corruption=gaussian"], "corruption: must be none beside data."),
        (["data.noisy_test=n"], "data.noisy_test: must be null unless data.noisy is set, got 'n'"),
        (["data.noisy=n", "data.test=t"], "data.noisy_test: must be given beside data.noisy and"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(words, message):
    """Before anything is read."""
    with pytest.raises(SpecError, match=message):
        load_spec(overrides=words)


@pytest.mark.parametrize(
    ("dataset", "noisy", "message"),
    [
        ("./clean", "noisy.npy", "must be a folder, as"),
        ("./noisy.npy", "clean", "must be a file of images, as"),
        ("./clean", "nothing", "data.noisy must exist, got nothing at"),
        ("./noisy.npy", "nothing", "data.noisy must exist, got nothing at"),
        ("./a.npz", "nothing", r"must hold an array 'nothing' \(data.noisy\), got images"),
        ("digits", "clean", "must be left out for the data set digits"),
    ],
)
def test_what_is_no_pair_is_refused(tmp_path, monkeypatch, dataset, noisy, message):
    """A folder and a file, a published set and images of one's own, or what is not there."""
    monkeypatch.chdir(tmp_path)
    save(CLEAN, tmp_path / "clean")
    np.save("noisy.npy", NOISY)
    np.savez("a.npz", images=CLEAN)
    with pytest.raises(DataError, match=message):
        load(dataset, how=DataSpec(noisy=noisy))


@pytest.mark.parametrize(
    ("dataset", "noisy", "message"),
    [
        ("clean.npy", "noisy.npy", "'noisy.npy' beside clean.npy, whose test set is drawn"),
        ("a.npz", "noisy", "'noisy' beside a.npz, whose test set is drawn"),
        ("clean", "noisy", "'noisy' beside clean, whose test set is in data.noisy as well"),
    ],
)
def test_noisy_test_images_of_no_test_set_are_refused(
    tmp_path, monkeypatch, dataset, noisy, message
):
    """They would be ignored."""
    monkeypatch.chdir(tmp_path)
    save(CLEAN, tmp_path / "clean")
    save(NOISY, tmp_path / "noisy")
    np.save("clean.npy", CLEAN)
    np.save("noisy.npy", NOISY)
    np.savez("a.npz", images=CLEAN, noisy=NOISY)
    with pytest.raises(DataError, match=message):
        load("./" + dataset, how=DataSpec(noisy=noisy, noisy_test=noisy))


def test_data_check_draws_pairs_and_says_so(tmp_path, monkeypatch, capsys):
    """The noisy one to the right of its clean one."""
    monkeypatch.chdir(tmp_path)
    save(CLEAN, tmp_path / "clean")
    save(NOISY, tmp_path / "noisy")
    with pytest.raises(SystemExit) as ended:
        app(["data", "check", "clean", "--noisy", "noisy", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["has_noisy"] is True
    sheet = np.asarray(Image.open("clean-contact-sheet.png")).astype(int)
    times = 6  # so many pixels a pixel
    tiles = [sheet[:54, left : left + 60][::times, ::times] for left in (0, 63)]
    np.testing.assert_array_equal(tiles[1], tiles[0] + 50)


@pytest.mark.parametrize("suffix", ["", ".npy"])
@pytest.mark.parametrize("wrong", ["nowhere", "the other kind"])
def test_wrong_noisy_test_images_are_named_by_their_setting(tmp_path, suffix, wrong):
    """Not as those of the training images."""
    for name, images in (("clean", CLEAN), ("noisy", NOISY), ("test", CLEAN[:12])):
        if suffix:
            np.save(tmp_path / f"{name}.npy", images)
        else:
            save(images, tmp_path / name)
    given = tmp_path / wrong
    if wrong == "the other kind":
        given = tmp_path / ("noisy_test" if suffix else "noisy.npy")
        given.mkdir() if suffix else np.save(given, NOISY)
    assert_blamed(tmp_path, suffix, given)


def test_names_without_noisy_test_images_are_named_by_their_setting(tmp_path):
    """Where there are too few files."""
    for name, images in (("clean", CLEAN), ("noisy", NOISY), ("test", CLEAN[:12])):
        save(images, tmp_path / name)
    save(NOISY[:11], tmp_path / "given")
    assert_blamed(tmp_path, "", tmp_path / "given")


def assert_blamed(tmp_path, suffix, given):
    paths = {name: str(tmp_path / f"{name}{suffix}") for name in ("noisy", "test")}
    with pytest.raises(DataError, match=r"data\.noisy_test"):
        load(tmp_path / f"clean{suffix}", how=DataSpec(**paths, noisy_test=str(given)))
