"""Models as safetensors files that carry their own configuration; nothing here is pickled."""

import hashlib
import json
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save

from aesearch.artifacts.model_path import KEY, ModelFileError, find_model
from aesearch.models.autoencoder import Autoencoder, build_autoencoder
from aesearch.studies.results.calibration import read_calibration


def to_bytes(model: Autoencoder) -> bytes:
    """Serialise a model: weights as safetensors, configuration as JSON in their metadata."""
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    return save(tensors, metadata={KEY: json.dumps(model.configuration, sort_keys=True)})


def weights_sha256(model: Autoencoder) -> str:
    """Fingerprint of the weights: two models with the same one compute the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load(path: str | Path) -> Autoencoder:
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
    if KEY not in metadata:
        raise ModelFileError(
            f"{path} must be written by aesearch, got a safetensors file without its "
            "configuration; export it with 'aesearch export STUDY'"
        )
    try:
        configuration = json.loads(metadata[KEY])
    except ValueError as error:
        raise ModelFileError(
            f"{path} must hold its configuration as JSON, got {metadata[KEY]!r:.60}; "
            "export it again with 'aesearch export STUDY'"
        ) from error
    model = rebuild(configuration, tensors, str(path))
    # Read when it is asked for: what is wrong with it concerns nobody else.
    model.find_calibration = partial(read_calibration, path, weights_sha256(model))
    return model


def from_bytes(data: bytes) -> Autoencoder:
    """Rebuild a model from what ``to_bytes`` gave."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return rebuild(json.loads(header["__metadata__"][KEY]), load_tensors(data), "stored weights")


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
