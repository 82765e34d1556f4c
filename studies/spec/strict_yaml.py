"""Reads YAML text strictly into plain values with their lines; knows nothing about studies.

Of YAML this is the part that people write: mappings, lists, text, numbers, true, false, null, as
YAML 1.2 reads them (1e-4 is a number, "no" is text, 010 is ten). Tags, anchors, aliases
and repeated keys are refused: they execute code, blow up, or hide a mistake.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from aesearch.studies.errors import SpecError

LARGEST_BYTES = 1_000_000
DEEPEST_NESTING = 20

KeyPath = tuple[str | int, ...]
# What a YAML document holds; of a specification, its keys with values that nobody checked yet.
Yaml = None | bool | int | float | str | list["Yaml"] | dict[str, "Yaml"]
Tree = dict[str, Yaml]
# Values by dotted path that are laid over it: NumPy's too, as they were given.
Flags = Mapping[str, Any]

_FLOAT = re.compile(
    r"^[-+]?(?:[0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$"
    r"|^\.(?:nan|NaN|NAN)$"
)
_INT = re.compile(r"^[-+]?[0-9]+$")
_PREFIX = "tag:yaml.org,2002:"


class StrictLoader(yaml.SafeLoader):
    """PyYAML with the plain scalars of YAML 1.2 and nothing else."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML's own protocol


# Order counts: a whole number matches both patterns and must be found as one.
StrictLoader.add_implicit_resolver(
    _PREFIX + "bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
StrictLoader.add_implicit_resolver(
    _PREFIX + "null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
StrictLoader.add_implicit_resolver(_PREFIX + "int", _INT, list("-+0123456789"))
StrictLoader.add_implicit_resolver(_PREFIX + "float", _FLOAT, list("-+.0123456789"))


class StrictDumper(yaml.SafeDumper):
    """Writes what ``StrictLoader`` and any YAML 1.1 reader both read back as it was."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's own protocol
        """Write repeated values out: aliases are refused when reading."""
        return True


StrictDumper.add_implicit_resolver(_PREFIX + "float", _FLOAT, list("-+.0123456789"))
StrictDumper.add_implicit_resolver(_PREFIX + "int", _INT, list("-+0123456789"))


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Line breaks of Unicode are folded to spaces unless they are written as escapes.
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar(_PREFIX + "str", text, style=style)


StrictDumper.add_representer(str, _text)
StrictDumper.add_representer(
    list, lambda d, data: d.represent_sequence(_PREFIX + "seq", data, flow_style=True)
)


def read_text(path: Path) -> str:
    """Read a file of UTF-8 text.

    Raises
    ------
    SpecError
        If it is missing, a folder, over 1 MB, unreadable or not UTF-8.
    """
    try:
        # One byte more than allowed tells too much from just enough, whatever the file is.
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise SpecError(str(path), ["must be a file, got nothing at this path"]) from None
    except IsADirectoryError:
        raise SpecError(str(path), ["must be a file, got a folder"]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(str(path), [f"must be readable, got: {reason}"]) from None
    if len(content) > LARGEST_BYTES:
        raise SpecError(str(path), [f"must be at most {LARGEST_BYTES:,} bytes, got more"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = content[error.start]
        raise SpecError(
            str(path), [f"line {line}: must be UTF-8 text, got byte 0x{found:02x}"]
        ) from None


def parse(text: str, source: str) -> tuple[Any, dict[KeyPath, int]]:
    """Read one YAML document.

    Returns
    -------
    value : None, bool, int, float, str, list or dict
        None for an empty document; the keys of mappings are text.
    lines : dict of path to int
        The line, from 1, of every key.

    Raises
    ------
    SpecError
        With every problem that can be found, each with its line.
    """
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST_BYTES:
        raise SpecError(source, [f"must be at most {LARGEST_BYTES:,} bytes, got more"])
    try:
        problems = _event_problems(text)
        if problems:
            raise SpecError(source, problems)
        node = StrictLoader(text).get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        # PyYAML gives the character as a number or as text, depending on where it looked.
        found = error.character if isinstance(error.character, int) else ord(error.character)
        problem = f"line {line}: must be printable text, got character U+{found:04X}"
        raise SpecError(source, [problem]) from None
    except yaml.MarkedYAMLError as error:
        raise SpecError(source, [_syntax_problem(error, text)]) from None
    lines: dict[KeyPath, int] = {}
    value = None if node is None else _plain(node, (), lines, problems)
    if problems:
        raise SpecError(source, problems)
    return value, lines


def _event_problems(text: str) -> list[str]:
    """Find what is refused before anything is built: the event stream needs no recursion."""
    problems = []
    depth, n_documents = 0, 0
    event: Any
    for event in yaml.parse(text, Loader=StrictLoader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            problems.append(f"line {line}: must not use aliases, got *{event.anchor}")
            continue
        if getattr(event, "anchor", None) is not None:
            problems.append(f"line {line}: must not use anchors, got &{event.anchor}")
        if getattr(event, "tag", None) is not None:
            tag = event.tag.replace(_PREFIX, "!!")
            problems.append(f"line {line}: must not use tags, got {tag}")
        n_documents += isinstance(event, yaml.DocumentStartEvent)
        if n_documents > 1:
            problems.append(
                f"line {line}: must be one document, got a second one "
                "(several studies are one document with the key studies)"
            )
            break
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_NESTING:
            problems.append(f"line {line}: must be nested at most {DEEPEST_NESTING} deep, got more")
            break
    return problems


def _syntax_problem(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines() or [""]
    if error.context_mark is not None and mark is not None and mark.line >= len(lines):
        # Found at the end of the file: what was never closed starts earlier.
        mark = error.context_mark
    number = 0 if mark is None else min(mark.line, len(lines) - 1)
    written = lines[number]
    if "\\t" in str(error.problem):
        return f"line {number + 1}: must be indented with spaces, got a tab"
    context = f"{error.context}, " if error.context else ""
    return f"line {number + 1}: must be YAML, got {written.strip()!r} ({context}{error.problem})"


def _plain(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], problems: list[str]) -> Any:
    """Build the value of a node; depth is bounded by ``_event_problems``."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, i), lines, problems) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(f"line {line}: must have words as keys, got a list or mapping")
                continue
            key = key_node.value
            inner = (*path, key)
            dotted = ".".join(map(str, inner))
            if key in mapping:
                problems.append(
                    f"{dotted}: must be given once, got it again on line {line}"
                    f" (first on line {lines[inner]})"
                )
                continue
            lines[inner] = line
            mapping[key] = _plain(value_node, inner, lines, problems)
        return mapping
    return _scalar(node, path, problems)


def _scalar(node: yaml.Node, path: KeyPath, problems: list[str]) -> Any:
    kind = node.tag.removeprefix(_PREFIX)
    if kind == "null":
        return None
    if kind == "bool":
        return node.value.lower() == "true"
    if kind == "float":
        text = node.value.lower()
        return float(text.replace(".", "") if text.endswith(("inf", "nan")) else text)
    if kind == "int":
        try:
            return int(node.value)
        except ValueError:
            # Python reads at most 4300 digits.
            dotted = ".".join(map(str, path)) or "value"
            line = node.start_mark.line + 1
            problems.append(
                f"{dotted}: must be a shorter number, got too many digits (line {line})"
            )
            return 0
    return node.value
