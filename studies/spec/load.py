"""Specifications as YAML: load in layers, write, compare, describe; the rules are in study.py."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from aesearch.studies.errors import SpecError
from aesearch.studies.presets import preset_text
from aesearch.studies.spec.problems import validated
from aesearch.studies.spec.space import SEARCHABLE, SpaceSpec
from aesearch.studies.spec.strict_yaml import Flags, KeyPath, StrictDumper, Tree, parse, read_text
from aesearch.studies.spec.study import L2_WEIGHT_DECAYS, StudySpec, adds_decay

RESULT = "result"
_RANGE_KEYS = {"low", "high", "log", "step"}
# Sections that may be left empty in a file, which YAML reads as null.
_SECTIONS = (
    *((name,) for name in ("data", "model", "training", "space", "search", "retrain")),
    ("evaluation",),
    ("compute",),
    ("model", "dense"),
    ("model", "conv"),
    ("evaluation", "robustness"),
)
# What may change between two runs of one study: how many trials, when to stop, where the same
# images lie and how they are read, which trial is chosen, and how that one is retrained and
# measured. The rest decides the table; so do the settings of the retraining where the trials are
# scored by it.
MAY_DIFFER_ON_RESUME = (
    "search.trials",
    "search.timeout",
    "search.stop",
    "search.select",
    "search.objectives",
    "data.data_dir",
    # What these make of the images is compared itself.
    "data.test",
    "data.noisy",
    "data.noisy_test",
    "data.labels",
    "data.resize",
    "data.colour",
    "data.background",
    "data.white",
    "data.pages",
    "data.bad_files",
    "data.delimiter",
    "data.image_shape",
    "description",
    "retrain.",
    "evaluation.",
)


class _Inline(dict[str, Any]):
    """A mapping that is written on one line."""


StrictDumper.add_representer(
    _Inline,
    lambda dumper, data: dumper.represent_mapping(
        "tag:yaml.org,2002:map", data.items(), flow_style=True
    ),
)


def load_spec(
    preset: str | None = None,
    file: Path | None = None,
    text: str | None = None,
    overrides: Sequence[str] = (),
    flags: Flags | None = None,
    *,
    spec: StudySpec | None = None,
) -> StudySpec:
    """Give the specification that several layers add up to, each stronger than the one before.

    The layers: defaults, then one of preset, file, text and spec, then flags, then overrides.

    Parameters
    ----------
    preset : str, optional
        Name of a preset. Its description is left out where flags or overrides name other images.
    file : Path, optional
        A YAML file.
    text : str, optional
        YAML.
    overrides : Sequence[str]
        ``KEY=VALUE`` each, as ``space.encoding_dim.choices=[4, 8]``; the value is YAML.
    flags : Mapping, optional
        Values by dotted path. None is a value: it removes a dimension or a limit.

    Raises
    ------
    SpecError
        With every problem of all layers.
    """
    raw, lines, source = read_base(preset, file, text, spec)
    if "studies" in raw:
        rule = "must be absent where one study is meant; 'aesearch run' runs each of them"
        raise SpecError(source, [f"studies: {rule}"])
    return layered(
        raw,
        lines,
        source,
        flags=flags or {},
        overrides=overrides,
        of_preset=preset is not None,
    )


def read_base(
    preset: str | None, file: Path | None, text: str | None, spec: StudySpec | None
) -> tuple[Tree, dict[KeyPath, int], str]:
    """Read what a specification starts from: its keys, their lines, and what errors call it.

    Raises
    ------
    SpecError
        If it starts from several, or from anything but a mapping.
    """
    if sum(layer is not None for layer in (preset, file, text, spec)) > 1:
        raise SpecError("study", ["must start from one of preset, file, text, spec, got several"])
    source = "study"
    lines: dict[KeyPath, int] = {}
    raw: Any = None
    if preset is not None:
        source = f"preset {preset}"
        raw, lines = parse(preset_text(preset), source)
    elif file is not None:
        source = str(file)
        raw, lines = parse(read_text(Path(file)), source)
    elif text is not None:
        raw, lines = parse(text, source)
    elif spec is not None:
        raw = spec.model_dump(mode="json")
    if raw is None and file is not None:
        rule = "must hold a specification, got nothing; leave it out for the defaults"
        raise SpecError(source, [rule])
    if not isinstance(raw, dict | None):
        raise SpecError(source, [f"must be a mapping of keys to values, got {raw!r:.60}"])
    # What a best.yaml says beside its specification is of the study that it came from.
    return {key: value for key, value in (raw or {}).items() if key != RESULT}, lines, source


def layered(
    raw: Tree,
    lines: Mapping[KeyPath, int],
    source: str,
    *,
    flags: Flags,
    overrides: Sequence[str],
    of_preset: bool,
) -> StudySpec:
    """Lay flags and overrides over what a specification starts from; see ``load_spec``."""
    tree = _without_empty_sections(raw)
    lines = dict(lines)
    problems: list[str] = []
    for key, value in flags.items():
        problems += _put(tree, key, copy.deepcopy(value), lines)
    # The optimizer first: the rest of a dimension that is given in part may go by it.
    for override in sorted(overrides, key=lambda given: "training.optimizer" not in given):
        key, equals, value_text = override.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            problems.append(f"--set: must be KEY=VALUE with a dotted key, got {override!r}")
            continue
        try:
            value, _ = parse(value_text, "--set")
        except SpecError as error:
            problems += [f"--set {key}: {problem}" for problem in error.problems]
            continue
        problems += _put(tree, key, value, lines)
    # A preset's description tells of its images; one that was given beside others stays.
    same = tree.get("description") == raw.get("description")
    if of_preset and same and _dataset_of(tree) != _dataset_of(raw):
        tree.pop("description", None)
    return validated(StudySpec, tree, source=source, lines=lines, known_problems=problems)


def _dataset_of(tree: Tree) -> str:
    """Give the data set in one spelling; names may be in capitals and have other hyphens."""
    data = tree.get("data")
    given = data.get("dataset") if isinstance(data, dict) else None
    name = StudySpec().data.dataset if given is None else str(given)
    return name.lower().replace("-", "").replace("_", "")


def spec_from_mapping(mapping: Mapping[str, Any], source: str) -> StudySpec:
    """Give the specification that was stored as plain values.

    Raises
    ------
    SpecError
        With every problem, under the name ``source``.
    """
    return validated(StudySpec, mapping, source=source)


def _without_empty_sections(raw: Tree) -> Tree:
    tree = copy.deepcopy(raw)
    for *parents, last in reversed(_SECTIONS):
        section: Any = tree
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if isinstance(section, dict) and section.get(last, "absent") is None:
            del section[last]
    return tree


def _put(tree: Tree, key: str, value: Any, lines: dict[KeyPath, int]) -> list[str]:
    """Set a nested value; sections that are absent are made. Return what was in the way."""
    path = tuple(part.strip() for part in key.split("."))
    for place in [place for place in lines if place[: len(path)] == path]:
        del lines[place]
    section = tree
    for depth, part in enumerate(path[:-1], start=1):
        if section.get(part) is None:
            is_dimension = path[:depth] == ("space", part)
            section[part] = _default_dimension(part, tree) if is_dimension else {}
        below = section[part]
        if not isinstance(below, dict):
            dotted = ".".join(path[:depth])
            return [f"{dotted}: must be a mapping of keys to values, got {below!r:.60}"]
        section = below
    last = path[-1]
    if len(path) == 3 and path[0] == "space":
        kept = without_other_form(section, {last: value})
        for other in section.keys() - kept.keys():
            del section[other]
    section[last] = value
    return []


def without_other_form(dimension: Tree, given: Tree) -> Tree:
    """Drop what a dimension cannot keep beside the keys that are given.

    It has one of two forms; what sets a key of one form leaves the other.
    """
    other: set[str] = set()
    if "choices" in given:
        other = _RANGE_KEYS
    elif _RANGE_KEYS & given.keys():
        other = {"choices"}
    return {key: value for key, value in dimension.items() if key not in other}


def _default_dimension(name: str, tree: Tree) -> Tree:
    space, training = tree["space"], tree.get("training")
    if (isinstance(space, dict) and space.get("defaults") is False) or name not in SEARCHABLE:
        return {}
    if name == "weight_decay" and isinstance(training, dict) and adds_decay(training):
        return dict(L2_WEIGHT_DECAYS)
    dimension = getattr(SpaceSpec(), name)
    if dimension is None or dimension == "auto":
        return {}
    written: Tree = dimension.model_dump(mode="json", exclude_none=True)
    return written


def to_yaml(spec: StudySpec) -> str:
    """Write a specification so that ``load_spec(text=...)`` gives an equal one.

    Keys keep the order of the specification; equal specifications give equal text.
    """
    tree = spec.model_dump(mode="json")
    tree["space"] = {
        name: None if value is None else _written_dimension(value)
        for name, value in tree["space"].items()
    }
    return yaml.dump(tree, Dumper=StrictDumper, sort_keys=False, allow_unicode=True, width=100)


def _written_dimension(value: Tree | str) -> _Inline | str:
    if isinstance(value, str):
        return value
    given = {key: inner for key, inner in value.items() if inner is not None}
    # The condition reads better at the end.
    when = given.pop("when", None)
    return _Inline(given | {"when": _Inline(when)} if isinstance(when, dict) else given)


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema of a specification, for editors and for checks."""
    schema = StudySpec.model_json_schema()
    schema["properties"]["studies"] = {
        "title": "Studies",
        "description": "Several studies in one file: what differs between them, by a short name "
        "that ends the name of the study. A file without it is one study.",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"$ref": "#"},
    }
    schema["properties"][RESULT] = {
        "title": "Result",
        "description": "What a best.yaml reached; a search begins without it.",
        "type": "object",
    }
    # pydantic names generic classes after their whole annotation; their titles are readable.
    names = {old: definition["title"] for old, definition in schema["$defs"].items()}
    assert len(set(names.values())) == len(names)
    renamed = _renamed(schema, {f"#/$defs/{old}": f"#/$defs/{new}" for old, new in names.items()})
    renamed["$defs"] = {names[old]: value for old, value in renamed["$defs"].items()}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **renamed}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def diff(old: StudySpec, new: StudySpec, *, may_differ: tuple[str, ...] | None = None) -> list[str]:
    """List what keeps ``new`` from going on with a study that was created as ``old``.

    Parameters
    ----------
    may_differ : tuple of str, optional
        What the keys that do not matter begin with. Without it, for a study that goes on: the
        number of trials, the time limit, where the images lie, the description, the choice, the
        evaluation, and the retraining (its seeds alone where the trials are scored by it).

    Returns
    -------
    list of str
        ``search.folds: 3 -> 5`` each, in the order of the specification; empty if nothing
        that matters differs.
    """
    if may_differ is None:
        kept = "retrain." if not old.scores_delivery else "retrain.seeds"
        may_differ = tuple(kept if key == "retrain." else key for key in MAY_DIFFER_ON_RESUME)
    before_tree, after_tree = (spec.model_dump(mode="json") for spec in (old, new))
    return [
        f"{key}: {_word(before)} -> {_word(after)}"
        for key, before, after in _changes(before_tree, after_tree, "")
        if not key.startswith(may_differ)
    ]


def _changes(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield (path, before, after) of the smallest parts that differ and exist on both sides."""
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        for key in before:
            yield from _changes(before[key], after[key], f"{path}.{key}" if path else key)
    elif before != after:
        yield path, before, after


def _word(value: Any) -> str:
    """Write one value as YAML would, on one line."""
    if isinstance(value, dict):
        value = _written_dimension(value)
    written = yaml.dump(
        value, Dumper=StrictDumper, default_flow_style=True, width=10**9, allow_unicode=True
    )
    return written.removesuffix("\n").removesuffix("\n...")
