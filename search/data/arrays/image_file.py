"""One image file as 8-bit pixels: modes, depths, transparency, pages; many are ``image_files``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from aesearch.data.arrays.transform import level_of
from aesearch.studies.errors import DataError
from aesearch.studies.spec.sections import DataSpec

_GREY_MODES = ("1", "L", "LA", "La")
_WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_ORIENTATION = 0x0112  # of Exif
# What brings its values upright, as members of PIL's Image.Transpose.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_SIDEWAYS = (5, 6, 7, 8)
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL, _EXTRA_SAMPLES = 258, 277, 338  # of TIFF
_LISTED = 20
_DEEP = (
    "give the value that is white, --set data.white=65535 (4095 for 12 bits), or convert to 8 bits"
)


class BadFileError(DataError):
    """A file that is not read, with what it must be, what it is, and what helps.

    Attributes
    ----------
    file : Path
    rule, found, remedy : str
    """

    def __init__(self, file: Path | str, rule: str, found: str, remedy: str) -> None:
        self.file, self.rule, self.found, self.remedy = file, rule, found, remedy
        super().__init__(f"{file} must {rule}, got {found}; {remedy}")


class Header(NamedTuple):
    """What a file says of itself before its pixels are read.

    Attributes
    ----------
    height, width : int
        Upright.
    n_pages : int
    kind : {"grey", "colour", "either", "many"}
        ``either``: only its pixels tell, as those of a palette. ``many``: any other number of
        channels.
    """

    height: int
    width: int
    n_pages: int
    kind: str


@dataclass(frozen=True, eq=False)
class Decoded:
    """The pixels of one file.

    Attributes
    ----------
    images : list of ndarray of uint8, (height, width, channel)
        One, or as many as there are pages.
    n_further : int
        Pages that were left out.
    is_composed : bool
        Whether transparent pixels were laid on the background.
    """

    images: list[np.ndarray]
    n_further: int
    is_composed: bool


def header_of(file: Path, how: DataSpec) -> Header:
    """Open a file without reading its pixels.

    Raises
    ------
    BadFileError
        It is no image, or is stored in a way that cannot be read without loss.
    """
    if (tiff := _unknown_tiff(file)) is not None:
        return tiff
    with _opened(file) as image:
        _check_depth(image, file, how)
        turn = image.getexif().get(_ORIENTATION, 1)
        width, height = image.size[::-1] if turn in _SIDEWAYS else image.size
        n_pages = getattr(image, "n_frames", 1)
        if how.pages == "channels" and n_pages > 1:
            kind = "many"
        elif image.mode in (*_GREY_MODES, *_WIDE_MODES, "F"):
            kind = "grey"
        elif image.mode in ("P", "PA"):
            kind = "either"
        else:
            kind = "many" if _n_samples(image) else "colour"
        return Header(height, width, n_pages, kind)


def decoded(file: Path, how: DataSpec) -> Decoded:
    """Read a file upright, as ``(height, width, channel)`` uint8.

    Raises
    ------
    BadFileError
        As ``header_of``, and where its pixels are damaged or not in 0..``data.white``.
    """
    if (tiff := _unknown_tiff(file)) is not None:
        return Decoded(
            [_scaled(_tiff_page(file, 0), file, how)], tiff.n_pages - 1, is_composed=False
        )
    with _opened(file) as image:
        _check_depth(image, file, how)
        n_pages = getattr(image, "n_frames", 1)
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
        pages, is_composed = [], False
        for number in range(n_pages if how.pages != "first" else 1):
            if number:
                image.seek(number)
            page, is_laid = _page(image, turn, file, how, number)
            pages.append(page)
            is_composed |= is_laid
        n_further = n_pages - len(pages)
        if how.pages == "channels" and n_pages > 1:
            if len({page.shape[:2] for page in pages}) > 1:
                raise BadFileError(
                    file,
                    "have pages of one size to be channels",
                    f"{len(pages)} pages of several",
                    "say --set data.pages=images",
                )
            pages = [np.concatenate(pages, axis=2)]
        return Decoded(pages, n_further, is_composed)


def channels_of(image: Any, file: Path | str, how: DataSpec) -> tuple[np.ndarray, bool]:
    """Bring any mode of PIL to one or three 8-bit channels, and say whether it was transparent.

    Returns
    -------
    pixels : ndarray of uint8, (height, width, channel)
    is_composed : bool
        Whether a transparent pixel was laid on ``data.background``.
    """
    if image.mode in (*_WIDE_MODES, "F"):
        return _scaled(np.asarray(image), file, how)[..., np.newaxis], False
    is_palette = image.mode in ("P", "PA")
    if is_palette or image.mode in ("RGBA", "RGBa", "LA", "La") or "transparency" in image.info:
        grey = image.mode in _GREY_MODES
        values = np.asarray(image.convert("LA" if grey else "RGBA"))
        pixels, alpha = values[..., :-1], values[..., -1:]
        is_composed = bool((alpha < 255).any())
        if is_composed:
            share = alpha / np.float64(255)
            laid = pixels * share + level_of(how.background) * (1 - share)
            pixels = np.rint(laid).astype(np.uint8)
        # A palette of greys is how GIF and small PNG store greyscale.
        if is_palette and (pixels == pixels[..., :1]).all():
            pixels = pixels[..., :1]
        return _in_range(pixels, file, how), is_composed
    if image.mode in _GREY_MODES:
        return _in_range(np.asarray(image.convert("L"))[..., np.newaxis], file, how), False
    try:
        return _in_range(np.asarray(image.convert("RGB")), file, how), False
    except ValueError as error:
        raise BadFileError(
            file, "be grey or in colours", f"mode {image.mode}", "convert it to RGB"
        ) from error


def _in_range(pixels: np.ndarray, file: Path | str, how: DataSpec) -> np.ndarray:
    return pixels if how.white in (None, 255) else _scaled(pixels, file, how)


def _scaled(values: np.ndarray, file: Path | str, how: DataSpec) -> np.ndarray:
    """Map 0..white to 0..255; integers in 0..255 stay where nothing is said."""
    is_float = values.dtype.kind == "f"
    if how.white is None and is_float:
        raise BadFileError(
            file,
            "hold 8-bit intensities",
            f"floats from {values.min():g} to {values.max():g}",
            "give the value that is white, for example --set data.white=1, or convert it to 8 bits",
        )
    white = 255 if how.white is None else how.white
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if not (low >= -1e-6 * white and high <= white * (1 + 1e-6)):
        rule = (
            "8-bit intensities in 0..255" if how.white is None else f"intensities in 0..{white:g}"
        )
        raise BadFileError(
            file,
            f"hold {rule}",
            f"values from {low:g} to {high:g}",
            _DEEP if how.white is None else "give another data.white",
        )
    if white == 255 and not is_float:
        return values.astype(np.uint8)
    return np.rint(np.clip(values / np.float64(white), 0, 1) * 255).astype(np.uint8)


def _page(
    image: Any, turn: str | None, file: Path, how: DataSpec, number: int
) -> tuple[np.ndarray, bool]:
    """Read the page that an image stands at."""
    if how.white is not None and _bits(image, file) > 8 and image.mode not in (*_WIDE_MODES, "F"):
        return _without_alpha(_deep_colours(image, file, number), image.mode, file, how)
    if _n_samples(image):
        return _scaled(_tiff_page(file, number), file, how), False
    upright = image if turn is None else image.transpose(Image.Transpose[turn])
    return channels_of(upright, file, how)


def _without_alpha(
    values: np.ndarray, mode: str, file: Path, how: DataSpec
) -> tuple[np.ndarray, bool]:
    """Scale deep colours, and lay them on the background where the last channel is alpha."""
    if mode not in ("LA", "RGBA"):
        return _scaled(values, file, how), False
    share = values[..., -1:] / np.float64(np.iinfo(values.dtype).max)
    pixels = _scaled(values[..., :-1], file, how)
    laid = np.rint(pixels * share + level_of(how.background) * (1 - share)).astype(np.uint8)
    return laid, bool((share < 1).any())


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a file by PIL; whatever that raises becomes a ``BadFileError``."""
    try:
        if file.stat().st_size == 0:
            found = "an empty file (0 bytes)"
            raise BadFileError(file, "be an image", found, "copy it again")
        with Image.open(file) as image:
            yield image
    except DataError:
        raise
    # What PIL raises for a damaged file depends on the format; SyntaxError is its own.
    except (
        OSError,
        ValueError,
        EOFError,
        SyntaxError,
        LookupError,
        Image.DecompressionBombError,
    ) as error:
        raise _bad(file, error) from error


