"""The command line says what the specification says, imports nothing heavy, and maps its flags."""

import inspect
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from aesearch.api import search
from aesearch.cli import app
from aesearch.commands import arguments
from aesearch.commands.run import run
from aesearch.options import OptionError
from aesearch.settings import spec_values, study_spec
from aesearch.studies.errors import SpecError
from aesearch.studies.spec.dimensions import Choices
from aesearch.studies.spec.flags import FLAGS, field_of, flag_help
from aesearch.studies.spec.load import to_yaml
from aesearch.studies.spec.space import SEARCHABLE
from aesearch.studies.spec.study import SETTING_OF_DIMENSION


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("0", "model.encoding_dim: must be >= 1, got 0"),
        ("many", "model.encoding_dim: must be a whole number, got 'many'"),
        ("8,x", r"space.encoding_dim.choices.1: must be a whole number, got 'x'"),
        (",", "space.encoding_dim"),
    ],
)
def test_a_code_size_that_is_none_is_named(given, told):
    """With the setting that it is of, and no traceback."""
    with pytest.raises(SpecError, match=re.escape(told)):
        study_spec({"encoding_dim": given})


@pytest.mark.parametrize("name", FLAGS)
def test_the_help_of_a_flag_is_that_of_its_field(name):
    """The first words of the description, every choice, and the default; nothing is said twice."""
    field, default = field_of(FLAGS[name])
    shown = flag_help(name)
    assert shown.startswith(field.description[:15])
    assert all(choice in shown for choice in get_args(field.annotation) if type(choice) is str)
    if isinstance(default, tuple):  # as it is typed
        default = ",".join(default)
    if default is None:
        assert re.search(r"Default: [a-z ']+\.$", shown), "what null stands for"
    elif isinstance(default, Choices):
        assert shown.endswith(f" Default: {','.join(map(str, default.choices))}.")
    else:
        assert shown.endswith(f" Default: {default}.")


@pytest.mark.parametrize("objectives", ["mse, encoding_dim", ["mse", "encoding_dim"]])
def test_objectives_are_a_list_or_words_with_commas(objectives):
    """On the command line, and in Python; a limit of weights is beside them."""
    found = study_spec({"objectives": objectives, "select": "knee", "max_parameters": 9000}).search
    assert found.objectives == ("mse", "encoding_dim")
    assert (found.select, found.max_parameters) == ("knee", 9000)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"objectives": "encoding_dim"}, r"must name mse, and each objective once, got \['enc"),
        ({"objectives": "mse,mse"}, "must name mse, and each objective once"),
        ({"objectives": "mse,size"}, "must be mse, encoding_dim or n_parameters, got 'size'"),
        ({"select": "knee"}, "must be best or one-se unless search.objectives names a size"),
        ({"max_parameters": 0}, "search.max_parameters: must be >= 1, got 0"),
    ],
)
def test_objectives_that_make_no_front_are_refused(options, problem):
    """With the rule."""
    with pytest.raises(SpecError, match=problem):
        study_spec(options)


@pytest.mark.parametrize("name", FLAGS)
def test_the_help_of_run_is_what_the_specification_says(name):
    """The command shows it; a wide terminal breaks no line."""
    done = CliRunner(env={"COLUMNS": "1000", "TERM": "dumb"}).invoke(app, ["run", "--help"])
    assert flag_help(name) in done.stdout


@pytest.mark.parametrize("function", [run, search], ids=["run", "search"])
def test_every_flag_is_an_option_without_a_default_of_its_own(function):
    """The command and the function take every flag, and leave its default to the spec."""
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in FLAGS} == dict.fromkeys(FLAGS)


def all_commands(group=None, words=()):
    """Every command of the program, as the words that are typed."""
    group = typer.main.get_command(app) if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from all_commands(command, (*words, name))
        else:
            yield [*words, name]


COMMANDS = list(all_commands())


