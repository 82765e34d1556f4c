"""The site of docs/: what must fail its build, and what its own hooks make."""

import importlib.util
import json
import logging
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace

import griffe
import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort, PluginError

ROOT = Path(__file__).resolve().parents[2]


def hook(name):
    """One of the modules that MkDocs loads by their path."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "website" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def built(folder, readme):
    """Build the site of a small repository with the settings of ours, without the reference."""
    shutil.copytree(ROOT / "docs" / "website", folder / "docs" / "website")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    (folder / "README.md").write_text(readme)
    (folder / "LICENSE").write_text("Free.")
    (folder / "docs" / "page.md").write_text("# Page\n\n[back](../README.md#start)\n")
    (folder / "docs" / "reports").mkdir()
    (folder / "docs" / "reports" / "record.json").write_text("{}")
    config = load_config(
        str(folder / "mkdocs.yml"),
        nav=["README.md", "docs/page.md"],
        plugins=[],
        hooks=["docs/website/pages.py"],
        extra_css=[],
        watch=[],
    )
    try:
        build(config)
    finally:
        logging.getLogger("mkdocs").handlers.clear()
    return folder / "build" / "site"


def test_links_of_the_repository_hold_in_the_site(tmp_path):
    """Files keep their places, so that no link is rewritten; records of studies stay out."""
    site = built(tmp_path, "# Start\n\n[page](docs/page.md), [licence](LICENSE)\n")
    index = (site / "index.html").read_text()
    assert 'href="docs/page/">page</a>' in index
    assert (site / "LICENSE").read_text() == "Free."
    assert not list(site.rglob("record.json"))


@pytest.mark.parametrize("link", ["docs/pages.md", "docs/page.md#nowhere", "#nowhere", "/docs"])
def test_a_broken_link_fails_the_build(tmp_path, link):
    """To a file, to a heading of another page or of its own, from the root of a server."""
    with pytest.raises(Abort, match="strict mode"):
        built(tmp_path, f"# Start\n\n[page]({link})\n")


PACKAGE = '''
"""A package."""
from aesearch.other import Thing, shown, hidden
__all__ = ["Thing", "hidden", "shown"]
'''
OTHER = '''
class Found:
    """A result."""

class Thing:
    """A thing."""

    def method(self, number: int) -> Found:
        """Do it."""

    def _private(self): ...

def shown(first: int, second: int):
    """Show it.

    Parameters
    ----------
    first : int
    """

def hidden():
    """Is not in the reference."""
'''


def problems_of(names, tmp_path, monkeypatch):
    """Say what is wrong with a site that shows some names of a small package."""
    (tmp_path / "aesearch").mkdir()
    for name, text in {"__init__": PACKAGE, "other": OTHER, "frames": "", "sklearn": ""}.items():
        (tmp_path / "aesearch" / f"{name}.py").write_text(text)
    lines = "\n".join(f"{name} py:function 1 reference.html#$ -" for name in names)
    head = b"# Sphinx inventory version 2\n# Project: x\n# Version: 0\n# packed\n"
    (tmp_path / "objects.inv").write_bytes(head + zlib.compress(lines.encode()))
    public_names = hook("public_names")
    monkeypatch.setattr(public_names, "INSTALLED", tmp_path)
    with pytest.raises(PluginError) as error:
        public_names.on_post_build(SimpleNamespace(site_dir=str(tmp_path)))
    return str(error.value).splitlines()[1:]


def test_what_the_reference_lacks_fails_the_build(tmp_path, monkeypatch):
    """A name, a class that a method returns, a parameter; what is private may be missing."""
    shown = ["aesearch.Thing", "aesearch.Thing.method", "aesearch.shown"]
    assert problems_of(shown, tmp_path, monkeypatch) == [
        "  - aesearch.Thing.method: its docstring must describe 'number'",
        "  - aesearch.hidden: must be in docs/reference.md, with a docstring",
        "  - aesearch.other.Found: must be in docs/reference.md, with a docstring",
        "  - aesearch.shown: its docstring must describe 'second'",
    ]


def test_parameters_on_one_line_have_each_their_own_type(tmp_path):
    """Griffe gives all of them the type and the default of the first."""
    (tmp_path / "small.py").write_text(
        'def f(a: int, b: str = "x"):\n    """F.\n\n    Parameters\n    ----------\n'
        '    a, b\n        Both.\n    """\n'
    )
    extensions = griffe.load_extensions(hook("signatures").Signatures())
    module = griffe.load(
        "small", search_paths=[tmp_path], docstring_parser="numpy", extensions=extensions
    )
    (section,) = (part for part in module["f"].docstring.parsed if part.kind.value == "parameters")
    found = [(one.name, str(one.annotation), one.value) for one in section.value]
    assert found == [("a", "int", None), ("b", "str", "'x'")]


def test_every_setting_has_a_row():
    """With its default, and the words that it takes."""
    schema = json.loads((ROOT / "docs" / "spec.schema.json").read_text())
    text = "\n".join(hook("settings").tables(schema))
    assert "| `seed` | `0` |" in text
    assert "| `dense.hidden` | `auto` |" in text
    assert "| `learning_rate` | `{low: 0.001, high: 0.008, log: true}` |" in text
    assert "One of `adam`, `adamw`, `sgd`." in text
    sections = [found for name, found in schema["$defs"].items() if name.endswith("Spec")]
    n_settings = sum(
        "$ref" not in found for one in [schema, *sections] for found in one["properties"].values()
    )
    assert text.count("\n| `") == n_settings
