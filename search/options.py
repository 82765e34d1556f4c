"""What a run is told by name, in the CLI and in Python alike; rules and defaults are the spec's."""

import difflib
import os
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aesearch.studies.errors import AesearchError, SpecError

if TYPE_CHECKING:
    from aesearch.studies.spec.dimensions import Dimension
    from aesearch.studies.spec.study import StudySpec

    SpecSource = str | Path | StudySpec | Mapping[str, Any] | None  # what to start from

# The URL may hold a password: never on a command line of ours.
STORAGE_VARIABLE = "AESEARCH_STORAGE"
DEFAULT_STORAGE = "aesearch.db"


# Options by name, of ``FLAGS``; None was not given.
Options = Mapping[str, Any]


class OptionError(AesearchError, ValueError):
    """Options that do not go together or cannot be meant."""


class Flag(NamedTuple):
    """One setting of the specification under a short name.

    Attributes
    ----------
    path : str
        Where it lies in the specification.
    help : str
        What it is; a test holds it against the specification.
    default : str
        What the specification says, in words where that is null.
    """

    path: str
    help: str
    default: str


FLAGS: Mapping[str, Flag] = {
    "dataset": Flag(
        "data.dataset", "Name of a data set, or path of images (file or folder)", "digits"
    ),
    "data_dir": Flag("data.data_dir", "Where named data sets are kept", "the user's cache folder"),
    "folds": Flag("search.folds", "Parts of the cross-validation", "3"),
    "trials": Flag("search.trials", "Trials of the whole study", "50"),
    "epochs": Flag(
        "training.epochs",
        "auto scores a trial as it would be delivered, stopped early; or epochs of every trial",
        "auto",
    ),
    "batch_size": Flag("training.batch_size", "Images per gradient step, or auto", "auto"),
    "architecture": Flag(
        "space.architecture",
        "dense or conv alone, or both with a comma to search over them; auto goes by the image",
        "auto",
    ),
    "corruption": Flag(
        "training.corruption",
        "Train to denoise: none, gaussian, uniform, salt-and-pepper or occlusion",
        "none",
    ),
    "corruption_level": Flag(
        "training.corruption_level", "How strongly training images are corrupted", "0.3"
    ),
    "sampler": Flag("search.sampler", "auto, gp, tpe, random, grid or qmc", "auto"),
    "pruner": Flag("search.pruner", "none, median, halving or hyperband", "halving"),
    "select": Flag("search.select", "How the winner is chosen: best or one-se", "best"),
    "seed": Flag("seed", "All randomness follows from it", "0"),
    "device": Flag("compute.device", "auto, cpu, cuda or mps", "auto"),
    "precision": Flag("compute.precision", "auto, float32 or bfloat16", "auto"),
    "timeout": Flag("search.timeout", "Seconds after which no new trial starts", "no limit"),
    "study": Flag("name", "Name of the study", "the name of the data set"),
}


def flag_help(name: str) -> str:
    """Describe a flag with the default that the specification gives it."""
    flag = FLAGS[name]
    return f"{flag.help}. Default: {flag.default}."


def storage_or_default(storage: str | os.PathLike[str] | None) -> str:
    """Choose the store: what was asked for, the environment's, or a file in this folder."""
    if not isinstance(storage, str | os.PathLike | None):
        raise OptionError(f"storage must be a database URL or a path, got {type(storage).__name__}")
    return str(storage or "") or os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE


def spec_values(options: Options) -> dict[str, Any]:
    """Turn options by flat name into values by dotted path of the specification.

    Parameters
    ----------
    options : mapping
        Names of ``FLAGS``; None means that the option was not given. NumPy's scalars count as
        Python's.

    Returns
    -------
    dict
        One architecture fixes the model and takes it out of the space; several are searched.
    """
    values: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        if hasattr(value, "item") and hasattr(value, "dtype") and not getattr(value, "shape", ()):
            # A NumPy scalar, recognised without importing NumPy.
            value = value.item()  # noqa: PLW2901 - the same value
        if name == "architecture":
            values |= _architecture_values(value)
        elif name in ("batch_size", "epochs"):
            values[FLAGS[name].path] = int(value) if str(value).isdecimal() else value
        elif name in ("dataset", "data_dir"):
            values[FLAGS[name].path] = str(value)
        else:
            values[FLAGS[name].path] = value
    return values


def _architecture_values(value: str | Sequence[str]) -> dict[str, Any]:
    parts = value.split(",") if isinstance(value, str) else list(value)
    names = [str(part).strip() for part in parts if str(part).strip()]
    path = FLAGS["architecture"].path
    if names == ["auto"]:
        return {path: "auto"}
    if len(names) == 1:
        return {"model.architecture": names[0], path: None}
    return {f"{path}.choices": names}


def study_spec(
    options: Options,
    *,
    preset: str | None = None,
    spec: "SpecSource" = None,
    overrides: Sequence[str] = (),
) -> "StudySpec":
    """Build the specification of one study: see ``study_specs``.

    Raises
    ------
    SpecError
        With every problem at once; also for a series of studies.
    OptionError
        A preset that is not one, or beside a spec; options or overrides without effect.
    """
    from aesearch.studies.spec.load import load_spec  # noqa: PLC0415 - --help must not pay for it

    start = _start(preset, spec)
    found = load_spec(**start, flags=spec_values(options), overrides=overrides)
    _check_corruption(options, [found])
    _check_space(overrides, [found])
    _check_settings(overrides, [found])
    return found


