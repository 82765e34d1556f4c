"""What a reader finds: arrays as they are stored, before they become images."""

from dataclasses import dataclass
from typing import Any


# Compared by identity: arrays have no single truth value.
@dataclass(eq=False)
class Stored:
    """The parts of an image set as its files have them, of which ``make_image_set`` makes one.

    Attributes
    ----------
    images : ndarray, or rows that are read as they are asked for
    name, source : str
        As those of ``ImageSet``; empty where the reader's caller knows them.
    labels, test_images, test_labels, groups, noisy, test_noisy : ndarray or None
        Labels and groups are numbers or names.
    class_names : tuple of str or None
    """

    images: Any
    name: str = ""
    source: str = ""
    labels: Any = None
    test_images: Any = None
    test_labels: Any = None
    class_names: tuple[str, ...] | None = None
    groups: Any = None
    noisy: Any = None
    test_noisy: Any = None
