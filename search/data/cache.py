"""Images of large sets in memory-mapped files of the cache folder, shared by all processes.

One folder for the images of a study: what is trained on, and the test set, as they are after the
split. Its name is a hash of both fingerprints, so that its content never changes.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import numpy as np
import platformdirs

from aesearch.studies.results.records import Facts

CACHE_VARIABLE = "AESEARCH_CACHE_DIR"
# Smaller sets are read anew by every process: that takes no longer.
SMALLEST_BYTES = 1 << 26
_OLDEST_S = 30 * 24 * 3600.0
_Array = Literal["images", "test_images", "noisy", "test_noisy"]
_Small = Literal["labels", "test_labels", "groups", "fold_of_sample"]
_ARRAYS: tuple[_Array, ...] = ("images", "test_images")
_PAIRED: tuple[_Array, ...] = ("noisy", "test_noisy")  # where images have noisy ones beside them
_SMALL: tuple[_Small, ...] = ("labels", "test_labels", "groups", "fold_of_sample")


class StudyImages(TypedDict):
    """What a ``study_data.Problem`` has beside its specification; its fields are said there."""

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    test_images: np.ndarray
    test_labels: np.ndarray | None
    test_description: str
    fold_of_sample: np.ndarray
    fingerprint: str
    split_sha256: str
    class_names: tuple[str, ...] | None
    read: str
    groups: np.ndarray | None
    noisy: np.ndarray | None
    test_noisy: np.ndarray | None


def cache_folder() -> Path:
    """Folder for images of large sets: ``AESEARCH_CACHE_DIR``, or the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return user_cache() / "images"


def user_cache() -> Path:
    """Folder of this user's own for what can be had again.

    A user without a home, as in some containers, has one in the folder for temporary files.
    """
    try:
        return platformdirs.user_cache_path("aesearch", appauthor=False)
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"aesearch-{os.getuid()}"


def opened(facts: Facts) -> StudyImages | None:
    """Open the images of a study, without reading them.

    Parameters
    ----------
    facts : Facts
        Of which ``fingerprint``, ``split_sha256`` and ``n_images`` are read.

    Returns
    -------
    StudyImages or None
        What ``keep`` was given, images as maps whose pages all processes share; None where they
        are not in the cache.
    """
    folder = _folder_of(facts)
    try:
        told = json.loads((folder / "facts.json").read_text("utf-8"))
        # A private map: torch takes arrays that can be written only, and nothing writes to it.
        paired = [name for name in _PAIRED if (folder / f"{name}.npy").exists()]
        maps = {
            name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False))
            for name in (*_ARRAYS, *paired)
        }
        with np.load(folder / "rest.npz", allow_pickle=False) as rest:
            small = {name: rest.get(name, None) for name in _SMALL}
    except (OSError, ValueError):
        return None
    with suppress(OSError):
        os.utime(folder)
    names = told.pop("class_names")
    whole = {**told, **maps, **small, "class_names": None if names is None else tuple(names)}
    return cast("StudyImages", whole)


def is_mapped(array: np.ndarray | None) -> bool:
    """Whether an array lies in a file that processes share, and not in memory of its own."""
    found: Any = array
    while found is not None and not isinstance(found, np.memmap):
        found = getattr(found, "base", None)
    return found is not None


def keep(parts: StudyImages) -> StudyImages:
    """Put the images of a large set into the cache, once, and give them back as maps.

    Small sets, and those for which the disk has no room, are given back as they are.
    """
    if sum(array.nbytes for array in _arrays(parts).values()) < SMALLEST_BYTES:
        return parts
    facts: Facts = {
        "fingerprint": parts["fingerprint"],
        "split_sha256": parts["split_sha256"],
        "n_images": len(parts["images"]),
    }
    if (found := opened(facts)) is not None:
        return found
    try:
        _write(parts, _folder_of(facts))
    except OSError:
        return parts
    return opened(facts) or parts


def _arrays(parts: StudyImages) -> dict[str, np.ndarray]:
    found = {name: parts.get(name) for name in (*_ARRAYS, *_PAIRED)}
    return {name: array for name, array in found.items() if array is not None}


def _folder_of(facts: Facts) -> Path:
    named = f"{facts['fingerprint']} {facts['split_sha256']} {facts['n_images']}"
    return cache_folder() / hashlib.sha256(named.encode()).hexdigest()[:32]


def _write(parts: StudyImages, folder: Path) -> None:
    """Write all files beside each other, and give their folder its name when it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _forget_old(folder.parent)
    temporary = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        for name, array in _arrays(parts).items():
            np.save(temporary / f"{name}.npy", array)
        small: dict[str, Any] = {n: parts[n] for n in _SMALL if parts[n] is not None}
        np.savez(temporary / "rest.npz", **small)
        plain = {
            key: value for key, value in parts.items() if key not in _ARRAYS + _PAIRED + _SMALL
        }
        (temporary / "facts.json").write_text(json.dumps(plain), "utf-8")
        with suppress(FileExistsError):  # another process was first, with the same content
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _forget_old(cache: Path) -> None:
    """Remove images that no study has opened for a month."""
    for folder in cache.iterdir():
        with suppress(OSError):
            if folder.is_dir() and time.time() - folder.stat().st_mtime > _OLDEST_S:
                shutil.rmtree(folder)
