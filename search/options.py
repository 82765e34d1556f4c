"""Where a store is by default, and what is said of options that cannot be meant."""

import os

from aesearch.studies.errors import AesearchError

# The URL may hold a password: never on a command line of ours.
STORAGE_VARIABLE = "AESEARCH_STORAGE"
DEFAULT_STORAGE = "aesearch.db"


class OptionError(AesearchError, ValueError):
    """Options that do not go together or cannot be meant."""


def storage_or_default(storage: str | os.PathLike[str] | None) -> str:
    """Choose the store: what was asked for, the environment's, or a file in this folder."""
    if not isinstance(storage, str | os.PathLike | None):
        raise OptionError(f"storage must be a database URL or a path, got {type(storage).__name__}")
    return str(storage or "") or os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE
