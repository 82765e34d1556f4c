"""A model as ONNX or ``torch.export`` files, each held against the model before it gets its name.

Three files of a format: ``model`` maps images to reconstructions, ``encoder`` images to codes,
``decoder`` codes to reconstructions. The number of samples is free. Images are float32
(sample, channel, height, width) in [0, 1], codes float32 (sample, encoding_dim).
"""

import contextlib
import importlib.util
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aesearch.models.autoencoder import Autoencoder, BuildArguments
from aesearch.studies.errors import AesearchError, RunFailedError
from aesearch.studies.results.output_files import make_folder, write_whole

FORMATS = ("onnx", "pt2")

# What each format needs beside torch; installed together by the extra of that name.
_PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": ()}

# Other kernels sum in another order; a wrong weight or axis is off by much more.
_TOLERANCE = 1e-4
_BATCHES = (1, 7)
_SEED = 0

Run = Callable[[np.ndarray], np.ndarray]


class FormatError(AesearchError, ValueError):
    """A format that is not known, or whose packages are missing."""


@dataclass(frozen=True)
class Exported:
    """One file that was written.

    Attributes
    ----------
    largest_difference : float
        From what the model computes, over random batches of 1 and 7 images; as a share of
        the largest value where that is above 1.
    """

    path: Path
    largest_difference: float


@dataclass(frozen=True, eq=False)
class _Part:
    """A network with one input and one output, and what they are called."""

    name: str
    network: nn.Module
    input_name: str
    output_name: str
    samples: Tensor  # random inputs, (7, ...)


def check_formats(formats: Sequence[str]) -> None:
    """Refuse a format before any work is done for it.

    Raises
    ------
    FormatError
        It is unknown, or packages are missing; says what installs them.
    """
    for name in formats:
        if name not in FORMATS:
            raise FormatError(f"format must be one of {', '.join(FORMATS)}, got {name!r}")
        packages = _PACKAGES[name]
        missing = [one for one in packages if importlib.util.find_spec(one) is None]
        if missing:
            raise FormatError(
                f"format {name} must have the packages {', '.join(packages)}, got no "
                f"{', '.join(missing)}; install them with: pip install 'aesearch[{name}]'"
            )


def export_formats(model: Autoencoder, folder: Path, formats: Sequence[str]) -> list[Exported]:
    """Write a model in other formats; equal models give equal bytes.

    Each file is loaded back and compared with the model on random images, one and seven at
    a time, before any of them gets its name.

    Parameters
    ----------
    model : Autoencoder
        On the CPU.
    folder : Path
        Gets ``model.onnx``, ``encoder.onnx``, ``decoder.onnx``, or the same with ``.pt2``.
    formats : sequence of str
        Of ``FORMATS``.

    Returns
    -------
    list of Exported
        In that order.

    Raises
    ------
    FormatError
        A format is unknown, or its packages are missing.
    OutputError
        A file cannot be written.
    RunFailedError
        A file does not compute what the model computes; none is written.
    """
    check_formats(formats)
    make_folder(folder)
    was_training = model.training
    model.eval()
    found: list[Exported] = []
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".formats-") as temporary:
            for name in dict.fromkeys(formats):
                for part in _parts(model):
                    target = folder / f"{part.name}.{name}"
                    content, load = _FORMATS[name](part, model.configuration)
                    written = Path(temporary) / target.name
                    write_whole(written, content)
                    found.append(Exported(target, _compared(part, load(written), target)))
            for exported in found:
                (Path(temporary) / exported.path.name).replace(exported.path)
    finally:
        model.train(was_training)
    return found


def _parts(model: Autoencoder) -> list[_Part]:
    generator = torch.Generator().manual_seed(_SEED)
    images = torch.rand((max(_BATCHES), *model.image_shape), generator=generator)
    with torch.no_grad():
        codes = model.encode(images)
    return [
        _Part("model", model, "images", "reconstructions", images),
        _Part("encoder", model.encoder, "images", "codes", images),
        _Part("decoder", model.decoder, "codes", "reconstructions", codes),
    ]


def _example(part: _Part) -> dict[str, Any]:
    # Zeros, not the samples: an example is stored with a program. The first axis is free.
    example = torch.zeros((2, *part.samples.shape[1:]))
    return {"args": (example,), "dynamic_shapes": ({0: torch.export.Dim("batch")},)}


def _pt2(part: _Part, configuration: BuildArguments) -> tuple[bytes, Callable[[Path], Run]]:
    content = io.BytesIO()
    extra = {"aesearch.json": json.dumps(configuration, sort_keys=True)}
    with _quiet():
        program = torch.export.export(part.network, **_example(part))
        for node in program.graph.nodes:
            # It names the files of the machine that this runs on.
            node.meta.pop("stack_trace", None)
        torch.export.save(program, content, extra_files=extra)

    def load(path: Path) -> Run:
        with _quiet():
            network = torch.export.load(path).module()
        return lambda batch: network(torch.from_numpy(batch)).detach().numpy()

    return content.getvalue(), load


def _onnx(part: _Part, configuration: BuildArguments) -> tuple[bytes, Callable[[Path], Run]]:
    from aesearch.artifacts import onnx_format  # noqa: PLC0415 - an extra

    with _quiet():
        program = torch.onnx.export(
            part.network,
            **_example(part),
            dynamo=True,
            input_names=[part.input_name],
            output_names=[part.output_name],
            verbose=False,
        )
    assert program is not None, "torch.onnx.export returns a program where no file is named"
    content = onnx_format.content(program.model_proto, configuration)
    return content, partial(onnx_format.load, part.input_name, part.output_name)


_FORMATS: dict[str, Callable[[_Part, BuildArguments], tuple[bytes, Callable[[Path], Run]]]] = {
    "onnx": _onnx,
    "pt2": _pt2,
}


def _compared(part: _Part, run: Run, target: Path) -> float:
    """Largest difference between a file and the network it was made of, or RunFailedError."""
    differences = []
    for n_samples in _BATCHES:
        batch = part.samples[:n_samples]
        with torch.no_grad():
            expected = part.network(batch).numpy()
        found = run(batch.numpy())
        if found.shape != expected.shape:
            raise RunFailedError(
                f"{target.name} must give {expected.shape} for {n_samples} samples, got "
                f"{found.shape}; it was not written"
            )
        scale = max(1.0, float(np.abs(expected).max()))
        differences.append(np.abs(found - expected).max() / scale)
    largest = float(np.max(differences))
    # Negated, so that NaN fails; Python's max would lose it.
    if not largest <= _TOLERANCE:
        raise RunFailedError(
            f"{target.name} must compute what the model computes within {_TOLERANCE:g}, got a "
            f"difference of {largest:.2g}; it was not written"
        )
    return largest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # What the exporters say to their own developers.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
