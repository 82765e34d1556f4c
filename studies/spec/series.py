"""Several studies in one specification: what they share, and what differs between them.

A specification with the key ``studies`` is a *series*: its other keys hold for every study, and
each entry of ``studies`` changes some of them. The studies are run one after another; each is a
study like any other. A specification without that key is a series of one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aesearch.studies.errors import SpecError
from aesearch.studies.spec.load import layered, read_base, without_other_form
from aesearch.studies.spec.quick import quick_spec
from aesearch.studies.spec.strict_yaml import Flags, KeyPath, Tree
from aesearch.studies.spec.study import StudySpec

KEY = "studies"
# What stands at the end of a study's name is read in tables and folder names.
LONGEST_WORD = 60


def load_series(
    preset: str | None = None,
    file: Path | None = None,
    text: str | None = None,
    overrides: Sequence[str] = (),
    flags: Flags | None = None,
    *,
    spec: StudySpec | None = None,
    quick: bool = False,
) -> list[StudySpec]:
    """Give the specification of every study of a series, in the order of the file.

    The layers: defaults, then what the studies share, then what is a study's own, then flags,
    then overrides, then ``quick``. A study is called ``<name>-<its word in studies>``; where the
    series has no name it takes the preset's or the file's.

    Parameters
    ----------
    preset, file, text, overrides, flags, spec
        As for ``load_spec``; flags and overrides change every study.
    quick : bool
        Give the small version of each; see ``quick_spec``.

    Raises
    ------
    SpecError
        With every problem of the first study that has one.
    """
    raw, lines, source = read_base(preset, file, text, spec)
    given = dict(flags or {})
    if KEY not in raw:
        found = [
            layered(
                raw,
                lines,
                source,
                flags=given,
                overrides=overrides,
                of_preset=preset is not None,
            )
        ]
    else:
        variants = _checked(raw[KEY], source)
        if "name" in map(_key, overrides):
            rule = "must be absent for a series, whose studies have names of their own"
            raise SpecError("--set", [f"name: {rule}; use --study to name the series"])
        base = {key: value for key, value in raw.items() if key != KEY}
        series = given.pop("name", None) or base.get("name") or preset or _stem(file)
        found = [
            layered(
                _merged(base, variant) | {"name": f"{series}-{word}"},
                _lines_of(lines, word),
                f"{source}, study {word}",
                flags=given,
                overrides=overrides,
                of_preset=preset is not None,
            )
            for word, variant in variants.items()
        ]
    return [_quick(spec, source, given, overrides) for spec in found] if quick else found


def _quick(spec: StudySpec, source: str, flags: Flags, overrides: Sequence[str]) -> StudySpec:
    """Make the small version; what was asked for by a flag or override stays as it was asked."""
    return layered(
        quick_spec(spec).model_dump(mode="json"),
        {},
        source,
        flags={key: value for key, value in flags.items() if key != "name"},
        overrides=[each for each in overrides if _key(each) != "name"],
        of_preset=False,
    )


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


def _stem(file: Path | None) -> str:
    return "series" if file is None else Path(file).stem


def _checked(variants: Any, source: str) -> dict[str, Tree]:
    if not isinstance(variants, dict) or not variants:
        problem = "must be a mapping of names to what differs, with one study at least"
        raise SpecError(source, [f"{KEY}: {problem}, got {variants!r:.60}"])
    problems = []
    for word, variant in variants.items():
        if not isinstance(variant, dict | None):
            problems.append(f"{KEY}.{word}: must be a mapping of keys to values, got {variant!r}")
        elif len(word) > LONGEST_WORD:
            problems.append(f"{KEY}: must have names of length <= {LONGEST_WORD}, got {word!r}")
        for key in (KEY, "name"):
            if isinstance(variant, dict) and key in variant:
                rule = "must be absent: its word here ends the name of the study"
                problems.append(f"{KEY}.{word}.{key}: {rule}")
    if problems:
        raise SpecError(source, problems)
    return {word: variant or {} for word, variant in variants.items()}


def _merged(base: Tree, own: Tree, section: str | None = None) -> Tree:
    """Lay one tree over another: mappings are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in own.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            if section == "space":
                below = without_other_form(below, value)
            value = _merged(below, value, key)  # noqa: PLW2901 - what is laid over it
        merged[key] = value
    return merged


def _lines_of(lines: Mapping[KeyPath, int], word: str) -> dict[KeyPath, int]:
    """Lines of the keys of one study: its own, and the shared ones that it leaves alone."""
    own = {path[2:]: line for path, line in lines.items() if path[:2] == (KEY, word) and path[2:]}
    return {path: line for path, line in lines.items() if path[:1] != (KEY,)} | own
