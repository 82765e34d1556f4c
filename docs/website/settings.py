"""Every setting of a specification as tables, made from the committed JSON Schema."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from mkdocs.structure.pages import Page

SCHEMA = Path(__file__).resolve().parents[1] / "spec.schema.json"
HEAD = "| setting | default | what it is |\n| --- | --- | --- |"


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Put the tables at the end of their page."""
    if page.file.src_uri != "docs/specification.md":
        return markdown
    return "\n\n".join([markdown, *tables(json.loads(SCHEMA.read_text()))])


def tables(schema: Mapping[str, Any]) -> Iterator[str]:
    """Write a table of what belongs to no section, then one for each section."""
    sections = {name: found for name, found in schema["properties"].items() if "$ref" in found}
    plain = {name: found for name, found in schema["properties"].items() if name not in sections}
    yield "\n".join([HEAD, *rows({"properties": plain}, "", schema["$defs"])])
    for name, section in sections.items():
        yield f"## {name}\n\n{section['description']}"
        found = _defined(section, schema["$defs"])
        yield "\n".join([HEAD, *rows(found, "", schema["$defs"])])


def rows(section: Mapping[str, Any], prefix: str, defined: Mapping[str, Any]) -> Iterator[str]:
    """Write one row per setting; those of a section within a section stand among them."""
    for name, found in section["properties"].items():
        if "$ref" in found:
            yield from rows(_defined(found, defined), f"{prefix}{name}.", defined)
            continue
        words = [found["description"]]
        if allowed := list(_allowed(found)):
            words.append(f"One of {', '.join(f'`{value}`' for value in allowed)}.")
        cells = f"`{prefix}{name}`", f"`{_as_yaml(found.get('default'))}`", " ".join(words)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        for kind in found.get("anyOf", ()):
            if kind.get("$ref", "").endswith("Spec"):  # a section that may be left out
                yield from rows(_defined(kind, defined), f"{prefix}{name}.", defined)


def _defined(found: Mapping[str, Any], defined: Mapping[str, Any]) -> Mapping[str, Any]:
    section: Mapping[str, Any] = defined[found["$ref"].removeprefix("#/$defs/")]
    return section


def _allowed(found: Mapping[str, Any]) -> Iterator[str]:
    """Give the words that a setting takes, where it takes words only."""
    kinds = [kind for kind in found.get("anyOf", [found]) if kind.get("type") != "null"]
    if all("enum" in kind or "const" in kind for kind in kinds):
        for kind in kinds:
            yield from kind.get("enum", [kind.get("const")])


def _as_yaml(value: Any) -> str:
    """Write a default as it would stand in a file, without what says nothing."""
    if isinstance(value, dict):
        value = {key: part for key, part in value.items() if part not in (None, False)}
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")
