"""Labels of images: numbers, or names that become numbers; images are ``pixels``."""

from typing import Any

import numpy as np

from aesearch.data.arrays.containers import array_of
from aesearch.studies.errors import DataError


def labels_of(labels: Any, n_samples: int, where: str) -> np.ndarray:
    """Check that there is one label per sample.

    Parameters
    ----------
    labels : array
        ``(sample,)`` or ``(sample, 1)``: integers, whole floats, bool or text.
    n_samples : int
        How many images there are.
    where : str
        What the labels are called in an error.

    Returns
    -------
    ndarray, (sample,)
        int64, or text (``coded`` turns text into numbers).

    Raises
    ------
    DataError
        Another shape, another length, labels that are missing, fractional or too large.
    """
    values = _values(labels, where)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(
            f"{where} must have shape (sample,), got {values.shape}; "
            "give one class number per image"
        )
    if len(values) != n_samples:
        raise DataError(
            f"{where} must hold one label per image ({n_samples}), got {len(values)}; "
            "check that images and labels belong together"
        )
    if values.dtype.kind == "O":
        values = _plain(values, where)
    if values.dtype.kind in "SUT":
        return np.array([_text(label) for label in values.tolist()], dtype=str)
    if values.dtype.kind == "f":
        whole = np.isfinite(values) & (np.floor(values) == values)
        if not whole.all():
            first = int(np.argmin(whole))
            raise DataError(
                f"{where} must be whole numbers, got {values[first]!s} at sample {first}; "
                "give class numbers, or no labels"
            )
    elif values.dtype.kind not in "iub":
        raise DataError(
            f"{where} must be class numbers or names, got dtype {values.dtype}; convert to int64"
        )
    with np.errstate(invalid="ignore"):  # what does not fit is told just below
        numbers = np.ascontiguousarray(values, dtype=np.int64)
    unlike = (numbers != values) | ((numbers < 0) != (values < 0))
    if unlike.any():
        first = int(np.argmax(unlike))
        raise _too_large(values[first], first, where)
    return numbers


def _too_large(label: Any, index: int, where: str) -> DataError:
    return DataError(
        f"{where} must be whole numbers of 64 bits, got {label!s:.40} at sample {index}; "
        "make them text: [str(label) for label in labels]"
    )


def groups_of(groups: Any, n_samples: int, where: str) -> np.ndarray:
    """Number the groups that images belong to, in sorted order.

    Returns
    -------
    ndarray of int64, (sample,)

    Raises
    ------
    DataError
        As ``labels_of``, and where all images are one group.
    """
    values = labels_of(groups, n_samples, where)
    kinds, numbers = np.unique(values, return_inverse=True)
    if len(kinds) < 2:
        raise DataError(
            f"{where} must tell images apart, got one group for all; leave the groups out"
        )
    return np.asarray(numbers, dtype=np.int64).reshape(-1)


def _values(labels: Any, where: str) -> np.ndarray:
    """Bring labels into NumPy; names and categories as Python objects."""
    if hasattr(labels, "detach") or isinstance(labels, np.ma.MaskedArray):
        return array_of(labels, where)
    try:
        values = np.asarray(labels)
    except ValueError as error:
        raise DataError(
            f"{where} must have shape (sample,), got lists of several lengths; "
            "give one class number or name per image"
        ) from error
    if values.dtype.kind in "US" and isinstance(labels, list | tuple):
        # NumPy makes text of numbers that stand beside text.
        return np.asarray(labels, dtype=object)
    return values


def _plain(values: np.ndarray, where: str) -> np.ndarray:
    """Give labels that came as Python objects a type: text or whole numbers.

    Raises
    ------
    DataError
        One that is missing, too large, or of another kind than the rest.
    """
    labels = values.tolist()
    for index, label in enumerate(labels):
        if not isinstance(label, str | bytes | bool | int | float) or label != label:  # noqa: PLR0124 - NaN
            raise DataError(
                f"{where} must be class numbers or names, got {label!r:.40} at sample {index}; "
                "fill it, or drop that image"
            )
        if isinstance(label, int) and not -(2**63) <= label < 2**63:
            raise _too_large(label, index, where)
    if all(isinstance(label, str | bytes) for label in labels):
        return np.array([_text(label) for label in labels], dtype=str)
    if any(isinstance(label, str | bytes) for label in labels):
        text = next(label for label in labels if isinstance(label, str | bytes))
        number = next(label for label in labels if not isinstance(label, str | bytes))
        raise DataError(
            f"{where} must be all numbers or all names, got {text!r:.40} beside {number!r}; "
            "make them all text: [str(label) for label in labels]"
        )
    return np.array(labels)


def _text(label: str | bytes) -> str:
    """Text of a label that any file takes; what is no UTF-8 keeps what can be read."""
    if isinstance(label, str):
        return label.encode("utf-8", "backslashreplace").decode("utf-8")
    return label.decode("utf-8", "backslashreplace")


def coded(
    labels: np.ndarray | None, test_labels: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...] | None]:
    """Replace textual labels by their rank, the same in both parts; numbers stay.

    Returns
    -------
    labels, test_labels : ndarray of int64, (sample,), or None
    class_names : tuple of str or None
        The names in the order of their numbers; None where the labels were numbers.
    """
    parts = [part for part in (labels, test_labels) if part is not None]
    if not any(part.dtype.kind == "U" for part in parts):
        return labels, test_labels, None
    texts = [part.astype(str) for part in parts]
    names = np.unique(np.concatenate(texts))
    numbers = iter([np.searchsorted(names, text).astype(np.int64) for text in texts])
    return (
        None if labels is None else next(numbers),
        None if test_labels is None else next(numbers),
        tuple(str(name) for name in names),
    )
