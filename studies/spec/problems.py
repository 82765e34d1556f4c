"""Turns what pydantic finds wrong into problems in plain words; no rule of a study lives here."""

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from aesearch.studies.errors import SpecError

Path = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

_RULES_TYPE = "aesearch_rules"
_MISSING = "must be given"
_LONGEST_VALUE = 120
# Tags of the two forms of a dimension: pydantic puts them into its locations, users never wrote
# them. No key of a YAML file can be confused with them where they appear (right below a name).
RANGE_TAG = "<range>"
CHOICES_TAG = "<choices>"
AUTO_TAG = "<auto>"
_TAGS = {RANGE_TAG, CHOICES_TAG, AUTO_TAG}


class Problem(NamedTuple):
    """One broken rule.

    Attributes
    ----------
    path : tuple of str or int
        Where, from the model that reports it.
    text : str
        ``must <rule>, got <value>``, complete.
    uses : tuple of paths
        Other values the rule compares with, from the root: when one of them is itself
        broken, the comparison means nothing and is not reported.
    """

    path: Path
    text: str
    uses: tuple[Path, ...] = ()


def shown(value: Any) -> str:
    """Give the ``repr`` of a value, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def must(rule: str, value: Any, path: Path = (), uses: tuple[Path, ...] = ()) -> Problem:
    """State one broken rule in the grammar of all errors."""
    return Problem(path, f"must {rule}, got {shown(value)}", uses)


def broken(*problems: Problem) -> PydanticCustomError:
    """Give the error a validator raises to report any number of problems at once."""
    text = "; ".join(problem.text for problem in problems)
    return PydanticCustomError(_RULES_TYPE, "{text}", {"text": text, "problems": list(problems)})


def validated(
    model: type[Model],
    raw: Mapping[str, Any],
    *,
    source: str,
    lines: Mapping[Path, int] | None = None,
    known_problems: Sequence[str] = (),
) -> Model:
    """Validate a mapping, or report every problem it has.

    Rules that compare values are checked only where the values themselves are
    good; a broken value is therefore replaced by its default and the rest checked again,
    so that one report holds everything.

    Parameters
    ----------
    source : str
        What the mapping is called in the error.
    lines : Mapping of path to line number, optional
        Where each key was written; added to its problems.
    known_problems : Sequence[str]
        Problems found before, reported with the others.

    Raises
    ------
    SpecError
        With every problem, each with its line where that is known.
    """
    remaining = copy.deepcopy(dict(raw))
    found: list[Problem] = []
    removed: list[Path] = []
    result: Model | None = None
    while result is None:
        try:
            result = model.model_validate(remaining)
        except ValidationError as error:
            bad_paths = []
            for problem, bad in _problems(model, error):
                if not _follows(problem, removed):
                    found.append(problem)
                bad_paths.append(bad)
            dropped = [path for path in bad_paths if _drop(remaining, path)]
            removed += dropped
            if not dropped:
                break
    problems = list(known_problems) + [_line(problem, lines or {}) for problem in found]
    if problems or result is None:
        raise SpecError(source, list(dict.fromkeys(problems)))
    return result


def _problems(model: type[BaseModel], error: ValidationError) -> Iterator[tuple[Problem, Path]]:
    """Yield each problem with the path of the value to take out before looking further."""
    details = error.errors(include_url=False)
    lists = {detail["loc"][:-1] for detail in details}
    for detail in details:
        location = _without_tags(detail["loc"])
        if detail["type"] == "too_short" and detail["loc"] in lists:
            # Entries that are wrong are not counted: only they are the user's mistake.
            continue
        if detail["type"] == _RULES_TYPE:
            for problem in detail["ctx"]["problems"]:
                yield problem._replace(path=location + problem.path), location
        elif detail["type"] == "extra_forbidden":
            yield Problem(location, _unknown_key(model, location)), location
        elif detail["type"] == "missing":
            yield Problem(location, _MISSING), location[:-1]
        else:
            yield must(_rule(detail), detail["input"], location), location


def _without_tags(location: Path) -> Path:
    return tuple(p for i, p in enumerate(location) if i != 2 or p not in _TAGS)


def _rule(detail: Any) -> str:
    """Say what a value must be, from pydantic's error type; its own words as the last resort."""
    context = detail.get("ctx", {})
    fixed = {
        "int_type": "be a whole number",
        "int_from_float": "be a whole number",
        "int_parsing_size": "be a smaller whole number",
        "float_type": "be a number",
        "finite_number": "be finite",
        "bool_type": "be true or false",
        "string_type": "be text",
        "tuple_type": "be a list",
        "model_type": "be a mapping of keys to values",
        "union_tag_not_found": "be {low, high} or {choices} or null",
    }
    bounds = {
        "greater_than": ("be >", "gt"),
        "greater_than_equal": ("be >=", "ge"),
        "less_than": ("be <", "lt"),
        "less_than_equal": ("be <=", "le"),
        "string_too_short": ("be text of length >=", "min_length"),
        "string_too_long": ("be text of length <=", "max_length"),
        "too_short": ("be a list of length >=", "min_length"),
        "too_long": ("be a list of length <=", "max_length"),
    }
    if detail["type"] in fixed:
        return fixed[detail["type"]]
    if detail["type"] in bounds:
        words, key = bounds[detail["type"]]
        bound = context[key]
        return f"{words} {int(bound) if bound == int(bound) else bound}"
    if detail["type"] == "literal_error" and context["expected"] == "'auto'":
        return "be {choices}, auto or null"
    if detail["type"] == "literal_error":
        expected: str = context["expected"]
        return "be " + expected.replace("'", "")
    return f"be valid ({detail['msg']})"


