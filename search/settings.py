"""What a run is told by name, in the CLI and in Python alike; rules and defaults are the spec's."""

import difflib
import os
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from aesearch.data.readers.files import SUFFIXES
from aesearch.data.readers.tree import IMAGE_SUFFIXES
from aesearch.options import OptionError
from aesearch.studies.errors import SpecError
from aesearch.studies.presets import preset_names
from aesearch.studies.spec.dimensions import Choices, Dimension, hidden_name
from aesearch.studies.spec.flags import FLAGS
from aesearch.studies.spec.load import load_spec
from aesearch.studies.spec.series import load_series
from aesearch.studies.spec.strict_yaml import StrictDumper
from aesearch.studies.spec.study import SETTING_OF_DIMENSION, StudySpec

# Options by name, of ``FLAGS``; None was not given.
Options = Mapping[str, Any]
SpecSource = str | Path | StudySpec | Mapping[str, Any] | None  # what to start from


# Where images lie, and what lies beside them: they may move after a run.
IMAGE_PATHS = ("dataset", "data_dir", "test", "labels", "groups", "noisy", "noisy_test")


def spec_values(options: Options) -> dict[str, Any]:
    """Turn options by flat name into values by dotted path of the specification.

    Parameters
    ----------
    options : mapping
        Those named in ``FLAGS`` count; None means that the option was not given. NumPy's
        scalars count as Python's.

    Returns
    -------
    dict
        One architecture or code size fixes the model and takes it out of the space; several are
        searched.
    """
    values: dict[str, Any] = {}
    for name in FLAGS:
        value = options.get(name)
        if value is None:
            continue
        if hasattr(value, "item") and hasattr(value, "dtype") and not getattr(value, "shape", ()):
            value = value.item()
        if name == "architecture":
            values |= _architecture_values(value)
        elif name == "encoding_dim":
            values |= _encoding_dim_values(value)
        elif name in ("batch_size", "epochs"):
            values[FLAGS[name]] = int(value) if str(value).isdecimal() else value
        elif name in IMAGE_PATHS and (name != "groups" or isinstance(value, Path)):
            values[FLAGS[name]] = str(value)
        else:
            values[FLAGS[name]] = value
    return values


def _architecture_values(value: str | Sequence[str]) -> dict[str, Any]:
    parts = value.split(",") if isinstance(value, str) else list(value)
    names = [str(part).strip() for part in parts if str(part).strip()]
    path = FLAGS["architecture"]
    if names == ["auto"]:
        return {path: "auto"}
    if len(names) == 1:
        return {"model.architecture": names[0], path: None}
    return {f"{path}.choices": names}


def _encoding_dim_values(value: int | str | Sequence[int]) -> dict[str, Any]:
    parts = value.split(",") if isinstance(value, str) else np.atleast_1d(value).tolist()
    words = [str(part).strip() for part in parts if str(part).strip()]
    sizes = [int(word) if word.isdecimal() else word for word in words]
    path = FLAGS["encoding_dim"]
    if len(sizes) == 1:
        return {"model.encoding_dim": sizes[0], path: None}
    return {f"{path}.choices": sizes}


def study_spec(
    options: Options,
    *,
    preset: str | None = None,
    spec: SpecSource = None,
    overrides: Sequence[str] = (),
) -> StudySpec:
    """Build the specification of one study: see ``study_specs``.

    Raises
    ------
    SpecError
        With every problem at once; also for a series of studies.
    OptionError
        A preset that is not one, or beside a spec; options or overrides without effect.
    """
    start = _start(preset, spec)
    _check_once(options, overrides)
    found = load_spec(**start, flags=spec_values(options), overrides=overrides)
    _check_corruption(options, [found])
    _check_space(overrides, [found])
    _check_settings(overrides, [found])
    return found


def study_specs(
    options: Options,
    *,
    preset: str | None = None,
    spec: SpecSource = None,
    overrides: Sequence[str] = (),
    quick: bool = False,
) -> list[StudySpec]:
    """Build specifications: defaults, then a preset or spec, then options, then overrides.

    Parameters
    ----------
    options : mapping
        As for ``spec_values``.
    spec : path, StudySpec or mapping, optional
        What to start from; not beside ``preset``.
    overrides : sequence of str
        ``KEY=VALUE`` each.
    quick : bool
        Give the small version of each.

    Returns
    -------
    list of StudySpec
        Several for a series of studies, else one.

    Raises
    ------
    SpecError
        With every problem at once.
    OptionError
        A preset that is not one, or beside a spec; options or overrides without effect.
    """
    start = _start(preset, spec)
    _check_once(options, overrides)
    found = load_series(**start, flags=spec_values(options), overrides=overrides, quick=quick)
    _check_corruption(options, found)
    _check_space(overrides, found)
    _check_settings(overrides, found)
    return found


def _check_once(options: Options, overrides: Sequence[str]) -> None:
    """Refuse a setting that is given as a flag and with --set: one of them would be ignored."""
    for override in overrides:
        key = ".".join(part.strip() for part in override.partition("=")[0].split("."))
        for name, path in FLAGS.items():
            paths = {path}
            if name in SETTING_OF_DIMENSION and path.startswith("space."):
                paths |= {f"{path}.{part}" for part in ("choices", "low", "high", "step")}
                paths.add(SETTING_OF_DIMENSION[name])
            if key in paths and options.get(name) is not None:
                option = "--" + name.replace("_", "-")
                raise OptionError(
                    f"{path} must be given once, got {option} {options[name]} and --set "
                    f"{override}; drop one"
                )


