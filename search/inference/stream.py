"""From INPUT through the model to OUTPUT, batch by batch: what the commands do."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from aesearch.artifacts import model_file
from aesearch.artifacts.model_path import find_model
from aesearch.data.notes import shown
from aesearch.inference.denoiser import Answer, trained_to_denoise
from aesearch.inference.functions import between, check_pairs
from aesearch.inference.inputs import PARTS, Input, open_input
from aesearch.inference.layouts import Layout, from_channel_first, layout_of, shape_in
from aesearch.inference.network import array, batches, check_batch_size, denormals_flushed, ready
from aesearch.inference.outputs import (
    Add,
    Holds,
    Kind,
    folder_output,
    kind_of,
    npy_output,
    npz_output,
    png_output,
    table_output,
)
from aesearch.inference.reading import reading_of
from aesearch.models.autoencoder import Autoencoder
from aesearch.options import OptionError
from aesearch.studies.results.output_files import check_output
from aesearch.terminal.display import make_display

Tell = Callable[[int, int], None]
Columns = dict[str, Sequence[Any] | np.ndarray]  # of a table, by name


@dataclass(frozen=True)
class Job:
    """What goes through which model, and where to.

    Attributes
    ----------
    named : str
        A model file, or the run folder or best.yaml that it lies beside.
    batch_size : int or None
        Samples at once; None for what a few dozen megabytes hold.
    device : str or None
        ``auto``, ``cpu``, ``cuda``; None for where the model is.
    tell : callable(done, all)
        Told after every batch; may raise to stop.
    """

    named: str
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

    def encode(self) -> tuple[int, ...]:
        """Write the codes of all images; returns the shape of their array.

        A ``.npz`` holds ``codes``, and ``files``, ``labels`` and ``class_names`` where they are
        known; a table the columns of ``sample_columns`` and ``code_0``, ``code_1`` and so on.
        """
        shape = (self.images.n_samples, self.model.encoding_dim)
        output = array_output(self, "codes", shape)
        if self.kind not in ("npy", "npz"):
            output = table_output(
                self.path, self.kind, lambda codes: _code_table(self.images, codes)
            )
        with output as add:
            for batch in _results(self, decoded=False, unclamped=False):
                add(batch)
        return shape

    def reconstruct(self, *, unclamped: bool = False) -> tuple[int, ...]:
        """Write the reconstructions of all images; returns the shape of their array.

        A ``.npz`` holds ``images``, and ``labels`` and ``class_names`` where they are known, so
        that ``aesearch run`` can read it.
        """
        n_samples, layout = self.images.n_samples, self.image_layout
        shape = shape_in(layout, n_samples, self.model.image_shape)
        output: AbstractContextManager[Add]
        if self.kind in ("png", "folder"):
            output, layout = picture_output(self), "channel_first"
        else:
            output = array_output(self, "images", shape)
        with output as add:
            for batch in _results(self, decoded=True, unclamped=unclamped):
                add(from_channel_first(batch, layout))
        return shape

    def trained_to_denoise(self) -> tuple[Answer, str]:
        """Tell whether the model learned to remove a corruption, and what to say about it."""
        return trained_to_denoise(self.named)

    def interpolate(self, pairs: list[tuple[int, int]], steps: int) -> tuple[int, ...]:
        """Write the images on the lines between pairs; returns the shape of their array.

        Arrays are (pair, step, channel, height, width), ``images`` in a ``.npz`` with ``pairs``
        beside them; a PNG has a row for each pair.
        """
        model = self.model
        ends = check_pairs(pairs, self.images.n_samples)
        # One row at a time: the pairs may lie anywhere in an input that is larger than memory.
        rows = [slice(int(index), int(index) + 1) for index in ends.reshape(-1)]
        with ready(model, self.device) as tensor:
            inputs = [self.images.read(row, model.image_shape) for row in rows]
            codes = array(model.encode(tensor(np.concatenate(inputs))))
            points = between(codes.reshape(len(ends), 2, -1), steps)
            with _line_output(self, ends, steps) as add:
                for done, line in enumerate(points, start=1):
                    images = array(model.decode(tensor(line)))
                    add(images if self.kind in ("png", "folder") else images[None])
                    self.tell(done, len(points))
        return (*points.shape[:2], *model.image_shape)


@contextmanager
def open_job(
    model: str,
    images: str,
    output: str,
    *,
    part: str,
    data_dir: Path | None,
    holds: Holds,
    batch_size: int | None = None,
    device: str,
    force: bool,
    quiet: bool,
    bad_files: str | None = None,
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
    holds : {"codes", "pictures", "scores"}
        What the results are.
    force : bool
        Replace an output that exists.
    bad_files : {"stop", "skip"}, optional
        What image files that cannot be read are answered with; None as the model's were.

    Raises
    ------
    AesearchError
        One of them cannot be meant, read or written.
    """
    if part not in PARTS:
        raise OptionError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
    if bad_files not in (None, "stop", "skip"):
        raise OptionError(f"bad_files must be stop or skip, got {bad_files!r}")
    path, kind = output_of(output, images, holds=holds, force=force)
    how = reading_of(find_model(model))
    if bad_files is not None:
        how = how.model_copy(update={"bad_files": bad_files})
    network = model_file.load(model)
    with denormals_flushed(), make_display(quiet=quiet) as display:
        found = open_input(
            images,
            part=part,
            data_dir=data_dir,
            progress=display.download,
            how=how,
        )
        if found.notes:
            display.message(f"read {found.described}; {'; '.join(found.notes)}")
        found.check(network.image_shape)
        yield Job(model, network, found, path, kind, batch_size, device, display.images)


