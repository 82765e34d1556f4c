"""What a study trains on: images, folds and test set, the same in every process; no training."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from aesearch import __version__
from aesearch.data import cache
from aesearch.data.load import load as load_images
from aesearch.data.split import folds, holdout, limited, split_hash, split_test
from aesearch.models.runtime import has_fast_bfloat16
from aesearch.seeds import derive_seed
from aesearch.studies.errors import DataError, StudyMismatchError
from aesearch.studies.results.records import Facts
from aesearch.studies.spec.resolved import ResolvedSpec, resolve
from aesearch.studies.spec.study import StudySpec

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Problem:
    """Images and splits of one study.

    Attributes
    ----------
    spec : ResolvedSpec
    asked : StudySpec
        As it was given.
    images : ndarray, (sample, channel, height, width), uint8
        What is searched and retrained on; the test set is not in it.
    test_images : ndarray, (sample, channel, height, width), uint8
        Looked at once, by the retrained winner.
    labels, test_labels : ndarray or None, (sample,)
    class_names : tuple of str or None
        What label 0, 1, ... is called.
    fold_of_sample : ndarray, (sample,)
        Which fold holds each image out.
    read : str
        One line: what was read, and what was left out.
    groups : ndarray of int64, (sample,), or None
        Which images are never on both sides of a split.
    noisy, test_noisy : ndarray, of the shape of ``images`` and ``test_images``, uint8, or None
        What networks see in the place of each image, which they are to give back; None where
        they see the images themselves.
    """

    spec: ResolvedSpec
    asked: StudySpec
    name: str
    images: np.ndarray
    labels: np.ndarray | None
    test_images: np.ndarray
    test_labels: np.ndarray | None
    test_description: str
    fold_of_sample: np.ndarray
    fingerprint: str
    split_sha256: str
    class_names: tuple[str, ...] | None = None
    read: str = ""
    groups: np.ndarray | None = None
    noisy: np.ndarray | None = None
    test_noisy: np.ndarray | None = None

    @property
    def inputs(self) -> np.ndarray:
        """What networks see: the noisy images, or where there are none the images."""
        return self.images if self.noisy is None else self.noisy

    @property
    def test_inputs(self) -> np.ndarray:
        """What networks see of the test set."""
        return self.test_images if self.test_noisy is None else self.test_noisy

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channel, height, width."""
        channel, height, width = self.images.shape[1:]
        return channel, height, width

    def fold_indices(self, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """Image numbers a fold trains on, and those it validates on, both ascending."""
        held_out = self.fold_of_sample == fold
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def delivery_indices(self, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """Image numbers that a network of a fold trains on, and those that stop it early.

        Both are of the fold's training part, split as the retraining splits all images: the
        images that the fold holds out are seen by neither.
        """
        outside, _ = self.fold_indices(fold)
        seed = derive_seed(self.spec.seed, "fold-holdout", fold)
        groups = None if self.groups is None else self.groups[outside]
        train, inner = holdout(len(outside), self.spec.retrain.holdout, seed, groups)
        return outside[train], outside[inner]

    def holdout_indices(self) -> tuple[np.ndarray, np.ndarray]:
        """Image numbers the retraining trains on, and those that stop it early."""
        share, seed = self.spec.retrain.holdout, self.spec.seed
        return holdout(len(self.images), share, seed, self.groups)

    def facts(self) -> Facts:
        """What the store keeps beside the spec to recognise the data and the split again."""
        n_validation = int((self.fold_of_sample == 0).sum())
        return {
            "dataset": self.name,
            "read": self.read,
            "image_shape": list(self.image_shape),
            "n_images": len(self.images),
            "n_test": len(self.test_images),
            "test_set": self.test_description,
            "n_train_per_fold": len(self.images) - n_validation,
            "n_validation_per_fold": n_validation,
            "fingerprint": self.fingerprint,
            "split_sha256": self.split_sha256,
            "versions": versions(),
        }


def versions() -> dict[str, str]:
    """Return the versions that a number may depend on."""
    names = ("torch", "optuna", "numpy", "scikit-learn")
    return {"aesearch": __version__} | {name: version(name) for name in names}


def load_problem(
    spec: StudySpec,
    *,
    device: str,
    progress: Progress | None = None,
    facts: Facts | None = None,
) -> Problem:
    """Load the images of a spec, split them, and resolve the spec for this size and device.

    Parameters
    ----------
    device : {"cpu", "cuda"}
        Where the study trains; decided by the caller.
    facts : Facts, optional
        Of the stored study with this spec: its images are opened in the cache where they are
        there, instead of being read again.

    Raises
    ------
    DataError
        The images are missing or cannot be used, or are too few for the folds.
    """
    parts = None if facts is None else cache.opened(facts)
    if parts is None:
        parts = cache.keep(_read(spec, progress))
    images = parts["images"]
    resolved = resolve(
        spec,
        image_shape=(int(images.shape[1]), int(images.shape[2]), int(images.shape[3])),
        n_train=len(images),
        device=device,
        fast_bfloat16=has_fast_bfloat16(),
    )
    return Problem(spec=resolved, asked=spec, **parts)


def _read(spec: StudySpec, progress: Progress | None) -> cache.StudyImages:
    """Read and split images."""
    found = load_images(spec.data.dataset, spec.data.data_dir, progress=progress, how=spec.data)
    parts = split_test(
        found,
        test_fraction=spec.data.test_fraction,
        seed=spec.seed,
        stratify=spec.data.stratify,
    )
    images, labels, groups = parts.train_images, parts.train_labels, parts.train_groups
    noisy = parts.train_noisy
    if spec.data.limit is not None and spec.data.limit < len(images):
        kept = limited(len(images), labels, spec.data.limit)
        images = images[kept]
        labels = None if labels is None else labels[kept]
        groups = None if groups is None else groups[kept]
        noisy = None if noisy is None else noisy[kept]
    if len(images) < 2 * spec.search.folds:
        raise DataError(
            f"{found.source} must hold at least two images per fold, got {len(images)} for "
            f"{spec.search.folds} folds; use fewer folds or more images"
        )
    fold_of_sample = folds(
        len(images),
        spec.search.folds,
        spec.seed,
        labels=labels,
        groups=groups,
        stratify=spec.data.stratify,
    )
    return {
        "name": found.name,
        "images": images,
        "labels": labels,
        "test_images": parts.test_images,
        "test_labels": parts.test_labels,
        "test_description": parts.description,
        "fold_of_sample": fold_of_sample,
        "fingerprint": found.fingerprint,
        "split_sha256": split_hash(fold_of_sample, parts.test_indices),
        "class_names": found.class_names,
        "read": found.described,
        "groups": groups,
        "noisy": noisy,
        "test_noisy": parts.test_noisy,
    }


def check_same_data(problem: Problem, facts: Facts, name: str) -> None:
    """Refuse to go on with other images or another split than the study was made with.

    Raises
    ------
    StudyMismatchError
    """
    for what, mine, stored in (
        ("images", problem.fingerprint, facts["fingerprint"]),
        ("split", problem.split_sha256, facts["split_sha256"]),
    ):
        if mine != stored:
            raise StudyMismatchError(
                f"study {name!r} must go on with the {what} it was made with "
                f"(sha256 {stored[:12]}…), got {what} with sha256 {mine[:12]}…; "
                "give those back; other images are another study"
            )
