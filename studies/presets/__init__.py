"""Presets: one YAML spec each, read through importlib.resources."""

from importlib import resources

from aesearch.studies.errors import SpecError


def preset_names() -> list[str]:
    """List the presets that come with the package, sorted."""
    entries = resources.files(__name__).iterdir()
    return sorted(
        entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml")
    )


def preset_text(name: str) -> str:
    """Give the YAML of a preset.

    Raises
    ------
    SpecError
        If there is none of that name; the names are listed.
    """
    names = preset_names()
    if name not in names:
        raise SpecError("preset", [f"preset: must be one of {', '.join(names)}, got {name!r}"])
    return resources.files(__name__).joinpath(f"{name}.yaml").read_text("utf-8")
