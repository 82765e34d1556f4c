"""Where the model file of a run is, and whether it is ours; ``model_file`` reads it, with torch."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from aesearch.studies.errors import AesearchError

KEY = "aesearch"
MODEL_NAME = "model.safetensors"


class ModelFileError(AesearchError, ValueError):
    """A model file that is missing, damaged, or not ours."""


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
        with safe_open(path, framework="np") as file:
            return KEY in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False
