"""Models as safetensors files that carry their own configuration; nothing here is pickled."""

import hashlib
import json
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from aesearch.models.autoencoder import Autoencoder, build_autoencoder
from aesearch.studies.errors import AesearchError
from aesearch.studies.results.calibration import read_calibration

_KEY = "aesearch"
MODEL_NAME = "model.safetensors"


class ModelFileError(AesearchError, ValueError):
    """A model file that is missing, damaged, or not ours."""


def to_bytes(model: Autoencoder) -> bytes:
    """Serialise a model: weights as safetensors, configuration as JSON in their metadata."""
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    return save(tensors, metadata={_KEY: json.dumps(model.configuration, sort_keys=True)})


def weights_sha256(model: Autoencoder) -> str:
    """Fingerprint of the weights: two models with the same one compute the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def find_model(path: str | Path) -> Path:
    """Find the model file of a run: the file itself, a run folder, or a best.yaml beside it.

    Raises
    ------
    ModelFileError
        There is none.
    """
    given = Path(path).expanduser()
    if given.is_dir():
        found = given / MODEL_NAME
    elif given.suffix.lower() in (".yaml", ".yml"):
        found = given.with_name(MODEL_NAME)
    else:
        found = given
    if not found.is_file():
        where = "" if found == given else f" {str(found)!r}"
        raise ModelFileError(
            f"model must be a {MODEL_NAME} file, or a run folder or best.yaml that has one, got "
            f"{str(path)!r}: no file{where}; write one with 'aesearch export STUDY'"
        )
    return found


def is_ours(path: Path) -> bool:
    """Whether aesearch wrote a model file; the weights are not read."""
    try:
        with safe_open(path, framework="pt") as file:
            return _KEY in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def load_model(path: str | Path) -> Autoencoder:
    """Load a model that a run exported.

    Parameters
    ----------
    path : str or Path
        A ``model.safetensors`` file, the run folder that it is in, or the best.yaml beside it.

    Returns
    -------
    Autoencoder
        On the CPU, in evaluation mode: ``encode`` maps images (sample, channel, height,
        width) in [0, 1] to codes (sample, encoding_dim), ``decode`` maps back. It has the
        calibration that lies beside it, for ``score_samples``.

    Raises
    ------
    ModelFileError
        The file is missing, damaged, or was not written by aesearch.
    """
    path = find_model(path)
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelFileError(
            f"{path} must be a safetensors file, got one that cannot be read ({error}); "
            "export it again with 'aesearch export STUDY'"
        ) from error
    if _KEY not in metadata:
        raise ModelFileError(
            f"{path} must be written by aesearch, got a safetensors file without its "
            "configuration; export it with 'aesearch export STUDY'"
        )
    try:
        configuration = json.loads(metadata[_KEY])
    except ValueError as error:
        raise ModelFileError(
            f"{path} must hold its configuration as JSON, got {metadata[_KEY]!r:.60}; "
            "export it again with 'aesearch export STUDY'"
        ) from error
    model = rebuild(configuration, tensors, str(path))
    # Read when it is asked for: what is wrong with it concerns nobody else.
    model.find_calibration = partial(read_calibration, path, weights_sha256(model))
    return model


def from_bytes(data: bytes) -> Autoencoder:
    """Rebuild a model from what ``to_bytes`` gave."""
    from safetensors.torch import load  # noqa: PLC0415 - beside its only use

    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return rebuild(json.loads(header["__metadata__"][_KEY]), load(data), "stored weights")


def rebuild(
    configuration: dict[str, object], tensors: dict[str, torch.Tensor], source: str
) -> Autoencoder:
    """Build the module of a configuration and give it its weights."""
    try:
        model = build_autoencoder(**configuration)  # type: ignore[arg-type]
        model.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise ModelFileError(
            f"{source} must hold the weights of its own configuration, got another set "
            f"({str(error).splitlines()[0]}); export it again with 'aesearch export STUDY'"
        ) from error
    return model.eval()