def _bad(file: Path, error: Exception) -> BadFileError:
    """Say why a file was not read, and what helps."""
    if isinstance(error, FileNotFoundError):
        return BadFileError(file, "stay where it was found", "nothing there", "put it back")
    if isinstance(error, PermissionError):
        return BadFileError(file, "be readable", "permission denied", "let this user read it")
    what = f"{error} ({file.stat().st_size:,} bytes)"
    if isinstance(error, UnidentifiedImageError):
        if (instead := _no_image(file)) is not None:
            return BadFileError(file, "be an image", *instead)
        remedy = "where other programs open it, convert it to PNG; else copy it again"
        return BadFileError(file, "be a readable image", what, remedy)
    if isinstance(error, Image.DecompressionBombError):
        return BadFileError(file, "be of a size that is sure to fit", str(error), "shrink it")
    return BadFileError(file, "be a readable image", what, "it is damaged: copy it again")


def _no_image(file: Path) -> tuple[str, str] | None:
    """Tell by its first bytes what a file is in the place of an image, and what helps."""
    with file.open("rb") as stream:
        head = stream.read(200).lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS", "fetch the file itself: git lfs pull"
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page", "download the image again"
    return None


def _check_depth(image: Any, file: Path, how: DataSpec) -> None:
    """Refuse what PIL would cut to its high byte without a word."""
    if how.white is None and image.mode not in (*_WIDE_MODES, "F") and _bits(image, file) > 8:
        raise BadFileError(
            file,
            "hold 8-bit intensities",
            f"{_bits(image, file)} bits in each of its channels (mode {image.mode})",
            _DEEP,
        )


