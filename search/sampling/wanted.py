"""Configurations that somebody asks for: read from files, made ones of a study's space."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml

from aesearch.studies.errors import AesearchError, SpecError
from aesearch.studies.spec.dimensions import Dimension, Params
from aesearch.studies.spec.load import spec_from_mapping
from aesearch.studies.spec.resolved import ResolvedSpec
from aesearch.studies.spec.space import SEARCHABLE, Range, hidden_name, hidden_widths
from aesearch.studies.spec.strict_yaml import parse, read_text
from aesearch.studies.spec.study import SETTING_OF_DIMENSION
from aesearch.studies.spec.weights import DECIDE_WEIGHTS, described, fitted, n_parameters

Wanted = str | Path | Mapping[str, Any] | Sequence[str | Path | Mapping[str, Any]]


class WishError(AesearchError, ValueError):
    """A configuration that is none of the study's space, or a file that holds none."""


def read_wanted(wanted: Wanted) -> list[dict[str, Any]]:
    """Read configurations: mappings, and files that hold one or many.

    Parameters
    ----------
    wanted : mapping, path, or sequence of them
        A file is a YAML mapping or list of mappings by the names of the space, a ``best.yaml``
        or another specification (its defaults), or a ``trials.csv`` (its complete, stable
        trials).

    Raises
    ------
    WishError, SpecError
        A file that cannot be read, or holds none.
    """
    if isinstance(wanted, str | Path | Mapping):
        wanted = [wanted]
    found: list[dict[str, Any]] = []
    for each in wanted:
        if isinstance(each, Mapping):
            found.append(dict(each))
        elif isinstance(each, str | Path):
            found += _from_file(Path(each).expanduser())
        else:
            raise WishError(
                f"enqueue must be configurations or paths of files, got {type(each).__name__}"
            )
    return found


def _from_file(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise WishError(
            f"enqueue must be a file of configurations, got {str(path)!r}: no such file; a YAML "
            "list, a best.yaml or a trials.csv is one"
        )
    text = read_text(path)
    if path.suffix == ".csv":
        return _from_table(path, text)
    tree, _ = parse(text, str(path))
    if isinstance(tree, dict) and tree and not tree.keys() & {*SEARCHABLE}:
        tree.pop("result", None)
        spec = spec_from_mapping(tree, str(path))
        settings = {n: attrgetter(where)(spec) for n, where in SETTING_OF_DIMENSION.items()}
        if settings["hidden"] == "auto" or settings["architecture"] != "dense":
            del settings["hidden"]
        if settings["batch_size"] == "auto":
            del settings["batch_size"]
        if settings["architecture"] != "conv":
            del settings["channels"]
        if spec.training.corruption == "none":
            del settings["corruption_level"]
        return [settings]
    rows = [tree] if isinstance(tree, dict) else tree
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        raise SpecError(
            str(path), ["must be a configuration such as {learning_rate: 0.002}, or a list of them"]
        )
    return rows


def _from_table(path: Path, text: str) -> list[dict[str, Any]]:
    rows = [
        row
        for row in csv.DictReader(io.StringIO(text))
        if row.get("state", "complete") == "complete" and not row.get("unstable")
    ]
    found = [
        {
            name: value if name == "hidden" else yaml.safe_load(value)
            for name, value in row.items()
            if name in SEARCHABLE and value
        }
        for row in rows
    ]
    found = [configuration for configuration in found if configuration]
    if not found:
        raise WishError(
            f"{path} must hold complete, stable trials with columns of a space, got none; "
            "'aesearch run' and 'aesearch export' write such a trials.csv"
        )
    return found


def completed(
    spec: ResolvedSpec, wish: Mapping[str, Any], image_shape: tuple[int, int, int]
) -> Params:
    """Give a configuration a value for each dimension that its architecture has.

    What it leaves out is as in the study's default configuration, or nearest to it where that
    has too many weights.

    Raises
    ------
    WishError
        It names what is not searched, or a value that its dimension does not have; or its
        network has more weights than the study allows.
    """
    dimensions = spec.space.dimensions()
    for name, value in wish.items():
        if name not in SEARCHABLE:
            raise WishError(
                f"an enqueued trial must have names of the space ({', '.join(dimensions)}), got "
                f"{name!r}"
            )
        if name not in dimensions and not _as_fixed(spec, name, value):
            raise WishError(
                f"{name} of an enqueued trial must be as the study has it, since it is not "
                f"searched, got {value!r}; a study that searches it takes it: space.{name}"
            )
    limit = spec.search.max_parameters
    given = {
        n: checked_value(n, dimensions[n], v, limit) for n, v in wish.items() if n in dimensions
    }
    architecture = given.get("architecture")
    if architecture is not None:
        model = spec.model.model_copy(update={"architecture": architecture})
        spec = spec.model_copy(update={"model": model})
    default = spec.default_configuration_params()
    whole = {name: given.get(name, value) for name, value in default.items()}
    fitting = fitted(spec, whole, image_shape, keep=given)
    if fitting is None:
        configuration = spec.configuration(whole)
        raise WishError(
            f"an enqueued trial must have at most {spec.search.max_parameters} weights "
            f"(search.max_parameters), got {n_parameters(configuration, image_shape)} with "
            f"{described(configuration)}; leave that trial out, or give a study with a larger "
            "limit a name of its own"
        )
    return fitting


def checked_value(name: str, dimension: Dimension, value: Any, limit: int | None = None) -> Any:
    """Give a value as its dimension has it.

    Parameters
    ----------
    name : str
    dimension : Dimension
    value : object
    limit : int, optional
        Weights that a network may have, which may be why the dimension lacks the value.

    Raises
    ------
    WishError
        The dimension does not have it.
    """
    if name in ("hidden", "channels") and isinstance(value, list | tuple | int):
        value = hidden_name(hidden_widths(value))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(dimension, Range):
        if number and math.isfinite(value) and dimension.nearest(value) == value:
            return int(value) if dimension.integer else float(value)
        steps = "" if dimension.step is None else f" in steps of {dimension.step}"
        values = f"from {dimension.low} to {dimension.high}{steps}"
    else:
        for choice in dimension.choices:
            if choice == value and (number or isinstance(value, str)):
                return choice  # 8.0 is 8: the store knows the latter
        values = f"one of {', '.join(map(str, dimension.choices))}"
    if limit is not None and name in DECIDE_WEIGHTS:
        values += f" (more than search.max_parameters, {limit}, is left out)"
    raise WishError(
        f"{name} of an enqueued trial must be {values}, got {value!r}; leave that trial out, or "
        f"give a study with another space.{name} a name of its own"
    )


def _as_fixed(spec: ResolvedSpec, name: str, value: Any) -> bool:
    configuration = spec.configuration({})
    if name == "hidden":
        return configuration.architecture != "dense" or configuration.hidden == hidden_widths(value)
    if name == "channels":
        return configuration.channels == hidden_widths(value)
    return bool(getattr(configuration, name) == value)
