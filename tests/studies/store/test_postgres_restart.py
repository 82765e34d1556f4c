"""A server that goes away and comes back: workers wait and go on, to an equal table."""

import os
import subprocess
import time

import pytest
from chaos import Telephone, commit_now, create, forked_worker, table_of
from forked_command import PROGRAM, ForkedCommand, forked_command
from patience import PATIENCE_S
from postgres import PASSWORD

from aesearch.studies.store import ledger, study_rows

pytestmark = pytest.mark.server

SMALL = ("search.pruner=median", "search.trials=6", "retrain.seeds=1")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tiny_spec):
    """The table of the study on SQLite, by one worker in one go."""
    path = tmp_path_factory.mktemp("whole") / "whole.db"
    engine = create(path, tiny_spec(*SMALL))
    assert os.waitpid(forked_worker(path), 0)[1] == 0
    yield table_of(engine)
    engine.dispose()


# Of the study's write commits: a claim, the first and the last rung, a finish, the retraining.
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("commit", "mode", "away_s"),
    [
        pytest.param(1, "fast", 1, marks=pytest.mark.slow),
        pytest.param(3, "immediate", 2, marks=pytest.mark.slow),
        (4, "immediate", 1),
        pytest.param(4, "fast", 30, marks=pytest.mark.slow),
        pytest.param(12, "fast", 2, marks=pytest.mark.slow),
        pytest.param(17, "immediate", 30, marks=pytest.mark.slow),
        (19, "immediate", 1),
    ],
)
def test_a_restart_around_a_commit(
    own_postgres, tiny_spec, uninterrupted, commit, after, mode, away_s
):
    """The server goes away right before or after a commit and comes back: an equal table."""
    url = own_postgres.url(own_postgres.create_database())
    engine = create(url, tiny_spec(*SMALL))
    line = Telephone()

    def at_commit(number, connection):
        if number == commit:
            if after:
                commit_now(connection)
            line.ask()

    child = forked_worker(url, at_commit, patience_s=120)
    line.wait()
    own_postgres.stop(mode)
    line.answer()
    time.sleep(away_s)
    own_postgres.start()
    assert os.waitpid(child, 0)[1] == 0
    line.hang_up()
    assert table_of(engine) == uninterrupted
    attempts = [lease.attempt for lease in study_rows.snapshot(engine, "digits").leases]
    assert max(attempts) <= 1, "a restart of the server is nobody's failure"
    engine.dispose()


def test_a_restart_in_the_middle_of_a_fold(own_postgres, tiny_spec, tmp_path):
    """Away while an epoch is trained, with real workers: they wait and go on, an equal table."""
    long = ("search.trials=4", "training.epochs=20", "search.pruner=none", "retrain.seeds=1")
    whole = create(tmp_path / "whole.db", tiny_spec(*long))
    assert os.waitpid(forked_worker(tmp_path / "whole.db"), 0)[1] == 0
    url = own_postgres.url(own_postgres.create_database())
    engine = create(url, tiny_spec(*long))
    worker = ForkedCommand(
        [*PROGRAM, "worker", "--exit-when-idle"],
        env=os.environ | {"AESEARCH_STORAGE": url},
        stderr=subprocess.PIPE,
        text=True,
    )
    study = study_rows.find_study(engine, "digits")
    while not any(ledger.owners(engine, study)):
        assert worker.poll() is None, worker.communicate()
        time.sleep(0.02)
    own_postgres.stop("immediate")
    time.sleep(3)
    own_postgres.start()
    _, said = worker.communicate(timeout=PATIENCE_S)
    assert worker.returncode == 0, said
    assert "trying again for 300 s" in said
    assert "the store answers again" in said
    assert PASSWORD not in said
    assert table_of(engine) == table_of(whole)
    for one in (engine, whole):
        one.dispose()


def test_away_for_too_long_ends_in_one_line_and_goes_on_later(
    own_postgres, tiny_spec, uninterrupted
):
    """Beyond the limit a worker exits with 2 and the cause; the next one finishes the study."""
    url = own_postgres.url(own_postgres.create_database())
    engine = create(url, tiny_spec(*SMALL))
    line = Telephone()

    def at_commit(number, connection):
        if number == 4:
            line.ask()

    child = forked_worker(url, at_commit, patience_s=1)
    line.wait()
    own_postgres.stop("fast")
    line.answer()
    assert os.waitpid(child, 0)[1] != 0
    line.hang_up()
    environment = os.environ | {"AESEARCH_STORAGE": url}
    words = ("worker", "--study", "digits", "--retry", "1")
    refused = forked_command(*words, environment=environment)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: the store postgresql+psycopg://")
    assert "no server answers there" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr
    own_postgres.start()
    trials = study_rows.snapshot(engine, "digits").trials
    assert not any(trial.state == "failed" for trial in trials), "blamed on a trial"
    ledger.free_owner(
        engine, next(iter(ledger.owners(engine, study_rows.find_study(engine, "digits"))))
    )
    assert os.waitpid(forked_worker(url), 0)[1] == 0
    assert table_of(engine) == uninterrupted
    engine.dispose()