def study_specs(
    options: Options,
    *,
    preset: str | None = None,
    spec: "SpecSource" = None,
    overrides: Sequence[str] = (),
    quick: bool = False,
) -> "list[StudySpec]":
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
    from aesearch.studies.spec.series import load_series  # noqa: PLC0415 - --help must not pay for it

    start = _start(preset, spec)
    found = load_series(**start, flags=spec_values(options), overrides=overrides, quick=quick)
    _check_corruption(options, found)
    _check_space(overrides, found)
    _check_settings(overrides, found)
    return found


def _check_corruption(options: Options, specs: "Sequence[StudySpec]") -> None:
    # In a file it may stand alone, since a best.yaml holds every setting; a flag is meant.
    level = options.get("corruption_level")
    if level is not None and all(spec.training.corruption == "none" for spec in specs):
        raise OptionError(
            f"--corruption-level must be given with a corruption, got {level} for "
            "training.corruption none; add --corruption gaussian"
        )


def _check_space(overrides: Sequence[str], specs: "Sequence[StudySpec]") -> None:
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


def _check_settings(overrides: Sequence[str], specs: "Sequence[StudySpec]") -> None:
    # A value within its dimension is that of the first trial; one outside would be of none. In a
    # file it may stand, as the level of a corruption may.
    from aesearch.studies.spec.study import SETTING_OF_DIMENSION  # noqa: PLC0415 - imports pydantic

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
            f"fix it with --architecture {value} instead"
            if name == "architecture"
            else f"fix it with --set space.{name}=null beside this, or search over it with "
            f"--set space.{name}.choices=[{value}]"
        )
        raise OptionError(
            f"--set {setting} must be {_values_of(dimension)}, over which it is searched, got "
            f"{value!r}; {remedy}"
        )


def _outside(spec: "StudySpec", setting: str) -> "tuple[Dimension, Any] | None":
    """Give the dimension that stands in for a setting in every trial, and the value it lacks."""
    from aesearch.studies.spec.dimensions import hidden_name  # noqa: PLC0415 - imports pydantic

    name = setting.rpartition(".")[2]
    dimension, value = spec.space.dimensions().get(name), attrgetter(setting)(spec)
    if spec.space.architecture == "auto" and name == "architecture":
        return None
    if name == "hidden":
        # Only dense networks have it: no condition leaves it to the setting.
        if value == "auto":
            return None
        value = hidden_name(value)
    elif dimension is not None and dimension.when is not None:
        return None
    if dimension is None or dimension.nearest(value) == value:
        return None
    return dimension, value


def _values_of(dimension: "Dimension") -> str:
    from aesearch.studies.spec.dimensions import Choices  # noqa: PLC0415 - imports pydantic

    if isinstance(dimension, Choices):
        return f"one of {', '.join(map(str, dimension.choices))}"
    steps = "" if dimension.step is None else f" in steps of {dimension.step}"
    return f"from {dimension.low} to {dimension.high}{steps}"


def _networks(specs: "Sequence[StudySpec]") -> str:
    found = [
        architecture
        for spec in specs
        for architecture in getattr(
            spec.space.architecture_dimension, "choices", [spec.model.architecture]
        )
    ]
    return " and ".join(dict.fromkeys(found))


def _start(preset: str | None, spec: "SpecSource") -> dict[str, Any]:
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


def _checked(spec: Any) -> "StudySpec":
    from aesearch.studies.spec.study import StudySpec  # noqa: PLC0415 - --help must not pay for it

    if not isinstance(spec, StudySpec):
        raise OptionError(
            f"spec must be a path, a StudySpec or a mapping, got {type(spec).__name__}; "
            "give a YAML file or nested dicts"
        )
    return spec


def _as_text(spec: Mapping[str, Any]) -> str:
    """Write a mapping as YAML, which holds plain values only, and of NumPy's none."""
    import yaml  # noqa: PLC0415 - --help must not pay for it

    from aesearch.studies.spec.strict_yaml import StrictDumper  # noqa: PLC0415

    try:
        return str(yaml.dump(dict(spec), Dumper=StrictDumper, sort_keys=False))
    except yaml.YAMLError as error:
        raise SpecError("spec", [f"must hold plain values, got {error.args[-1]!r:.60}"]) from error


def check_preset(preset: str) -> None:
    """Raise OptionError for a preset that is not one, with the one that may be meant."""
    from aesearch.studies.spec.load import preset_names  # noqa: PLC0415 - as above

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
    from aesearch.data.files import SUFFIXES  # noqa: PLC0415 - --help must not pay for NumPy
    from aesearch.data.folder import IMAGE_SUFFIXES  # noqa: PLC0415

    return (
        any(mark in word for mark in "/\\")
        or word.lower().endswith(SUFFIXES + IMAGE_SUFFIXES)
        or os.path.isdir(word)  # noqa: PTH112 - Path raises for a word that is too long
    )