def _unknown_key(model: type[BaseModel], location: Path) -> str:
    *parents, key = location
    siblings = [model]
    for parent in parents:
        siblings = [
            inner
            for outer in siblings
            if parent in outer.model_fields
            for inner in _models_in(outer.model_fields[str(parent)].annotation)
        ]
    for sibling in siblings:
        hint = getattr(sibling, "REFUSED_KEYS", {}).get(key)
        if hint is not None:
            return str(hint)
    allowed = list(dict.fromkeys(name for sibling in siblings for name in sibling.model_fields))
    if key in allowed:
        return "must not be given beside choices"
    close = difflib.get_close_matches(str(key), allowed, n=1)
    if not close:
        elsewhere = dict(reversed(list(_leaves(model, ""))))
        names = difflib.get_close_matches(str(key), elsewhere, n=1)
        close = [elsewhere[name] for name in names]
    if close:
        return f"unknown key; did you mean '{close[0]}'?"
    return f"unknown key; known here: {', '.join(allowed)}"


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]


def _leaves(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield (name, dotted path) of every key of a mapping of keys, outer sections first."""
    for name, info in model.model_fields.items():
        yield name, prefix + name
        inner = _models_in(info.annotation)
        if len(inner) == 1:
            yield from _leaves(inner[0], f"{prefix}{name}.")


def _follows(problem: Problem, removed: Sequence[Path]) -> bool:
    """Whether a problem only exists because broken values were taken out before."""
    if problem.text == _MISSING:
        parent = problem.path[:-1]
        return any(path[: len(parent)] == parent for path in removed)
    return any(_overlap(p, path) for p in (problem.path, *problem.uses) for path in removed)


def _overlap(one: Path, other: Path) -> bool:
    n = min(len(one), len(other))
    return one[:n] == other[:n]


def _drop(tree: Any, path: Path) -> bool:
    """Take the value at ``path`` out of nested mappings; a list that holds it goes as a whole."""
    for i, part in enumerate(path):
        if not isinstance(tree, dict) or part not in tree:
            return False
        if i == len(path) - 1 or not isinstance(tree[part], dict):
            del tree[part]
            return True
        tree = tree[part]
    return False


def _line(problem: Problem, lines: Mapping[Path, int]) -> str:
    path, text = problem.path, problem.text
    # A key that is absent, or an entry of a list, is looked for where its parent stands.
    place = path[:-1] if text == _MISSING or (path and isinstance(path[-1], int)) else path
    dotted = ".".join(map(str, path)) or "specification"
    return f"{dotted}: {text}" + (f" (line {lines[place]})" if place in lines else "")
