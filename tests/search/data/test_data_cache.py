"""Large sets: written once, mapped by every process, the same to the last bit."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aesearch.data import cache, study_data
from aesearch.data.study_data import load_problem
from aesearch.studies.spec.load import load_spec

ROLLUP = Path("/proc/self/smaps_rollup")
PARTS = ("images", "test_images", "labels", "test_labels", "groups", "fold_of_sample")


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """Images with labels and groups, and a cache that takes sets of any size."""
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SMALLEST_BYTES", 1)
    images = np.random.default_rng(0).integers(0, 256, (60, 3, 9, 9), dtype=np.uint8)
    labels = np.array(["cat", "dog", "eel"])[np.arange(60) % 3]
    np.savez(tmp_path / "a.npz", images=images, labels=labels, groups=np.arange(60) // 3)
    words = [f"data.dataset={tmp_path}/a.npz", "data.groups=groups", "data.limit=40"]
    return load_spec(overrides=words)


def test_a_map_holds_what_was_read(spec, monkeypatch, tmp_path):
    """Bit for bit, with all that belongs to it; nothing is read again."""
    with monkeypatch.context() as plain:
        plain.setattr(cache, "SMALLEST_BYTES", 1 << 40)
        read = load_problem(spec, device="cpu")
    assert not (tmp_path / "cache").exists()
    first = load_problem(spec, device="cpu")
    monkeypatch.setattr(study_data, "load_images", None)  # whoever reads now fails
    again = load_problem(spec, device="cpu", facts=first.facts())
    for problem in (first, again):
        for name in PARTS:
            np.testing.assert_array_equal(getattr(problem, name), getattr(read, name))
        assert problem.facts() == read.facts()
        assert problem.spec == read.spec
        assert problem.class_names == ("cat", "dog", "eel")
        assert isinstance(problem.images.base, np.memmap)


def test_other_images_and_splits_have_files_of_their_own(spec, tmp_path):
    """A name says which images and which split."""
    load_problem(spec, device="cpu")
    load_problem(spec, device="cpu")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    load_problem(spec.model_copy(update={"seed": 5}), device="cpu")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_damaged_file_is_read_from_the_source(spec, tmp_path):
    """A map that is too short is none."""
    problem = load_problem(spec, device="cpu")
    expected = problem.images.copy()
    (folder,) = (tmp_path / "cache").iterdir()
    os.truncate(folder / "images.npy", 200)
    again = load_problem(spec, device="cpu", facts=problem.facts())
    np.testing.assert_array_equal(again.images, expected)


def test_a_cache_that_cannot_be_written_is_no_error(spec, tmp_path, monkeypatch):
    """The images stay in memory."""
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    assert load_problem(spec, device="cpu").images.shape == (40, 3, 9, 9)


def test_what_nobody_opened_for_a_month_is_removed(spec, tmp_path):
    """When something else is written."""
    load_problem(spec, device="cpu")
    (old,) = (tmp_path / "cache").iterdir()
    os.utime(old, (0, 0))
    load_problem(spec.model_copy(update={"seed": 5}), device="cpu")
    assert not old.exists()


@pytest.mark.skipif(not ROLLUP.exists(), reason="only Linux tells")
def test_a_map_takes_no_memory_of_its_own(tmp_path, monkeypatch):
    """A process that walks through 200 MB of images keeps less than half of them for itself."""
    parts = {
        "images": np.ones((200, 1, 1000, 1000), np.uint8),
        "test_images": np.ones((1, 1, 1000, 1000), np.uint8),
        **dict.fromkeys(("labels", "test_labels", "groups")),
        "fold_of_sample": np.zeros(200, np.int64),
        "fingerprint": "a",
        "split_sha256": "b",
        "class_names": None,
    }
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
    cache.keep(parts)
    program = (
        "import re, torch\n"
        "from pathlib import Path\n"
        "from aesearch.data import cache\n"
        "def private():\n"
        "    text = Path('/proc/self/smaps_rollup').read_text()\n"
        "    return int(re.search(r'Anonymous: +(\\d+)', text)[1])\n"
        "before = private()\n"
        "facts = {'fingerprint': 'a', 'split_sha256': 'b', 'n_images': 200}\n"
        "images = torch.from_numpy(cache.opened(facts)['images']).to('cpu')\n"
        "total = sum(int(image.sum()) for image in images)\n"
        "print(total, private() - before)\n"
    )
    told = subprocess.check_output([sys.executable, "-c", program], text=True)
    total, kilobytes = map(int, told.split())
    assert total == 200_000_000
    assert kilobytes < 100_000
