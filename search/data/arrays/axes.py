"""Which axis of an image is its channels: one rule for arrays, tables, estimators and models."""

from collections.abc import Sequence

from aesearch.studies.errors import DataError

MIN_SIDE = 8
MAX_CHANNELS = 64
_USUAL = (1, 3)
_LAYOUTS = (
    "(sample, height, width), (sample, height, width, channel) or (sample, channel, height, width)"
)


def is_channel_last(sizes: Sequence[int]) -> bool:
    """Tell whether the last of an image's three axes is its channels, or else the first.

    An axis of 1 or 3 is the channels, the first one where both ends are. Otherwise it is the end
    that leaves a square, where it is shorter than its sides; else the first.
    """
    first, middle, last = sizes
    if first in _USUAL or last in _USUAL:
        return first not in _USUAL
    return first == middle > last


def full_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    """Give (channel, height, width) of two or three sizes in either order."""
    if len(image_shape) == 2:
        return (1, image_shape[0], image_shape[1])
    first, middle, last = image_shape
    return (last, first, middle) if is_channel_last(image_shape) else (first, middle, last)


def channel_last_of(
    shape: tuple[int, ...], where: str, image_shape: Sequence[int] | None = None
) -> bool:
    """Check the shape of an array of images; tell whether the channels are its last axis.

    Parameters
    ----------
    image_shape : sequence of int, optional
        What the axes are, where their sizes leave it open.

    Raises
    ------
    DataError
        No images, no or too many channels, sides that are too short, or sizes that allow both.
    """
    if len(shape) not in (3, 4):
        remedy = "reshape flattened images to their height and width"
        if len(shape) == 2:
            remedy = (
                "say how rows are unrolled, --set data.image_shape=28x28 (image_shape=(28, 28))"
            )
        raise DataError(f"{where} must have shape {_LAYOUTS}, got {shape}; {remedy}")
    is_last = len(shape) == 4 and _is_last(shape, where, image_shape)
    height, width = shape[1:3] if len(shape) == 3 or is_last else shape[2:4]
    if min(height, width) < MIN_SIDE:
        raise DataError(
            f"{where} must hold images of at least {MIN_SIDE}x{MIN_SIDE} pixels, "
            f"got {height}x{width} (shape {shape}, read as {_LAYOUTS}); enlarge or pad them"
        )
    return is_last


def _is_last(shape: tuple[int, ...], where: str, image_shape: Sequence[int] | None) -> bool:
    sizes = shape[1:]
    if image_shape is not None and tuple(image_shape) == sizes:
        return is_channel_last(sizes)
    # A last axis of 1 or 3 can only be channels: no image is that narrow.
    if sizes[2] in _USUAL or sizes[0] in _USUAL:
        return sizes[2] in _USUAL
    ends = {True: sizes[2], False: sizes[0]}
    sides = {True: sizes[:2], False: sizes[1:]}
    possible = [
        last
        for last in (False, True)
        if ends[last] <= MAX_CHANNELS and min(sides[last]) >= MIN_SIDE
    ]
    if not possible:
        # As SVHN has them, and MATLAB.
        is_turned = sizes[1] in _USUAL and min(shape[0], sizes[0]) >= MIN_SIDE
        remedy = "put the samples first: np.moveaxis(images, -1, 0)" if is_turned else None
        raise DataError(
            f"{where} must have 1 to {MAX_CHANNELS} channels as axis 1 or 3, got shape {shape}; "
            f"{remedy or 'keep fewer channels'}"
        )
    square = [last for last in possible if sides[last][0] == sides[last][1]]
    if len(possible) == 2 and len(square) != 1:
        raise DataError(
            f"{where} must tell its channels from its sides, got shape {shape}, whose axes 1 and 3 "
            "can both be channels; say which with data.image_shape (image_shape=...), such as "
            f"{'x'.join(map(str, sizes))}, or keep one channel or three"
        )
    return (square if len(possible) == 2 else possible)[0]
