"""docker-compose.yml without an engine: what it names is there, and what it starts works.

Its services run as plain processes against a real PostgreSQL. What only an engine does (building
the image, networks, the limits on a container) is read, not run.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from forked_command import PROGRAM, ForkedCommand
from patience import PATIENCE_S
from postgres import PASSWORD, find_programs

from aesearch.driver.create import leave_study
from aesearch.studies.store import study_rows
from aesearch.studies.store.connection import database
from aesearch.terminal.display import make_display

ROOT = Path(__file__).resolve().parents[2]
PASSWORD_PATH = "/run/secrets/database_password"


def interpolated(value, environment):
    """A value of the file as Compose reads it: ``${NAME:-default}``, ``${NAME}`` and ``$$``."""
    if isinstance(value, dict):
        return {key: interpolated(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, environment) for item in value]
    if not isinstance(value, str):
        return value
    pattern = re.compile(
        r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?::-(?P<default>(?:\$\{\w+\}|[^}])*))?\})"
    )

    def one(found):
        if found["dollar"]:
            return "$"
        default = interpolated(found["default"] or "", environment)
        return environment.get(found["name"]) or default

    return pattern.sub(one, value)


COMPOSE = interpolated(
    yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8")), {"HOME": "/home/me"}
)
SERVICES = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
DOCKERFILE = SERVICES["worker"]["build"]["dockerfile_inline"]


def volumes_of(service):
    """The volumes of a service: (source, path in the container, rest)."""
    return [(*volume.split(":"), "")[:3] for volume in service.get("volumes", [])]


# ------------------------------------------------------------------------ the file


@pytest.mark.parametrize("kind", ["volumes", "secrets"])
def test_what_services_use_is_declared_and_used(kind):
    """No volume and no secret is named that the file does not declare, none is left over."""
    used = set()
    for service in SERVICES.values():
        names = [source for source, _, _ in volumes_of(service)]
        used |= set(names if kind == "volumes" else service.get("secrets", []))
    assert used == set(COMPOSE[kind])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_services_that_will_be_there(name):
    """What it depends on exists, in every profile, and can reach the state that is waited for."""
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        needed = SERVICES[other]
        assert "profiles" not in needed
        assert wanted["condition"] in ("service_healthy", "service_completed_successfully")
        assert ("healthcheck" in needed) == (wanted["condition"] == "service_healthy")
        if wanted["condition"] == "service_completed_successfully":
            assert needed["restart"] == "no"


def test_the_profiles_are_those_that_the_first_lines_name():
    """Database and dashboard always; workers by device; one-offs by name."""
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert profiles == {
        "database": [],
        "tables": [],
        "dashboard": [],
        "worker": ["cpu"],
        "gpu-worker": ["gpu"],
        "run": ["tools"],
        "aesearch": ["tools"],
    }


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_little(name):
    """Not root, no capability, none to gain, nothing to write but its volumes and memory."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]
    assert "privileged" not in service
    user = service.get("user") or re.search(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)[1]
    assert user.split(":")[0] not in ("", "0", "root")


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_for_this_machine(name):
    """Nothing is published beyond the loopback unless its owner says so."""
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_no_password_but_in_a_file(name):
    """Its environment and command name the file; the URL has none."""
    service = SERVICES[name]
    assert service["secrets"] == ["database_password"]
    words = [*service.get("command", []), *service["environment"].values()]
    assert PASSWORD_PATH in service["environment"].values()
    assert not any(re.search(r"://[^/@]*:[^/@]*@", word) for word in words)


def test_images_are_pinned():
    """To a patch release: the same file gives the same programs next month."""
    images = [SERVICES["database"]["image"], *re.findall(r"^FROM (\S+)$", DOCKERFILE, re.MULTILINE)]
    assert len(images) == 2
    assert all(re.fullmatch(r"[a-z]+:\d+\.\d+(\.\d+)?-[a-z-]+", image) for image in images)


def test_the_image_copies_named_folders_that_are_there():
    """No secret and no result that lies in the folder gets into the image."""
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY")]
    sources = {word for line in copied for word in line}
    assert sources == {"pyproject.toml", "README.md", "LICENSE", "models", "studies", "search"}
    assert all((ROOT / source).exists() for source in sources)


@pytest.mark.parametrize("name", OURS)
def test_the_user_may_write_into_every_volume(name):
    """A new volume takes the owner of the folder that it covers: the image has made it."""
    (line,) = [line for line in DOCKERFILE.splitlines() if "install -d" in line]
    made = line.split()
    assert made[made.index("-o") + 1] == "aesearch"
    paths = {path for _, path, rest in volumes_of(SERVICES[name]) if rest != "ro"}
    assert paths
    assert paths <= set(made)


