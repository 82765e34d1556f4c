"""What the wheel installs, who imports whom, and what an import costs."""

import ast
import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import aesearch
from aesearch import outputs
from aesearch.studies.spec.load import json_schema

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = PROJECT["tool"]["setuptools"]["package-dir"]
SOURCES = sorted(
    path for folder in ("search", "models", "studies") for path in (ROOT / folder).rglob("*.py")
)


def module_of(path):
    """The dotted name that a source file is installed under."""
    names = {"search": "aesearch", "models": "aesearch.models", "studies": "aesearch.studies"}
    first, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([names[first], *rest])


def imported(path):
    """Every module that a source file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_package_is_listed():
    """The packages of pyproject.toml are those of the tree; a new folder is not forgotten."""
    folders = {str(path.parent.relative_to(ROOT)) for path in SOURCES}
    assert set(FOLDERS.values()) == folders
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == set(FOLDERS)


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_keep_to_the_layers(path):
    """Tensors know no rows, rows know no tensors: ``models`` and ``studies`` stay apart."""
    ours = {name for name in imported(path) if name.split(".")[0] == "aesearch"}
    others = {name.split(".")[0] for name in imported(path)} - {"aesearch"}
    layer = path.relative_to(ROOT).parts[0]
    if layer == "models":
        assert all(name.startswith("aesearch.models") for name in ours)
        assert others <= {"torch", *sys.stdlib_module_names}
    elif layer == "studies":
        assert all(name.startswith("aesearch.studies") for name in ours)
        assert not others & {"torch", "torchvision", "safetensors"}
    assert not others & {"pickle", "dill", "cloudpickle", "joblib"}


def test_tab_completion_shows_the_public_names():
    """All of them before any was used, no module of ours, and at no cost."""
    code = "import sys, aesearch; print(*dir(aesearch), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*sorted(aesearch.__all__), "False"]


def test_type_checkers_see_what_a_program_gets():
    """Each public name is imported for them under the name that it has, from where it is."""
    tree = ast.parse((ROOT / "search" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name: (line.module, alias.name)
        for line in block.body
        for alias in line.names
    }
    assert sorted([*seen, "__version__"]) == sorted(aesearch.__all__)
    for public, (module, name) in seen.items():
        found = getattr(importlib.import_module(module), name)
        assert getattr(aesearch, public) is found, public


def test_the_wheel_installs_one_name(tmp_path):
    """``aesearch`` and nothing else: no top-level ``models`` that another project would meet."""
    source = tmp_path / "source"  # a copy: an old build folder would put old files into the wheel
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in ("search", "models", "studies"):
        shutil.copytree(ROOT / folder, source / folder)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path]
    result = subprocess.run([*command, source], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"aesearch"}
    presets = {p.name for p in (ROOT / "studies" / "presets").glob("*.yaml")}
    assert presets
    assert {f"aesearch/studies/presets/{name}" for name in presets} <= set(names)
    assert {"aesearch/py.typed", "aesearch/models/training/population.py"} <= set(names)


def test_the_compose_file_is_valid():
    """docker-compose.yml keeps to the Compose specification."""
    command = [sys.executable, "-m", "check_jsonschema"]
    command += ["--builtin-schema", "vendor.compose-spec", str(ROOT / "docker-compose.yml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_schema_for_editors_is_current():
    """The committed JSON Schema is the one of the code."""
    committed = json.loads((ROOT / "docs" / "spec.schema.json").read_text())
    assert committed == json_schema(), "run: aesearch presets --schema > docs/spec.schema.json"


def test_the_schema_of_what_is_printed_as_json_is_current():
    """Of all commands with --json."""
    committed = json.loads((ROOT / "docs" / "json.schema.json").read_text())
    assert committed == outputs.json_schema(), (
        "run: python -m aesearch.outputs > docs/json.schema.json"
    )


def test_what_decides_the_last_digits_of_a_suggestion_is_a_dependency():
    """Optuna's Gaussian process suggests other trials where greenlet is not installed."""
    named = {re.match(r"[\w-]+", word).group() for word in PROJECT["project"]["dependencies"]}
    assert "greenlet" in named
    assert importlib.util.find_spec("greenlet") is not None
