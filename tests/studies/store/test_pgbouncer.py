"""A store behind PgBouncer in transaction mode: each transaction may meet another session."""

import pwd
import shutil
import socket
import subprocess
import time

import psycopg
import pytest
from chaos import check_whole, create, finish, table_of
from postgres import PASSWORD, USER, unprivileged_user
from sqlalchemy.engine import make_url

from aesearch.studies.errors import StoreError
from aesearch.studies.store import study_rows
from aesearch.studies.store.connection import database

pytestmark = pytest.mark.server
SHORT = ("search.trials=2", "search.pruner=none", "retrain.seeds=1")


@pytest.fixture
def pooled(postgres, tmp_path_factory):
    """URL of an empty database behind a pool of four sessions."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed (apt-get install pgbouncer)")
    folder, name = postgres.folder, postgres.create_database()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    quoted = PASSWORD.replace('"', '""')
    (folder / "users").write_text(f'"{USER}" "{quoted}"\n', encoding="utf-8")
    (folder / "users").chmod(0o644)
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={postgres.port}\n"
        "[pgbouncer]\nlisten_addr = 127.0.0.1\nunix_socket_dir =\nauth_type = plain\n"
        f"listen_port = {port}\nauth_file = {folder}/users\n"
        "pool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 50\n"
    )
    user = unprivileged_user()
    process = subprocess.Popen(
        [program, str(folder / "pgbouncer.ini")],
        user=user,
        group=pwd.getpwnam(user).pw_gid,
        extra_groups=[],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = postgres.url(name, port=port)
    wait_for(url, process)
    yield url
    process.terminate()
    process.wait()
    postgres.drop_database(name)


def plainly(url):
    """Connect as a program does that knows nothing of us."""
    found = make_url(url)
    return psycopg.connect(
        host=found.host,
        port=found.port,
        user=found.username,
        password=found.password,
        dbname=found.database,
        prepare_threshold=None,
    )


def wait_for(url, process):
    """Wait until the pool answers."""
    for _ in range(600):
        assert process.poll() is None, "PgBouncer ended"
        try:
            plainly(url).close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("PgBouncer never answered")


def test_a_study_behind_a_pool_is_the_same(pooled, tmp_path, tiny_spec):
    """Created, searched, retrained and read: the table is that of a file."""
    plain = create(tmp_path / "s.db", tiny_spec(*SHORT))
    finish(tmp_path / "s.db")
    engine = create(pooled, tiny_spec(*SHORT))
    finish(pooled)
    assert table_of(engine) == table_of(plain)
    check_whole(engine)
    theirs = database.optuna_storage(engine)
    assert len(theirs.get_all_trials(theirs.get_study_id_from_name("digits"))) == 2
    database.close_storage(theirs)
    for each in (engine, plain):
        each.dispose()


def test_no_setting_of_ours_stays_in_a_session(pooled):
    """The next transaction in it is another program's."""
    study_rows.open_store(pooled).dispose()
    with plainly(pooled) as connection:
        for name in ("idle_in_transaction_session_timeout", "lock_timeout"):
            assert connection.execute(f"SHOW {name}").fetchone() == ("0",)


def test_prepared_statements_on_request(postgres_url):
    """Where no pool stands between, a URL may ask for them."""
    engine = study_rows.open_store(postgres_url + "?prepare_threshold=3")
    assert study_rows.study_names(engine) == []
    with engine.connect() as connection:
        assert connection.connection.driver_connection.prepare_threshold == 3
    engine.dispose()


def test_a_database_of_another_encoding_is_refused(postgres):
    """Before anything is made in it, with the command that makes a right one."""
    postgres.execute(
        "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    with pytest.raises(StoreError, match="must have the encoding UTF8, got LATIN1"):
        study_rows.open_store(postgres.url("latin"))
    assert postgres.execute(
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", "latin"
    ) == [(0,)]
    postgres.drop_database("latin")