HEAVY = ("torch", "optuna", "sklearn", "pandas", "sqlalchemy", "numpy", "yaml")
# One interpreter that was just started, and a fork of it for the help of each command.
SHOW_HELP = f"""
import json, os, sys
from aesearch.cli import app
for arguments in json.loads(sys.argv[1]):
    sys.stdout.flush()
    if os.fork() == 0:
        sys.argv[1:] = [*arguments, "--help"]
        try: app()
        except SystemExit: pass
        heavy = [name for name in {HEAVY!r} if name in sys.modules]
        print(json.dumps([" ".join(arguments), heavy]), file=sys.stderr)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def imported_for_help():
    """What is heavy and was imported, by the command whose help was shown."""
    arguments = [sys.executable, "-c", SHOW_HELP, json.dumps([[], *COMMANDS])]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.count("Usage") == len(COMMANDS) + 1
    return dict(map(json.loads, done.stderr.splitlines()))


@pytest.mark.parametrize("arguments", [[], *COMMANDS], ids=" ".join)
def test_help_imports_nothing_heavy(arguments, imported_for_help):
    """Help is fast because none of these is imported for it."""
    assert imported_for_help[" ".join(arguments)] == []


def test_the_list_of_commands_needs_no_specification():
    """The modules of all commands are imported for it; pydantic costs a tenth of a second."""
    code = "import sys, aesearch.cli; print('pydantic' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (["list"], ("torch", "pandas")),
        (["status"], ("torch", "pandas")),
        (["show", "x"], ("torch",)),
    ],
    ids=["list", "status", "show"],
)
def test_looking_at_a_store_imports_nothing_that_trains(words, heavy, tmp_path):
    """The store is opened, or would be, and no network is in sight."""
    code = (
        "import sys; from aesearch.cli import app\n"
        f"sys.argv[1:] = {[*words, '--storage', str(tmp_path / 'none.db')]!r}\n"
        "try: app()\n"
        "except SystemExit as end: print(end.code)\n"
        f"print([name for name in {heavy!r} if name in sys.modules], 'sqlalchemy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no such file" in done.stderr
    assert done.stdout.split("\n")[:2] == ["2", "[] True"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example(command):
    """The help of each command has a line that can be copied."""
    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0
    assert f"  aesearch {' '.join(command)}" in done.stdout


def documented_lines():
    """Every line of README and docs that calls the program."""
    root = Path(__file__).parents[3]
    for page in (root / "README.md", *sorted((root / "docs").rglob("*.md"))):
        for number, line in enumerate(page.read_text().splitlines(), start=1):
            for call in re.findall(r"^(?:\S+=\S+ )?aesearch .*|`aesearch [^`]*`", line):
                words = shlex.split(call.strip("`"), comments=True)
                yield pytest.param(words, id=f"{page.name}:{number}")


@pytest.mark.parametrize("words", list(documented_lines()))
def test_every_command_line_of_the_docs_is_one(words):
    """Its command and each of its options exist."""
    command = typer.main.get_command(app)
    words = words[words.index("aesearch") + 1 :]
    while words and hasattr(command, "commands"):
        if words[0].startswith("-"):
            break
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert given <= options


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"folds": 5, "trials": None}, {"search.folds": 5}),
        ({"batch_size": "64"}, {"training.batch_size": 64}),
        ({"batch_size": "auto"}, {"training.batch_size": "auto"}),
        (
            {"architecture": "conv"},
            {"model.architecture": "conv", "space.architecture": None},
        ),
        ({"architecture": "dense, conv"}, {"space.architecture.choices": ["dense", "conv"]}),
        ({"architecture": ("conv",)}, {"model.architecture": "conv", "space.architecture": None}),
        ({"encoding_dim": "8"}, {"model.encoding_dim": 8, "space.encoding_dim": None}),
        ({"encoding_dim": 30}, {"model.encoding_dim": 30, "space.encoding_dim": None}),
        ({"encoding_dim": "2, 4,8"}, {"space.encoding_dim.choices": [2, 4, 8]}),
        ({"encoding_dim": (2, 16)}, {"space.encoding_dim.choices": [2, 16]}),
        ({"encoding_dim": np.array([2, 16])}, {"space.encoding_dim.choices": [2, 16]}),
        ({"study": "a b"}, {"name": "a b"}),
    ],
)
def test_options_become_values_of_the_spec(options, values):
    """Options that were not given leave no trace."""
    assert spec_values(options) == values


def test_numpy_scalars_are_numbers():
    """As they come out of an array; the specification is that of Python's numbers."""
    given = {
        "folds": np.int64(4),
        "trials": np.uint8(9),
        "batch_size": np.int32(64),
        "timeout": np.float32(2.5),
        "corruption": np.str_("gaussian"),
        "corruption_level": np.array(0.5),
        "architecture": np.array(["dense", "conv"]),
    }
    plain = {
        name: value.tolist() if isinstance(value, np.ndarray) else value.item()
        for name, value in given.items()
    }
    values = spec_values(given)
    assert values == spec_values(plain)
    assert {type(value) for value in values.values()} == {int, float, str, list}
    assert study_spec(given) == study_spec(plain)