def output_of(
    output: str, images: str, *, holds: Holds, force: bool, name: str = "OUTPUT"
) -> tuple[Path, Kind]:
    """Give the path of an output, which is called ``name``, and what it is to be.

    Raises
    ------
    AesearchError
        It cannot be written, holds something else, or is where the images are.
    """
    path = Path(output).expanduser()
    if not path.name:
        path = path.resolve()
    source = Path(images).expanduser()
    if path.exists() and source.exists() and path.samefile(source):
        raise OptionError(f"{name} must not be INPUT, got {output!r} for both; name another")
    kind = kind_of(path, is_folder=output.endswith(("/", os.sep)), holds=holds, name=name)
    check_output(path, is_folder=kind == "folder", force=force, name=name)
    return path, kind


def _code_table(images: Input, codes: np.ndarray) -> pd.DataFrame:
    columns = {f"code_{unit}": codes[:, unit] for unit in range(codes.shape[1])}
    return pd.DataFrame(sample_columns(images) | columns)


def sample_columns(images: Input) -> Columns:
    """Say which image a row is of, as columns of a table.

    Returns
    -------
    dict
        ``file``, its path within INPUT, where images are files, else ``index``, from 0;
        ``label`` where it is known: the name of its class, else its number.
    """
    found: Columns
    found = {"file": file_names(images)} if images.files else {"index": range(images.n_samples)}
    if images.labels is not None:
        names = images.class_names
        found["label"] = [names[n] for n in images.labels] if names else images.labels
    return found


def file_names(images: Input) -> list[str]:
    """Path of each image's file within INPUT, with ``/``; its name where INPUT is that file."""
    root = Path(images.source).expanduser()
    if root.is_file():
        inside = [root.name]
    else:
        inside = [file.relative_to(root).as_posix() for file in images.files]
    return [shown(name) for name in inside]


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
    inside = file_names(images)
    names = [PurePosixPath(name).with_suffix("").as_posix() for name in inside]
    # 'a.jpg' beside 'a.png': then the ending tells them apart.
    return names if len(set(names)) == len(names) else inside


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


def picture_output(job: Job) -> AbstractContextManager[Add]:
    """Take images (sample, channel, height, width) for a PNG, or a folder of such."""
    if job.kind == "png":
        return png_output(job.path, job.images.n_samples)
    return folder_output(job.path, picture_names(job.images))


def array_output(job: Job, name: str, shape: tuple[int, ...]) -> AbstractContextManager[Add]:
    """Take float32 blocks for an ``.npy``, or an ``.npz`` with what is known of the images."""
    if job.kind == "npy":
        return npy_output(job.path, shape)
    beside = {}
    if job.images.files:
        beside["files"] = np.array(file_names(job.images))
    if job.images.labels is not None:
        beside["labels"] = job.images.labels
        if job.images.class_names:
            beside["class_names"] = np.array(job.images.class_names)
    return npz_output(job.path, name, shape, beside)
