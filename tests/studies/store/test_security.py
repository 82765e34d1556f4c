"""What nobody may do: read a password where it does not belong, or run code from data."""

import ast
import inspect
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import optuna
import pytest
from forked_command import forked_command
from postgres import PASSWORD
from sqlalchemy.engine import make_url

from aesearch.driver.create import leave_study
from aesearch.sampling import suggest
from aesearch.studies.errors import StudyMismatchError
from aesearch.studies.spec.sections import SearchSpec
from aesearch.studies.store import study_rows
from aesearch.terminal.display import make_display

ROOT = Path(__file__).resolve().parents[3]
MODULES = sorted(
    path for folder in ("search", "models", "studies") for path in (ROOT / folder).rglob("*.py")
)
# What turns bytes into objects by running what they say.
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "torch.load", "torch.save", "np.loads", "pd.read_pickle"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load"),
}


def uses(path):
    """Every module that a file imports and every function that it calls, by their full names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).partition(".")[0]
        elif isinstance(node, ast.Call):
            yield ast.unparse(node.func)
            yield from (
                "allow_pickle=True"
                for word in node.keywords
                if word.arg == "allow_pickle" and ast.unparse(word.value) != "False"
            )
            if ast.unparse(node.func) == "np.load":
                assert "allow_pickle" in {word.arg for word in node.keywords}, path


def test_there_are_modules_to_look_at():
    """What is looked for below is looked for somewhere."""
    assert len(MODULES) > 100
    assert {"numpy", "np.load"} <= {use for path in MODULES for use in uses(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_is_read_from_data(path):
    """No pickle, no joblib, no ``torch.load``, no loader of YAML that makes objects."""
    assert not set(uses(path)) & (FORBIDDEN_MODULES | FORBIDDEN_CALLS | {"allow_pickle=True"})


SAMPLERS = {
    "tpe": optuna.samplers.TPESampler,
    "random": optuna.samplers.RandomSampler,
    "gp": optuna.samplers.GPSampler,
    "qmc": optuna.samplers.QMCSampler,
}


def test_the_samplers_offered_are_those_looked_at():
    """A sampler that is added must be looked at here; the grid is ours."""
    offered = set(get_args(SearchSpec.model_fields["sampler"].annotation))
    assert offered == {*SAMPLERS, "grid", "auto"}
    named = {use for use in uses(Path(suggest.__file__)) if use.startswith("optuna.samplers.")}
    kinds = (*SAMPLERS.values(), optuna.samplers.PartialFixedSampler)
    assert named == {f"optuna.samplers.{kind.__name__}" for kind in kinds}


@pytest.mark.parametrize("kind", [*SAMPLERS.values(), optuna.samplers.PartialFixedSampler])
def test_no_sampler_keeps_a_pickle_in_the_store(kind):
    """Optuna's CMA-ES does, and unpickles what it finds there: it is not offered."""
    assert "pickle" not in inspect.getsource(inspect.getmodule(kind))
    assert "pickle" in inspect.getsource(inspect.getmodule(optuna.samplers.CmaEsSampler)), (
        "this test would not see it"
    )


# ---------------------------------------------------------------------- passwords


def shapes_of_the_password(url):
    """The password as it is, and as it stands in a URL."""
    hidden = make_url(url).set(password=None).render_as_string()
    user = f"{make_url(url).username}"
    encoded = url.partition(f"{user}:")[2].rpartition("@")[0]
    assert encoded
    assert encoded not in hidden
    return (PASSWORD.encode(), encoded.encode(), PASSWORD.split()[0].encode())


def descendants(pid):
    """A process and all that it started, by id."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [pid]
    for child in children.read_text().split():
        found += descendants(int(child))
    return found


@pytest.mark.server
def test_no_process_of_a_group_shows_the_password(postgres_url, tiny_spec, tmp_path):
    """``worker --workers 2``: neither command lines nor log, also when the study fails."""
    display = make_display(quiet=True)
    broken = "space={defaults: false, learning_rate: {low: 1.0e+29, high: 1.0e+30}}"
    spec = tiny_spec("training.optimizer=sgd", broken, "search.trials=2")
    leave_study(spec, storage=postgres_url, display=display)
    log = tmp_path / "log"
    with log.open("wb") as stream:
        group = subprocess.Popen(
            [sys.executable, "-m", "aesearch", "worker", "--workers", "2", "--exit-when-idle"],
            env=os.environ | {"AESEARCH_STORAGE": postgres_url},
            stdout=stream,
            stderr=stream,
        )
    lines = set()
    while group.poll() is None:
        for pid in descendants(group.pid):
            try:
                lines.add((pid, Path(f"/proc/{pid}/cmdline").read_bytes()))
            except OSError:  # it ended in this moment
                continue
        time.sleep(0.05)
    assert group.returncode == 0, log.read_text()
    # What a worker starts itself looks like it for a moment.
    seen = {pid for pid, line in lines if b"--parent" in line}
    assert len(seen) >= 2, "no worker was seen"
    assert b"no completed trial" in log.read_bytes()
    said = b"".join(line for _, line in lines) + log.read_bytes()
    assert not any(shape in said for shape in shapes_of_the_password(postgres_url))


@pytest.mark.server
@pytest.mark.parametrize("command", ["list", "status", "worker", "run", "init", "dashboard"])
def test_no_command_repeats_a_wrong_password(postgres, prepared_database, command, tmp_path):
    """With ``--debug`` too, whose traceback holds what the driver said; a worker has none."""
    url = postgres.url(prepared_database, password="wr0ng one")
    done = forked_command(
        *(command, *(["--debug"] if command != "worker" else [])),
        folder=tmp_path,
        environment=os.environ | {"AESEARCH_STORAGE": url},
    )
    assert done.returncode == 2, done.stderr
    assert "the user or password is wrong" in done.stderr
    assert "wr0ng" not in done.stdout + done.stderr


# ----------------------------------------------------------------------- versions


@pytest.mark.parametrize("package", ["aesearch", "optuna"])
def test_a_run_of_another_major_version_is_refused(tmp_path, tiny_spec, package, monkeypatch):
    """Not only a worker: whoever gives the study again learns which version to install."""
    display = make_display(quiet=True)
    storage = str(tmp_path / "s.db")
    if package == "aesearch":
        monkeypatch.setattr("aesearch.driver.create.__version__", "9.1.2")
    else:
        monkeypatch.setattr(
            "aesearch.data.study_data.versions", lambda: {"aesearch": "0.1.0", "optuna": "9.1.2"}
        )
    leave_study(tiny_spec(), storage=storage, display=display)
    monkeypatch.undo()
    before = study_rows.find_study(engine := study_rows.open_store(storage), "digits")
    with pytest.raises(StudyMismatchError, match=rf"pip install '{package}==9\.1\.2'"):
        leave_study(tiny_spec(), storage=storage, display=display)
    assert study_rows.find_study(engine, "digits") == before
    engine.dispose()
