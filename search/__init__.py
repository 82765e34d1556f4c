"""aesearch: the best autoencoder for your images, and how sure that choice is."""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Optuna imports tqdm, which warns in a notebook without ipywidgets; nothing is drawn with it.
warnings.filterwarnings("ignore", message="IProgress not found")

# Type checkers, editors and the reference read these lines; a running program uses _LAZY.
if TYPE_CHECKING:
    from aesearch import frames, sklearn, trackers
    from aesearch.administration import copy_study, delete_study, exclude_trial, rename_study
    from aesearch.api import SearchResult, search
    from aesearch.artifacts.model_file import load
    from aesearch.inference.functions import decode, encode, evaluate, interpolate, reconstruct
    from aesearch.inference.scores import score_samples
    from aesearch.listing import list_studies
    from aesearch.models.autoencoder import Autoencoder
    from aesearch.retraining import train, verify
    from aesearch.sampling.imported import import_trials
    from aesearch.studies.errors import AesearchError
    from aesearch.studies.spec.study import StudySpec
    from aesearch.study import Study, open_study

__version__ = "0.1.0"
__all__ = [
    "AesearchError",
    "Autoencoder",
    "SearchResult",
    "Study",
    "StudySpec",
    "__version__",
    "copy_study",
    "decode",
    "delete_study",
    "encode",
    "evaluate",
    "exclude_trial",
    "frames",
    "import_trials",
    "interpolate",
    "list_studies",
    "load",
    "open_study",
    "reconstruct",
    "rename_study",
    "score_samples",
    "search",
    "sklearn",
    "trackers",
    "train",
    "verify",
]

# At run time each is imported on first use: `aesearch --help` must not pay for torch.
_LAZY = {
    "AesearchError": "aesearch.studies.errors",
    "Autoencoder": "aesearch.models.autoencoder",
    "SearchResult": "aesearch.api",
    "Study": "aesearch.study",
    "StudySpec": "aesearch.studies.spec.study",
    "copy_study": "aesearch.administration",
    "decode": "aesearch.inference.functions",
    "delete_study": "aesearch.administration",
    "encode": "aesearch.inference.functions",
    "evaluate": "aesearch.inference.functions",
    "exclude_trial": "aesearch.administration",
    "import_trials": "aesearch.sampling.imported",
    "interpolate": "aesearch.inference.functions",
    "list_studies": "aesearch.listing",
    "load": "aesearch.artifacts.model_file",
    "open_study": "aesearch.study",
    "reconstruct": "aesearch.inference.functions",
    "rename_study": "aesearch.administration",
    "score_samples": "aesearch.inference.scores",
    "search": "aesearch.api",
    "train": "aesearch.retraining",
    "verify": "aesearch.retraining",
}
_LAZY_MODULES = ("frames", "sklearn", "trackers")


def __dir__() -> list[str]:
    """List the public names, imported or not: what Tab completes."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _LAZY_MODULES:
        return import_module(f"aesearch.{name}")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'aesearch' has no attribute {name!r}")
