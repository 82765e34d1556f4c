"""Checking the size of idx files, MNIST's format; reading them is torchvision's work."""

import math
from pathlib import Path

from aesearch.studies.errors import DataError

# Third byte of the file -> bytes per value.
_ITEM_BYTES = {8: 1, 9: 1, 11: 2, 12: 4, 13: 4, 14: 8}


def check_idx(path: Path) -> None:
    """Check that a file is as long as its header says.

    torchvision answers a damaged one with a bare AssertionError, or takes it.

    Raises
    ------
    DataError
        Not an idx file, or one with bytes missing or to spare; says how many.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(4)
        is_idx = len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in _ITEM_BYTES
        n_axes = magic[3] if is_idx else 0
        header = file.read(4 * n_axes)
    remedy = "delete it and fetch it again, or copy it again"
    if not 1 <= n_axes <= 3 or len(header) != 4 * n_axes:
        raise DataError(
            f"{path} must start with an idx header, got {size} bytes that start with "
            f"{(magic + header)[:16].hex() or 'nothing'}; {remedy}"
        )
    shape = [int.from_bytes(header[4 * axis : 4 * axis + 4], "big") for axis in range(n_axes)]
    expected = 4 + 4 * n_axes + math.prod(shape) * _ITEM_BYTES[magic[2]]
    if size != expected:
        raise DataError(
            f"{path} must be {expected} bytes long, as its header of shape {tuple(shape)} says, "
            f"got {size}; {remedy}"
        )
