"""From INPUT through the model to OUTPUT, batch by batch: what the commands do."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aesearch.artifacts import model_file
from aesearch.artifacts.model_path import find_model
from aesearch.data.notes import shown
from aesearch.evaluation.metrics import squared_errors
from aesearch.inference.functions import between, check_pairs
from aesearch.inference.inputs import PARTS, Input, open_input
from aesearch.inference.layouts import Layout, from_channel_first, layout_of, shape_in
from aesearch.inference.network import array, batches, check_batch_size, denormals_flushed, ready
from aesearch.inference.outputs import (
    Add,
    Kind,
    folder_output,
    kind_of,
    npy_output,
    npz_output,
    png_output,
    table_output,
)
from aesearch.inference.reading import reading_of
from aesearch.inference.scores import p_values
from aesearch.models.autoencoder import Autoencoder
from aesearch.options import OptionError
from aesearch.studies.results.output_files import check_output
from aesearch.terminal.display import make_display

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """What goes through which model, and where to.

    Attributes
    ----------
    batch_size : int or None
        Samples at once; None for what a few dozen megabytes hold.
    device : str or None
        ``auto``, ``cpu``, ``cuda``; None for where the model is.
    tell : callable(done, all)
        Told after every batch; may raise to stop.
    """

    model: Autoencoder
    images: Input
    path: Path
    kind: Kind
    batch_size: int | None
    device: str | None
    tell: Tell

    @property
    def image_layout(self) -> Layout:
        """Axes of images in an output array: those of an input array, else channel first."""
        if self.images.files:
            return "channel_first"
        return layout_of(self.images.shape, self.model.image_shape, self.images.source)


@contextmanager
def open_job(
    model: str,
    images: str,
    output: str,
    *,
    part: str,
    data_dir: Path | None,
    pictures: bool,
    batch_size: int | None = None,
    device: str,
    force: bool,
    quiet: bool,
) -> Iterator[Job]:
    """Check and open what a command names; nothing is read before the output is known to be fine.

    Parameters
    ----------
    model : str
        A model file, the run folder or the best.yaml that it lies beside.
    images, part, data_dir
        As ``open_input`` is told them.
    output : str
        What it is to be goes by its name.
    pictures : bool
        Whether the results are images.
    force : bool
        Replace an output that exists.

    Raises
    ------
    AesearchError
        One of them cannot be meant, read or written.
    """
    if part not in PARTS:
        raise OptionError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
    path = Path(output).expanduser()
    if not path.name:
        path = path.resolve()
    source = Path(images).expanduser()
    if path.exists() and source.exists() and path.samefile(source):
        raise OptionError(f"OUTPUT must not be INPUT, got {output!r} for both; name another")
    kind = kind_of(path, is_folder=output.endswith(("/", os.sep)), pictures=pictures)
    check_output(path, is_folder=kind == "folder", force=force)
    network = model_file.load(model)
    with denormals_flushed(), make_display(quiet=quiet) as display:
        found = open_input(
            images,
            part=part,
            data_dir=data_dir,
            progress=display.download,
            how=reading_of(find_model(model)),
        )
        if found.notes:
            display.message(f"read {found.described}; {'; '.join(found.notes)}")
        found.check(network.image_shape)
        yield Job(network, found, path, kind, batch_size, device, display.images)


def encode_to(job: Job) -> tuple[int, ...]:
    """Write the codes of all images; returns the shape of their array.

    A ``.npz`` holds ``codes``, and ``files``, ``labels`` and ``class_names`` where they are
    known. A table has a row for each image: its file or number, its class, its code.
    """
    shape = (job.images.n_samples, job.model.encoding_dim)
    output: AbstractContextManager[Add]
    if job.kind in ("csv", "parquet"):
        columns = [f"code_{unit}" for unit in range(job.model.encoding_dim)]
        output = table_output(job.path, columns, rows_of(job.images))
    else:
        output = _array_output(job, "codes", shape)
    with output as add:
        for batch in _results(job, decoded=False, unclamped=False):
            add(batch)
    return shape


def reconstruct_to(job: Job, *, unclamped: bool = False) -> tuple[int, ...]:
    """Write the reconstructions of all images; returns the shape of their array.

    A ``.npz`` holds ``images``, and ``labels`` and ``class_names`` where they are known, so
    that ``aesearch run`` can read it.
    """
    n_samples, layout = job.images.n_samples, job.image_layout
    shape = shape_in(layout, n_samples, job.model.image_shape)
    output: AbstractContextManager[Add]
    if job.kind == "png":
        output, layout = png_output(job.path, n_samples), "channel_first"
    elif job.kind == "folder":
        output, layout = folder_output(job.path, picture_names(job.images)), "channel_first"
    else:
        output = _array_output(job, "images", shape)
    with output as add:
        for batch in _results(job, decoded=True, unclamped=unclamped):
            add(from_channel_first(batch, layout))
    return shape


def score_to(job: Job, calibration: np.ndarray | None, maps: Path | None) -> np.ndarray:
    """Write the error of each image, with its p-value where there is a calibration.

    Parameters
    ----------
    calibration : ndarray, (image,), or None
        Errors of ordinary images that the network never saw.
    maps : Path or None
        A ``.npy`` for the squared error of each pixel, mean over the channels: (sample, height,
        width).

    Returns
    -------
    ndarray of float64, (sample,)
        The errors.
    """
    _, height, width = job.model.image_shape
    size, n_samples = check_batch_size(job.batch_size, job.model.image_shape), job.images.n_samples
    errors = np.empty(n_samples)
    drawn: AbstractContextManager[Add] = nullcontext(lambda _block: None)
    if maps is not None:
        drawn = npy_output(maps, (n_samples, height, width))
    with drawn as add, ready(job.model, job.device) as tensor:
        for rows in batches(n_samples, size):
            batch = tensor(job.images.read(rows, job.model.image_shape))
            found = job.model(batch)
            errors[rows] = array(squared_errors(found, batch))
            add(array((found - batch).square().mean(1)) if maps is not None else errors[:0])
            job.tell(rows.stop, n_samples)
    columns: dict[str, Any] = {**rows_of(job.images), "error": errors}
    if calibration is not None:
        columns["p"] = p_values(errors, calibration)
    with table_output(job.path, (), columns) as add:
        add(np.empty((n_samples, 0), np.float32))
    return errors


def interpolate_to(job: Job, pairs: list[tuple[int, int]], steps: int) -> tuple[int, ...]:
    """Write the images on the lines between pairs; returns the shape of their array.

    Arrays are (pair, step, channel, height, width), ``images`` in a ``.npz`` with ``pairs``
    beside them; a PNG has a row for each pair.
    """
    model = job.model
    ends = check_pairs(pairs, job.images.n_samples)
    # One row at a time: the pairs may lie anywhere in an input that is larger than memory.
    rows = [slice(int(index), int(index) + 1) for index in ends.reshape(-1)]
    with ready(model, job.device) as tensor:
        inputs = [job.images.read(row, model.image_shape) for row in rows]
        codes = array(model.encode(tensor(np.concatenate(inputs))))
        points = between(codes.reshape(len(ends), 2, -1), steps)
        with _line_output(job, ends, steps) as add:
            for done, line in enumerate(points, start=1):
                images = array(model.decode(tensor(line)))
                add(images if job.kind in ("png", "folder") else images[None])
                job.tell(done, len(points))
    return (*points.shape[:2], *model.image_shape)


def _line_output(job: Job, ends: np.ndarray, steps: int) -> AbstractContextManager[Add]:
    if job.kind == "png":
        return png_output(job.path, len(ends) * steps, steps)
    if job.kind == "folder":
        names = [f"{a}-{b}-{step:02d}" for a, b in ends for step in range(steps)]
        return folder_output(job.path, names)
    shape = (len(ends), steps, *job.model.image_shape)
    if job.kind == "npy":
        return npy_output(job.path, shape)
    return npz_output(job.path, "images", shape, {"pairs": ends})


def picture_names(images: Input) -> list[str]:
    """Name of each image's PNG, without its ending: that of its file, or its number."""
    n_samples = images.n_samples
    if not images.files:
        width = max(6, len(str(n_samples - 1)))
        return [f"{index:0{width}d}" for index in range(n_samples)]
    root = Path(images.source).expanduser()
    if root.is_file():
        return [root.stem]
    inside = [file.relative_to(root) for file in images.files]
    names = [path.with_suffix("").as_posix() for path in inside]
    # 'a.jpg' beside 'a.png': then the ending tells them apart.
    return names if len(set(names)) == len(names) else [path.as_posix() for path in inside]