def test_one_service_has_all_gpus():
    """Copies of a service would all get the same GPU; one service starts a process for each."""
    with_gpus = {name for name in SERVICES if "deploy" in SERVICES[name]}
    assert with_gpus == {"gpu-worker"}
    (device,) = SERVICES["gpu-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["count"], device["capabilities"]) == ("all", ["gpu"])
    command = SERVICES["gpu-worker"]["command"]
    assert command[command.index("--workers") + 1] == "auto"


# ------------------------------------------------------------------- its processes


class Stack:
    """The services as processes of this machine, over a database of the tests' server."""

    def __init__(self, server, name, folder):
        self._server = server
        self._database = name
        self.folder = folder
        self.port = free_port()
        self.started = []
        (folder / "password").write_text(PASSWORD + "\n", encoding="utf-8")

    def _translated(self, word):
        """A word of the file, with addresses and paths as they are here."""
        url = f"@127.0.0.1:{self._server.port}/{self._database}"
        word = word.replace("@database/aesearch", url).replace(PASSWORD_PATH, "password")
        word = word.replace("/srv/aesearch", str(self.folder)).replace("0.0.0.0", "127.0.0.1")
        return word.replace("8080", str(self.port))

    def start(self, service, *extra, command=None, popen=subprocess.Popen):
        """Start a service's own command, or another in its place; ``extra`` follows it."""
        found = SERVICES[service]
        entrypoint = found.get("entrypoint", ["aesearch"])
        assert entrypoint[0] == "aesearch"
        words = [
            self._translated(word) for word in (*entrypoint[1:], *(command or found["command"]))
        ]
        environment = {
            name: self._translated(value) for name, value in found["environment"].items()
        }
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
        process = popen(
            [*PROGRAM, *words, *extra],
            cwd=self.folder,
            env=kept | environment | {"HOME": str(self.folder), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, service, *extra, command=None):
        """Run a one-off to its end; returns what it said."""
        process = self.start(service, *extra, command=command, popen=ForkedCommand)
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
        return said

    def check(self, service):
        """The exit code of a service's health check."""
        kind, *words = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        programs = {"python": sys.executable, "pg_isready": str(find_programs() / "pg_isready")}
        command = [programs[words[0]], *map(self._translated, words[1:])]
        environment = os.environ | {"PGPORT": str(self._server.port)}
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode

    def wait_healthy(self, service, process):
        """Until the health check succeeds."""
        while self.check(service) != 0:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.3)

    def end(self):
        """End what is still running."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def free_port():
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def stack(postgres, tmp_path):
    """The services over an empty database."""
    name = postgres.create_database()
    services = Stack(postgres, name, tmp_path)
    yield services
    services.end()
    postgres.drop_database(name)


def ended(process, number):
    """What a service said until a signal ended it, and its exit code."""
    process.send_signal(number)
    said, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


TINY = [
    *("--trials", "3", "--epochs", "2", "--set", "data.limit=90", "--set", "retrain.seeds=1"),
    *("--set", "retrain.max_epochs=2", "--set", "search.unstable_loss=1"),
]


@pytest.mark.server
def test_the_services_finish_a_study_together(stack, postgres):
    """Tables, workers, ``run --detach``, the finished study, the dashboard, the run folder."""
    assert stack.check("database") == 0
    assert "has its tables" in stack.run("tables")
    worker = stack.start("worker")
    dashboard = stack.start("dashboard")
    said = stack.run("run", *TINY)
    assert "0 of 3 trials are finished" in said
    followed = stack.run("aesearch", "--watch")
    assert "digits" in followed
    stack.wait_healthy("dashboard", dashboard)
    engine = database.open_engine(database.parse_url(postgres.url(stack._database)))
    snapshot = study_rows.snapshot(engine, "digits")
    engine.dispose()
    assert snapshot.chosen is not None
    assert all(lease.done for lease in snapshot.leases)
    seen = [
        Path(f"/proc/{p.pid}/{name}").read_bytes()
        for p in (worker, dashboard)
        for name in ("cmdline", "environ")
    ]
    assert not any(PASSWORD.encode() in text for text in seen)
    stack.run("aesearch", command=["export", "digits"])
    assert (stack.folder / "runs" / "digits" / "best.yaml").exists()
    codes = [ended(process, signal.SIGTERM)[0] for process in (worker, dashboard)]
    assert codes == [143, 0]


@pytest.mark.server
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_the_gpu_service_says_that_there_is_none(stack):
    """On a machine without a GPU it refuses at once, in one line, instead of using the CPU."""
    stack.run("tables")
    refused = stack.start("gpu-worker")
    said, _ = refused.communicate(timeout=PATIENCE_S)
    assert refused.returncode == 2
    assert said.startswith("error: ")
    assert "cuda" in said


def test_a_study_for_gpus_is_left_by_a_machine_without_one(tmp_path, tiny_spec):
    """The service ``run`` has no GPU: ``--detach --device cuda`` makes the study all the same."""
    path = tmp_path / "store.db"
    with make_display(quiet=True) as display:
        leave_study(tiny_spec("compute.device=cuda"), storage=str(path), display=display)
    engine = study_rows.open_store(str(path))
    spec = study_rows.stored_spec(study_rows.find_study(engine, "digits"))
    engine.dispose()
    assert spec.compute.device == "cuda"