def _check_corruption(options: Options, specs: Sequence[StudySpec]) -> None:
    # In a file it may stand alone, since a best.yaml holds every setting; a flag is meant.
    level = options.get("corruption_level")
    if level is not None and all(spec.training.corruption == "none" for spec in specs):
        raise OptionError(
            f"--corruption-level must be given with a corruption, got {level} for "
            "training.corruption none; add --corruption gaussian"
        )


def _check_space(overrides: Sequence[str], specs: Sequence[StudySpec]) -> None:
    # Nor may a preset's dimension stand in the way of another architecture.
    told = {}
    for override in overrides:
        key, _, value = override.partition("=")
        section, *rest = (part.strip() for part in key.split("."))
        if section == "space" and rest:
            told[rest[0]] = (override, value)
    for name, (override, value) in told.items():
        if value.strip() in ("", "null", "~") or name == "defaults":
            continue
        if all(getattr(spec.space, name) is None for spec in specs):
            raise OptionError(
                f"--set space.{name} must be of something that a network of the study has, got "
                f"{override!r} for {_networks(specs)} networks; leave it out, or change the "
                "architecture or the condition"
            )


def _check_settings(overrides: Sequence[str], specs: Sequence[StudySpec]) -> None:
    # A value within its dimension is that of the first trial; one outside would be of none. In a
    # file it may stand, as the level of a corruption may.
    for override in overrides:
        key = override.partition("=")[0]
        setting = ".".join(part.strip() for part in key.split("."))
        if setting not in SETTING_OF_DIMENSION.values():
            continue
        found = [outside for spec in specs if (outside := _outside(spec, setting)) is not None]
        if len(found) < len(specs):
            continue
        dimension, value = found[0]
        name = setting.rpartition(".")[2]
        remedy = (
            f"fix it with --{name.replace('_', '-')} {value} instead"
            if name in ("architecture", "encoding_dim")
            else f"fix it with --set space.{name}=null beside this, or search over it with "
            f"--set space.{name}.choices=[{value}]"
        )
        raise OptionError(
            f"--set {setting} must be {_values_of(dimension)}, over which it is searched, got "
            f"{value!r}; {remedy}"
        )


def _outside(spec: StudySpec, setting: str) -> tuple[Dimension, Any] | None:
    """Give the dimension that stands in for a setting in every trial, and the value it lacks."""
    name = setting.rpartition(".")[2]
    dimension, value = spec.space.dimensions().get(name), attrgetter(setting)(spec)
    if (spec.space.architecture == "auto" and name == "architecture") or value == "auto":
        return None
    if name == "channels":
        value = hidden_name(value)
    if name == "hidden":
        # Only dense networks have it: no condition leaves it to the setting.
        value = hidden_name(value)
    elif dimension is not None and dimension.when is not None:
        return None
    if dimension is None or dimension.nearest(value) == value:
        return None
    return dimension, value


def _values_of(dimension: Dimension) -> str:
    if isinstance(dimension, Choices):
        return f"one of {', '.join(map(str, dimension.choices))}"
    steps = "" if dimension.step is None else f" in steps of {dimension.step}"
    return f"from {dimension.low} to {dimension.high}{steps}"


def _networks(specs: Sequence[StudySpec]) -> str:
    found = [
        architecture
        for spec in specs
        for architecture in getattr(
            spec.space.architecture_dimension, "choices", [spec.model.architecture]
        )
    ]
    return " and ".join(dict.fromkeys(found))


def _start(preset: str | None, spec: SpecSource) -> dict[str, Any]:
    """Say what to start from, as ``load_spec`` is told it."""
    if preset is not None and spec is not None:
        raise OptionError(
            f"PRESET must not be given beside --spec, got {preset!r} and {_shown(spec)!r}; "
            "start from one of them and change it with flags or --set"
        )
    if preset is not None:
        check_preset(preset)
    start: dict[str, Any] = {"preset": preset}
    if isinstance(spec, str | Path):
        start["file"] = Path(spec).expanduser()
    elif isinstance(spec, Mapping):
        start["text"] = _as_text(spec)
    elif spec is not None:
        start["spec"] = _checked(spec)
    return start


def _shown(spec: Any) -> str:
    return str(spec) if isinstance(spec, str | Path) else type(spec).__name__


def _checked(spec: Any) -> StudySpec:
    if not isinstance(spec, StudySpec):
        raise OptionError(
            f"spec must be a path, a StudySpec or a mapping, got {type(spec).__name__}; "
            "give a YAML file or nested dicts"
        )
    return spec


def _as_text(spec: Mapping[str, Any]) -> str:
    """Write a mapping as YAML, which holds plain values only, and of NumPy's none."""
    try:
        return str(yaml.dump(dict(spec), Dumper=StrictDumper, sort_keys=False))
    except yaml.YAMLError as error:
        raise SpecError("spec", [f"must hold plain values, got {error.args[-1]!r:.60}"]) from error


def check_preset(preset: str) -> None:
    """Raise OptionError for a preset that is not one, with the one that may be meant."""
    names = preset_names()
    if preset in names:
        return
    close = difflib.get_close_matches(preset, names, n=1)
    if preset.lower().endswith((".yaml", ".yml")):
        remedy = f"a file is given with --spec {preset}"
    elif _is_of_images(preset):
        remedy = f"images are given with --dataset {preset}"
    elif close:
        remedy = f"did you mean {close[0]!r}?"
    else:
        remedy = "a data set is given with --dataset, a file with --spec"
    raise OptionError(f"PRESET must be one of {', '.join(names)}, got {preset!r}; {remedy}")


def _is_of_images(word: str) -> bool:
    """Whether someone who wrote this meant images: a folder, a path, or a file of them."""
    return (
        any(mark in word for mark in "/\\")
        or word.lower().endswith(SUFFIXES + IMAGE_SUFFIXES)
        or os.path.isdir(word)  # noqa: PTH112 - Path raises for a word that is too long
    )
