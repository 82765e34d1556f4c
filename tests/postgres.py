"""A PostgreSQL server of the tests' own, in a temporary folder; the tests themselves elsewhere."""

import getpass
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import URL

# Every test of a server shows that no character of a password breaks a URL or leaks.
PASSWORD = "s3cret %40{0}@/:#'\""
USER = "aesearch"
_FOLDERS = ("/usr/lib/postgresql", "/usr/pgsql", "/usr/local/pgsql")
_numbers = itertools.count()


def find_programs() -> Path | None:
    """Folder with initdb and pg_ctl; Debian keeps them out of the search path."""
    on_path = shutil.which("pg_ctl")
    found = [Path(on_path).resolve().parent] if on_path else []
    for folder in _FOLDERS:
        found += sorted(Path(folder).glob("*/bin"), key=lambda path: path.parent.name)
    complete = [path for path in found if (path / "initdb").exists() and (path / "pg_ctl").exists()]
    return complete[-1] if complete else None


def unprivileged_user() -> str:
    """Who runs the server: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return getpass.getuser()
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def run_program(folder: Path, program: Path, *arguments: str) -> None:
    """Run a program of PostgreSQL as the user who may, in a folder of that user."""
    user = unprivileged_user()
    as_user = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    # Into a file: a server keeps what it inherits, and a pipe would never end.
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            [program, *arguments],
            cwd=folder,
            stdout=said,
            stderr=said,
            check=False,
            **(as_user if os.geteuid() == 0 else {}),
        )
        said.seek(0)
        message = said.read().decode(errors="replace")
    assert done.returncode == 0, f"{program.name} failed: {message}"


def new_folder() -> Path:
    """A temporary folder of the user who runs the server."""
    # Not pytest's folder: only root may enter that, and a socket's path is at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="aesearch-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, unprivileged_user())
    return folder


class Server:
    """One cluster in a folder of its own, on a socket there and on a port of the loopback.

    Parameters
    ----------
    programs : Path
        Folder with pg_ctl.
    cluster : Path
        A cluster that nobody uses, to be copied.
    """

    def __init__(self, programs: Path, cluster: Path) -> None:
        self._programs = programs
        self.folder = new_folder()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        subprocess.run(["cp", "-a", cluster, self._data], check=True)
        settings = {
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "listen_addresses": "'127.0.0.1'",
            "port": self.port,
            "unix_socket_directories": f"'{self.folder}'",
            "log_statement": "'all'",
        }
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as stream:
            stream.writelines(f"{key} = {value}\n" for key, value in settings.items())

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server says; every statement is in it."""
        return self.folder / "server.log"

    def _control(self, *arguments: str) -> None:
        run_program(self.folder, self._programs / "pg_ctl", *arguments, "-D", str(self._data))

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._control("start", "--wait", "-l", str(self.log))

    def stop(self, mode: str = "fast") -> None:
        """Stop; ``immediate`` is a crash."""
        self._control("stop", "--wait", "-m", mode)

    def close(self) -> None:
        """Stop for good and remove everything."""
        if (self._data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.folder)

    def url(self, database: str, *, socket_path: bool = False, **changes: object) -> str:
        """URL of a database, password and all; ``changes`` replace parts of it."""
        parts: dict[str, object] = {
            "username": USER,
            "password": PASSWORD,
            "database": database,
            "host": "127.0.0.1",
            "port": self.port,
        }
        if socket_path:
            parts["host"] = None
            parts["query"] = {"host": str(self.folder)}
        url = URL.create("postgresql", **(parts | changes))
        return url.render_as_string(hide_password=False)

    def execute(self, statement: str | sql.Composed, database: str = "postgres") -> list[tuple]:
        """Run one statement as the owner, outside any transaction."""
        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname=database,
            autocommit=True,
        ) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, template: str = "template1") -> str:
        """Create a database, empty or the copy of another; returns its name."""
        name = f"test_{next(_numbers)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected."""
        self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def postgres_cluster():
    """Programs, and a cluster to be copied: making one takes longer; skips without programs."""
    programs = find_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server programs here (initdb, pg_ctl): install postgresql")
    folder = new_folder()
    password = folder / "password"
    password.write_text(PASSWORD + "\n", encoding="utf-8")
    password.chmod(0o644)
    run_program(
        *(folder, programs / "initdb", "--pgdata", str(folder / "data"), "--username", USER),
        *("--encoding", "UTF8", "--auth", "scram-sha-256", "--pwfile", str(password)),
        *("--no-sync", "--no-locale"),
    )
    yield programs, folder / "data"
    shutil.rmtree(folder)


@contextmanager
def running_server(programs: Path, cluster: Path) -> Iterator[Server]:
    """A server on a copy of a cluster, until it is left."""
    server = Server(programs, cluster)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgres(postgres_cluster):
    """The one server of the session, for tests that leave it running."""
    with running_server(*postgres_cluster) as server:
        yield server


@pytest.fixture(scope="session")
def prepared_database(postgres):
    """Name of a database with all tables and nothing in them, to be copied: making them is slow."""
    from aesearch.studies.store import study_rows

    name = postgres.create_database()
    study_rows.open_store(postgres.url(name)).dispose()
    return name


@pytest.fixture
def own_postgres(postgres_cluster):
    """A server that the test may stop, crash and start."""
    with running_server(*postgres_cluster) as server:
        yield server


@pytest.fixture
def postgres_url(postgres):
    """URL of a fresh, empty database."""
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)
