"""The public names, each of which must be in the reference, with all its parameters."""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

INSTALLED = Path(__file__).resolve().parents[2] / "build" / "check"
PUBLIC_MODULES = ("aesearch", "aesearch.frames", "aesearch.sklearn")

Member = griffe.Object | griffe.Alias


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site whose reference lacks a public name, or one that leaves a parameter out."""
    package = griffe.load("aesearch", search_paths=[INSTALLED], docstring_parser="numpy")
    shown = inventory(Path(config.site_dir) / "objects.inv")
    problems = []
    for name, member in public_names(package):
        missing = {name, *our_types(member)} - shown
        problems += [f"{one}: must be in docs/reference.md, with a docstring" for one in missing]
        problems += [
            f"{name}: its docstring must describe {parameter!r}"
            for parameter in undescribed(member)
        ]
    if problems:
        raise PluginError("\n  - ".join(["the reference is not complete:", *sorted(set(problems))]))


def public_names(package: Member) -> Iterator[tuple[str, Member]]:
    """Names that users may rely on: of the public modules, and the methods of their classes."""
    for module in PUBLIC_MODULES:
        _, _, submodule = module.partition(".")
        for name, member in (package[submodule] if submodule else package).members.items():
            if not member.is_public or member.is_module or name.startswith("_"):
                continue
            yield f"{module}.{name}", member
            if member.is_class:
                for method, of in member.members.items():
                    if not method.startswith("_") and (of.is_function or "property" in of.labels):
                        yield f"{module}.{name}.{method}", of


def our_types(member: Member) -> set[str]:
    """Classes of aesearch that a function returns, or that a property is."""
    annotation = None if member.is_class else member.annotation
    parts = annotation.iterate() if isinstance(annotation, griffe.Expr) else ()
    paths = {part.canonical_path for part in parts if isinstance(part, griffe.ExprName)}
    return {path for path in paths if path.startswith("aesearch.")}


def undescribed(member: Member) -> set[str]:
    """Parameters that a docstring does not describe: in their section, or in its words."""
    if not member.is_function or member.docstring is None:
        return set()
    described = set(re.findall(r"\w+", member.docstring.value))
    for section in member.docstring.parsed:
        if section.kind is griffe.DocstringSectionKind.parameters:
            described = {parameter.name for parameter in section.value}
    return {parameter.name for parameter in member.parameters} - {"self", "cls"} - described


def inventory(path: Path) -> set[str]:
    """Read the names in a Sphinx inventory: what has a place of its own in the site."""
    *_, packed = path.read_bytes().split(b"\n", 4)
    return {line.split()[0] for line in zlib.decompress(packed).decode().splitlines()}