def rows_of(images: Input) -> dict[str, Sequence[object]]:
    """What tells images apart in a table: file or number, and class where it is known."""
    rows: dict[str, Sequence[object]] = {}
    if images.files:
        rows["file"] = list(file_names(images))
    else:
        rows["index"] = list(range(images.n_samples))
    if images.labels is not None:
        names = images.class_names
        rows["label"] = [names[n] if names else n for n in images.labels.tolist()]
    return rows


def file_names(images: Input) -> list[str]:
    """Name of each image file, below the folder that was given."""
    root = Path(images.source).expanduser()
    if root.is_file():
        return [shown(root.name)]
    return [shown(file.relative_to(root).as_posix()) for file in images.files]


def _results(job: Job, *, decoded: bool, unclamped: bool) -> Iterator[np.ndarray]:
    model = job.model
    size = check_batch_size(job.batch_size, model.image_shape)
    n_samples = job.images.n_samples
    with ready(model, job.device) as tensor:
        network = model.forward if decoded else model.encode
        for rows in batches(n_samples, size):
            batch = tensor(job.images.read(rows, model.image_shape, unclamped=unclamped))
            yield array(network(batch))
            job.tell(rows.stop, n_samples)


def _array_output(job: Job, name: str, shape: tuple[int, ...]) -> AbstractContextManager[Add]:
    if job.kind == "npy":
        return npy_output(job.path, shape)
    beside: dict[str, np.ndarray] = {}
    if job.images.files:
        beside["files"] = np.array(file_names(job.images))
    if job.images.labels is not None:
        beside["labels"] = job.images.labels
        if job.images.class_names:
            beside["class_names"] = np.array(job.images.class_names)
    return npz_output(job.path, name, shape, beside)