def _bits(image: Any, file: Path) -> int:
    """How many bits a channel has in the file, where PIL does not keep them all."""
    if image.format == "PNG":
        with file.open("rb") as stream:
            return stream.read(25)[24]
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))))
    if image.format == "SGI":
        with file.open("rb") as stream:
            return 8 * stream.read(4)[3]
    if image.format == "JPEG2000":
        with file.open("rb") as stream:
            head = stream.read(4096)
        at = head.find(b"\xff\x4f\xff\x51")
        # Ssiz of the first component: 40 bytes behind the marker of the image's size.
        return (head[at + 42] & 0x7F) + 1 if 0 <= at < len(head) - 42 else 8
    return 8


def _n_samples(image: Any) -> int:
    """How many channels a TIFF has, where PIL would drop some of them; 0 for all others."""
    if image.format != "TIFF":
        return 0
    n_samples = int(image.tag_v2.get(_SAMPLES_PER_PIXEL, 1))
    extra = image.tag_v2.get(_EXTRA_SAMPLES, ())
    unsaid = [kind for kind in extra if kind not in (1, 2)]  # neither kind of alpha
    return n_samples if unsaid or n_samples > 5 else 0


def _deep_colours(image: Any, file: Path, number: int) -> np.ndarray:
    """Read all bits of a colour image: (height, width, channel)."""
    if image.format == "TIFF":
        return _tiff_page(file, number)
    if image.format != "PNG":
        raise BadFileError(file, "be PNG or TIFF for more than 8 bits", str(image.format), _DEEP)
    return _deep_png(file)


