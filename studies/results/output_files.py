"""What a study leaves as files: written whole or not at all; tensors arrive here as bytes."""

import tempfile
from pathlib import Path

import yaml

from aesearch.studies.errors import AesearchError
from aesearch.studies.files import whole_file
from aesearch.studies.results.best_result import Result
from aesearch.studies.spec.space import hidden_name
from aesearch.studies.spec.study import Configuration, StudySpec

SPECIFICATION = "study.yaml"  # of a run folder: what the whole study was asked for


class OutputError(AesearchError, OSError):
    """A file or folder that cannot be written."""


class OverwriteError(AesearchError, ValueError):
    """An output folder whose files would be replaced, and nobody said that they may be."""


def make_folder(path: Path) -> None:
    """Create a folder; raises OutputError with the cause when that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(
            f"out must be a folder that can be written, got {str(path)!r} "
            f"({error.strerror}); name another with --out"
        ) from error


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that its name never holds half of it: temporary file, fsync, rename.

    Raises
    ------
    OutputError
        The disk is full, or the folder cannot be written.
    """
    try:
        with whole_file(path) as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error


def chosen_spec(spec: StudySpec, configuration: Configuration) -> StudySpec:
    """Give the spec whose defaults are the chosen configuration: ``train`` needs no more."""
    model = spec.model.model_dump()
    model |= {
        "architecture": configuration.architecture,
        "encoding_dim": configuration.encoding_dim,
        "dropout": configuration.dropout,
        "code_activation": configuration.code_activation,
        "shortcut": configuration.shortcut,
        "initialization": configuration.initialization,
    }
    if configuration.architecture == "dense":
        model["dense"] = {"hidden": hidden_name(configuration.hidden)}
    document = spec.model_dump()
    document["model"] = model
    document["training"] |= {
        "learning_rate": configuration.learning_rate,
        "weight_decay": configuration.weight_decay,
        "corruption_level": configuration.corruption_level,
    }
    return StudySpec.model_validate(document)


def best_yaml(spec_yaml: str, result: Result) -> str:
    """Join the chosen spec and what came of it into one file.

    Parameters
    ----------
    spec_yaml : str
        ``chosen_spec`` as YAML.
    result : Result
        Without times, so that the same study gives the same bytes.
    """
    head = (
        "# The best configuration of a study, and what it reached.\n"
        "#   aesearch train best.yaml     retrains it from this file alone\n"
        "#   aesearch verify best.yaml    retrains it and compares the test number\n"
    )
    tail = yaml.safe_dump({"result": result.to_dict()}, sort_keys=False, allow_unicode=True)
    return head + spec_yaml + tail
