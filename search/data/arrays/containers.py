"""What Python keeps images in, as one array: tensors, masked arrays, PIL images, datasets."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from aesearch.data.arrays.image_file import BadFileError, channels_of
from aesearch.data.arrays.transform import in_channels, is_grey, resized
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec


def array_of(array_like: Any, where: str) -> np.ndarray:
    """Bring an array, a tensor on any device or nested lists into NumPy; object arrays never.

    Raises
    ------
    DataError
        Ragged lists, masked values, or anything that NumPy can only hold as Python objects.
    """
    values: np.ndarray
    if isinstance(array_like, list | tuple) and array_like and hasattr(array_like[0], "detach"):
        array_like = [array_of(tensor, where) for tensor in array_like]
    if hasattr(array_like, "detach"):
        try:
            values = _from_tensor(array_like)
        except (RuntimeError, TypeError) as error:  # nested, quantized, without data, ...
            raise DataError(
                f"{where} must be a plain tensor, got {str(error).splitlines()[0]}; make it one "
                "of numbers first"
            ) from error
    else:
        values = _from_python(array_like, where)
        _refuse_single(values, array_like, where)
    if values.dtype == object:
        kinds = sorted({type(value).__name__ for value in values.reshape(-1)[:100]})
        raise DataError(
            f"{where} must hold numbers, got an array of Python objects of shape {values.shape} "
            f"({', '.join(kinds[:3])}); make all images the same size and store them as uint8"
        )
    return values


def _from_tensor(tensor: Any) -> np.ndarray:
    """Copy a torch tensor, recognised without importing torch."""
    tensor = tensor.detach().cpu()
    if getattr(tensor, "is_nested", False) or getattr(tensor, "is_quantized", False):
        raise TypeError("a nested one" if tensor.is_nested else "a quantized one")
    if str(getattr(tensor, "layout", "torch.strided")) != "torch.strided":
        tensor = tensor.to_dense()
    try:
        values: np.ndarray = tensor.numpy()
    except TypeError:  # bfloat16 has no NumPy type
        values = tensor.float().numpy()
    return values


def _refuse_single(values: np.ndarray, given: Any, where: str) -> None:
    """Raise DataError for what holds no images: one value, nothing, or text."""
    rule = f"{where} must be an array, a tensor, a list of images or a dataset"
    if values.ndim == 0:
        remedy = "make a list of its images"
        if isinstance(given, str | bytes | PurePath):
            remedy = "a path is given as dataset"
        raise DataError(f"{rule}, got {type(given).__name__}; {remedy}")
    if values.ndim == 1 and not values.size:
        raise DataError(f"{rule}, got none in a {type(given).__name__}; give some")
    first = values[0] if values.ndim == 1 else None
    if isinstance(first, str | bytes | PurePath):
        raise DataError(
            f"{rule}, got text, {str(first)[:40]!r}; open image files first, "
            "[Image.open(path) for path in paths], or give their folder as dataset"
        )


def as_list(given: Any) -> Any:
    """Give a column of Python objects, such as a Series of images, as a list; all else as it is."""
    is_column = getattr(given, "ndim", None) == 1 and str(getattr(given, "dtype", "")) == "object"
    return list(given) if is_column else given


def is_pairs(given: Any) -> bool:
    """Whether this is a list of (image, label)."""
    first = given[0] if isinstance(given, list) and given else None
    return (
        isinstance(first, tuple)
        and len(first) == 2
        and (_is_picture(first[0]) or getattr(first[0], "ndim", 0) >= 2)
        and not _is_picture(first[1])
        and getattr(first[1], "ndim", 0) == 0
    )


def _from_python(array_like: Any, where: str) -> np.ndarray:
    if hasattr(array_like, "toarray") and hasattr(array_like, "nnz"):
        return np.asarray(array_like.toarray())  # of scipy.sparse
    if isinstance(array_like, np.ma.MaskedArray):
        n_masked = int(np.ma.getmaskarray(array_like).sum())
        if n_masked:
            raise DataError(
                f"{where} must have a value in every place, got {n_masked} masked ones; fill them "
                "first, for example array.filled(0)"
            )
        return np.asarray(array_like.data)
    try:
        return np.asarray(array_like)
    except ValueError as error:
        raise DataError(
            f"{where} must be one array with a single shape, got {error}; "
            "make all images the same size"
        ) from error


def is_dataset(given: Any) -> bool:
    """Whether this is a ``torch.utils.data.Dataset`` or the like: items by number, no array."""
    return (
        hasattr(given, "__getitem__")
        and not hasattr(given, "detach")
        and not isinstance(given, list | tuple | dict | str | bytes)
        and not hasattr(given, "shape")
        and not hasattr(given, "dtype")
        and not hasattr(given, "columns")
    )


def items_of(dataset: Any, where: str) -> tuple[list[Any], list[Any] | None]:
    """Read every item of a dataset: its images, and its labels where items are pairs.

    Raises
    ------
    DataError
        A DataLoader, a dataset without a length, or items that are something else.
    """
    if not hasattr(dataset, "__len__"):
        raise DataError(
            f"{where} must be a dataset with a length, got {type(dataset).__name__}; "
            "collect its images in a list"
        )
    images, labels = [], []
    for index in range(len(dataset)):
        item = dataset[index]
        if isinstance(item, dict):
            raise DataError(
                f"{where} must give an image or (image, label) for each number, got a dict with "
                f"{', '.join(map(str, list(item)[:5]))}; make a list of its images"
            )
        if isinstance(item, tuple | list):
            images.append(item[0])
            labels.append(item[1] if len(item) > 1 else None)
        else:
            images.append(item)
    if len(labels) != len(images) or any(label is None for label in labels):
        return images, None
    return images, [_plain(label) for label in labels]


def _plain(label: Any) -> Any:
    return label.item() if hasattr(label, "item") and getattr(label, "ndim", 1) == 0 else label


def refuse_loader(given: Any, where: str) -> None:
    """Raise DataError for a DataLoader, whose order and batches are its own."""
    if hasattr(given, "dataset") and hasattr(given, "batch_size"):
        raise DataError(
            f"{where} must be an array or a dataset, got a {type(given).__name__}; give its "
            "dataset: loader.dataset"
        )


def pictures_of(given: Any, where: str, how: DataSpec) -> np.ndarray | None:
    """Bring a list of PIL images of any modes to one array; None for anything else.

    Returns
    -------
    ndarray of uint8, (sample, height, width, channel), or None
        Three channels where any image shows colours or all are stored in colours, else one.
    """
    if not isinstance(given, list | tuple) or not given or not _is_picture(given[0]):
        return None
    found: list[np.ndarray] = []
    for index, picture in enumerate(given):
        name = f"{where}[{index}]"
        if not _is_picture(picture):
            raise DataError(
                f"{name} must be a PIL image like {where}[0], got {type(picture).__name__}; "
                "give images of one kind"
            )
        try:
            pixels, _ = channels_of(picture, name, how)
        except BadFileError as error:
            raise DataError(str(error)) from error
        found.append(pixels if how.resize is None else resized(pixels, how.resize, how.background))
    sizes = [image.shape[:2] for image in found]
    odd = next((index for index, size in enumerate(sizes) if size != sizes[0]), None)
    if odd is not None:
        raise DataError(
            f"{where}[{odd}] must have the size of {where}[0], {sizes[0][1]}x{sizes[0][0]}, got "
            f"{sizes[odd][1]}x{sizes[odd][0]}; bring them to one size with resize=SIDE"
        )
    n_channels = _n_channels(found, how)
    return np.stack([_in(image, n_channels, how) for image in found])


def _n_channels(images: Sequence[np.ndarray], how: DataSpec) -> int:
    if how.colour != "auto":
        return 1 if how.colour == "grey" else 3
    coloured = [image for image in images if image.shape[2] == 3]
    is_colour = len(coloured) == len(images) or any(not is_grey(image) for image in coloured)
    return 3 if is_colour else 1


def _in(image: np.ndarray, n_channels: int, how: DataSpec) -> np.ndarray:
    found = in_channels(image, n_channels, how.colour)
    assert found is not None, "one channel only where there are no colours"
    return found


def _is_picture(given: Any) -> bool:
    return hasattr(given, "getbands") and hasattr(given, "convert")