def _deep_png(file: Path) -> np.ndarray:
    """Read a PNG of 16 bits a channel: (height, width, channel), uint16.

    Pillow's colours have 8 bits. Its decoder gives the high bytes, or when it is told that the
    low ones come first the low bytes; of grey with alpha all four bytes fit into one mode.
    """
    raw = _raw_mode(file)
    if raw == "LA;16B":
        return np.ascontiguousarray(_decoded_as(file, "RGBA")).view(">u2").astype(np.uint16)
    high, low = _decoded_as(file, raw), _decoded_as(file, raw.replace(";16B", ";16L"))
    values: np.ndarray = high.astype(np.uint16) << 8 | low
    return values


def _raw_mode(file: Path) -> str:
    """How Pillow takes the bytes of a file: ``RGB;16B``, say."""
    with Image.open(file) as image:
        return str(image.tile[0].args)


def _decoded_as(file: Path, raw_mode: str) -> np.ndarray:
    with Image.open(file) as image:
        image.tile = [image.tile[0]._replace(args=raw_mode)]
        return np.asarray(image)


def _unknown_tiff(file: Path) -> Header | None:
    """Open a TIFF that PIL has no mode for, of five channels, say; None for all other files."""
    if file.suffix.lower() not in (".tif", ".tiff"):
        return None
    try:
        with file.open("rb") as stream:
            if stream.read(4) not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                return None
        with Image.open(file):
            return None
    except UnidentifiedImageError:
        return _tiff_header(file)
    except (OSError, ValueError, SyntaxError, LookupError):
        return None  # said better where it is read


def _tiff_header(file: Path) -> Header:
    with _tiff(file) as stream:
        page = stream.pages[0]
        height, width = page.shape[1:3] if _is_planar(page) else page.shape[:2]
        return Header(height, width, len(stream.pages), "many")


@contextmanager
def _tiff(file: Path) -> Iterator[Any]:
    """Open a file by tifffile, which is an extra."""
    try:
        import tifffile  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise BadFileError(
            file,
            "have channels that Pillow reads (1, 3 or 4 of 8 bits) where tifffile is missing",
            "others",
            "install the extra: pip install 'aesearch[tiff]'",
        ) from error
    try:
        with tifffile.TiffFile(file) as stream:
            yield stream
    except (OSError, ValueError, LookupError, tifffile.TiffFileError) as error:
        raise _bad(file, error) from error


def _is_planar(page: Any) -> bool:
    return len(page.shape) == 3 and int(page.planarconfig) == 2


def _tiff_page(file: Path, number: int) -> np.ndarray:
    """Read one page of a TIFF with all its channels and bits: (height, width, channel)."""
    with _tiff(file) as stream:
        page = stream.pages[number]
        values = np.asarray(page.asarray())
        if values.ndim == 2:
            return values[..., np.newaxis]
        return np.moveaxis(values, 0, 2) if _is_planar(page) else values


def problems_text(where: str, bad: Sequence[BadFileError]) -> str:
    """Say what is wrong with one file, or list what is wrong with several."""
    skip = "or leave {} out: --bad-files skip"
    if len(bad) == 1:
        return f"{bad[0]}; {skip.format('it')}"
    lines = [f"{where} must hold images that can be read, got {len(bad):,} bad files:"]
    lines += [f"  - {error.file} must {error.rule}, got {error.found}" for error in bad[:_LISTED]]
    if len(bad) > _LISTED:
        lines.append(f"  - and {len(bad) - _LISTED:,} more")
    remedies = list(dict.fromkeys(error.remedy for error in bad))[:3]
    return "\n".join([*lines, "; ".join([*remedies, skip.format("them")])])
