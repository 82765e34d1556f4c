"""aesearch: the best autoencoder for your images, and how sure that choice is."""

from typing import Any

__version__ = "0.1.0"
__all__ = [
    "AesearchError",
    "__version__",
    "decode",
    "encode",
    "frames",
    "interpolate",
    "load",
    "reconstruct",
    "search",
    "sklearn",
]

# Imported on first use: `aesearch --help` must not pay for torch.
_LAZY = {
    "AesearchError": "aesearch.studies.errors",
    "decode": "aesearch.inference.functions",
    "encode": "aesearch.inference.functions",
    "interpolate": "aesearch.inference.functions",
    "load": "aesearch.api",
    "reconstruct": "aesearch.inference.functions",
    "search": "aesearch.api",
}
_LAZY_MODULES = ("frames", "sklearn")


def __dir__() -> list[str]:
    """List the public names, imported or not: what Tab completes."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    from importlib import import_module  # noqa: PLC0415

    if name in _LAZY_MODULES:
        return import_module(f"aesearch.{name}")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'aesearch' has no attribute {name!r}")