def test_every_dimension_is_of_a_setting():
    """One that is added to the space is looked after when its setting is given by --set."""
    assert set(SETTING_OF_DIMENSION) == set(SEARCHABLE)
    assert all(field_of(setting) for setting in SETTING_OF_DIMENSION.values())


def test_overrides_win_over_options_and_options_over_the_preset():
    """Defaults < preset < options < --set."""
    spec = study_spec({"folds": 4}, preset="mnist", overrides=["search.trials=7", "seed=3"])
    assert (spec.data.dataset, spec.search.folds, spec.search.trials, spec.seed) == (
        "mnist",
        4,
        7,
        3,
    )


@pytest.mark.parametrize("kind", ["spec", "mapping", "file"])
def test_a_spec_may_be_an_object_a_mapping_or_a_file(kind, tmp_path):
    """All three start from the same values; 1e-05 stays a number on the way."""
    spec = study_spec(
        {"folds": 4}, overrides=["training.weight_decay=1e-5", "space.weight_decay=null"]
    )
    (tmp_path / "a.yaml").write_text(to_yaml(spec))
    start = {"spec": spec, "mapping": spec.model_dump(mode="python"), "file": tmp_path / "a.yaml"}
    assert study_spec({}, spec=start[kind]) == spec


@pytest.mark.parametrize("spec", [{"seed": object()}, 7])
def test_a_spec_of_another_kind_is_refused(spec):
    """What is neither a path nor plain values is named."""
    with pytest.raises((SpecError, OptionError), match=r"spec (must be|is invalid)"):
        study_spec({}, spec=spec)


@pytest.mark.parametrize(
    ("options", "override"),
    [
        ({"trials": 9}, "search.trials=7"),
        ({"architecture": "dense"}, "space.architecture.choices=[conv]"),
        ({"encoding_dim": "8,16"}, "space.encoding_dim.choices=[4]"),
        ({"encoding_dim": "8"}, "space.encoding_dim.low=2"),
        ({"encoding_dim": 8}, "model.encoding_dim=16"),
        ({"study": "a"}, "name=b"),
    ],
)
def test_a_setting_is_given_once(options, override):
    """As a flag or with --set: of both, one would be ignored."""
    with pytest.raises(OptionError, match=f"and --set {re.escape(override)}; drop one"):
        study_spec(options, overrides=[override])


def test_an_empty_file_is_no_specification(tmp_path):
    """It was forgotten to save it, say."""
    path = tmp_path / "study.yaml"
    path.write_text("# nothing\n")
    with pytest.raises(SpecError, match="must hold a specification, got nothing"):
        study_spec({}, spec=path)


def test_a_grid_is_pruned_only_on_request():
    """Each of its cells has a score otherwise."""
    choices = "space={defaults: false, dropout: {choices: [0.1, 0.2]}}"
    assert study_spec({"sampler": "grid"}, overrides=[choices]).search.pruner == "none"
    asked = study_spec({"sampler": "grid", "pruner": "median"}, overrides=[choices])
    assert asked.search.pruner == "median"


def test_tab_completes_presets_samplers_and_studies(tmp_path, tiny_spec, create_study):
    """By their beginnings; a store that is not there completes nothing."""
    assert arguments.complete_preset("dense-b") == ["dense-bottleneck", "dense-by-dimension"]
    assert arguments.complete_sampler("g") == ["gp", "grid"]
    create_study(tmp_path / "s.db", tiny_spec("name=pens")).dispose()
    for path, found in ((tmp_path / "s.db", ["pens"]), (tmp_path / "none.db", [])):
        context = SimpleNamespace(params={"storage": str(path)})
        assert arguments.complete_study(context, "p") == found
