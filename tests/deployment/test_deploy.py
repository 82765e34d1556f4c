"""The templates for clusters keep to their schemas, and what they start works on a real store."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from chaos import check_whole, create
from forked_command import forked_command
from postgres import PASSWORD

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "deploy"
KUBERNETES = FOLDER / "kubernetes.yaml"
SLURM = FOLDER / "slurm.sh"
ONE_TRIAL = ("search.trials=2", "training.epochs=2", "retrain.seeds=1", "retrain.max_epochs=1")


def marked(text):
    """The lines that a user has to change."""
    return [line for line in text.splitlines() if "# CHANGE" in line and '"# CHANGE"' not in line]


@pytest.fixture
def password_file(tmp_path):
    """A file with the password of the tests' server, as an editor leaves it: with a line end."""
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n", encoding="utf-8")
    return path


@pytest.fixture
def new_study(postgres, tiny_spec):
    """Create a small study on PostgreSQL: gives its engine, and the URL without its password."""
    name = postgres.create_database()
    engine = create(postgres.url(name), tiny_spec(*ONE_TRIAL))
    yield engine, postgres.url(name, password=None)
    engine.dispose()
    postgres.drop_database(name)


@pytest.fixture
def commands(tmp_path):
    """A folder with the command ``aesearch`` of this very environment, to be searched first."""
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "aesearch").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m aesearch "$@"\n')
    (folder / "aesearch").chmod(0o755)
    (folder / "activate").write_text(f'PATH="{folder}:$PATH"\n')
    return folder


def job():
    """The one document of the Kubernetes file."""
    return yaml.safe_load(KUBERNETES.read_text(encoding="utf-8"))


@pytest.mark.parametrize("version", ["1.31", "1.34"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:kubernetes_validate")
def test_the_job_keeps_to_its_schema(version):
    """No field is unknown or of another type, on an older and on a recent Kubernetes."""
    kubernetes_validate.validate(job(), version, strict=True)


def test_the_job_mounts_what_it_declares():
    """Every mount has its volume; the secret is the one that the first lines create."""
    pod = job()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    environment = {item["name"]: item["value"] for item in container["env"]}
    folder, file = environment["AESEARCH_PASSWORD_FILE"].rsplit("/", 1)
    assert mounts["password"] == folder
    created = f"kubectl create secret generic {volumes['password']['secret']['secretName']} "
    assert f"{created}--from-file={file}=" in KUBERNETES.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [KUBERNETES, SLURM], ids=["kubernetes", "slurm"])
def test_few_lines_have_to_be_changed(path):
    """Two or three lines, and one more for GPUs."""
    lines = marked(path.read_text(encoding="utf-8"))
    assert 2 <= sum("GPUs" not in line for line in lines) <= 3
    assert sum("GPUs" in line for line in lines) == 1


@pytest.mark.server
def test_the_container_of_the_job_finishes_a_study(new_study, password_file, tmp_path):
    """Its own arguments and environment, as a process: it ends once the study is done."""
    engine, url = new_study
    (container,) = job()["spec"]["template"]["spec"]["containers"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    assert environment.keys() == {"AESEARCH_STORAGE", "AESEARCH_PASSWORD_FILE"}
    here = {"AESEARCH_STORAGE": url, "AESEARCH_PASSWORD_FILE": str(password_file)}
    done = forked_command(
        *container["args"], folder=tmp_path, environment=os.environ | environment | here
    )
    assert (done.returncode, "left aside" in done.stderr) == (0, False), done.stderr
    check_whole(engine)


def test_the_script_is_bash():
    """Bash can read it, and it is complete: an unset variable or a failed line would end it."""
    done = subprocess.run(["bash", "-n", str(SLURM)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "set -euo pipefail" in SLURM.read_text(encoding="utf-8")


def test_the_options_for_slurm_stand_before_the_first_command():
    """SLURM reads none of its options after that."""
    lines = SLURM.read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    options = [i for i, line in enumerate(lines) if re.match(r"#+SBATCH ", line)]
    assert options
    assert max(options) < first


@pytest.mark.server
def test_the_script_finishes_a_study(new_study, password_file, commands, tmp_path):
    """With the marked lines changed, in the environment of an array task; twice does no harm."""
    engine, url = new_study
    text = SLURM.read_text(encoding="utf-8")
    changes = {
        "export AESEARCH_STORAGE=": f"export AESEARCH_STORAGE={url}",
        "export AESEARCH_PASSWORD_FILE=": f'export AESEARCH_PASSWORD_FILE="{password_file}"',
        "source ": f'source "{commands}/activate"',
    }
    for line in marked(text):
        replacement = [new for start, new in changes.items() if line.startswith(start)]
        text = text.replace(line, "".join(replacement))
    script = tmp_path / "slurm.sh"
    script.write_text(text, encoding="utf-8")

    def run_task(number):
        return subprocess.run(
            [shutil.which("bash"), str(script)],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SLURM_ARRAY_TASK_ID": number},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    done = run_task("1")
    assert (done.returncode, "left aside" in done.stderr) == (0, False), done.stderr
    check_whole(engine)
    late = run_task("2")
    assert (late.returncode, "attempt" in late.stderr) == (0, False), late.stderr
