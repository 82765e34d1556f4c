"""Four workers, three killed and one paused beyond its lease, are one that nobody disturbed."""

import os
import random
import signal
import subprocess
import sys
import time
from functools import cache

import pytest
from chaos import check_whole, create, forked_worker, table_of

from aesearch.studies.store import study_rows
from aesearch.studies.store.connection import retry
from aesearch.studies.store.status import statuses

LEASE_S = 2.0


class Crowd:
    """Workers by number, that can be killed, paused and woken."""

    def __init__(self, pids):
        self.pids = pids
        self.living = set(range(len(pids)))

    def kill(self, index):
        """End one without any warning; its lease runs on."""
        os.kill(self.pids[index], signal.SIGKILL)
        self.living.discard(index)

    def pause(self, index):
        """Stop one wherever it is."""
        os.kill(self.pids[index], signal.SIGSTOP)

    def wake(self, index):
        """Let it go on, as if no time had passed for it."""
        os.kill(self.pids[index], signal.SIGCONT)

    def join(self):
        """Exit status of each, in order."""
        return [os.waitpid(pid, 0)[1] for pid in self.pids]


def disturb(engine, crowd, rng, n_trials):
    """Kill three and pause one, when so many trials are finished as chance says."""
    moments = sorted(rng.sample(range(1, n_trials * 3 // 4), 4))
    victims = rng.sample(range(4), 4)
    paused = rng.randrange(4)
    asleep, since = None, 0.0
    for order, (moment, victim) in enumerate(zip(moments, victims, strict=True)):
        while statuses(engine)[0].finished < moment and crowd.living - {asleep}:
            time.sleep(0.01)
            if asleep is not None and time.monotonic() > since + 4 * LEASE_S:
                # Who sleeps inside a transaction keeps a whole SQLite file to itself.
                crowd.wake(asleep)
        if order == paused:
            crowd.pause(victim)
            asleep, since = victim, time.monotonic()
        else:
            crowd.kill(victim)
    assert asleep is not None
    time.sleep(max(0.0, since + 2 * LEASE_S - time.monotonic()))
    crowd.wake(asleep)
    assert crowd.living == {asleep}
    statuses_at_end = crowd.join()
    assert sorted(map(os.WIFSIGNALED, statuses_at_end)) == [False, True, True, True]
    assert statuses_at_end[asleep] == 0, "it said that its lease was lost, and went on"


def trials(n_trials):
    """Make a study of so many trials that chance has room, in generations of two."""
    return (
        *(f"search.trials={n_trials}", "search.lookahead=4", "search.pruner=median"),
        *("training.epochs=8", "search.startup_trials=6"),
        "space.architecture.choices=[dense, conv]",
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tiny_spec):
    """The table that one worker makes of a study on SQLite in one go."""

    @cache
    def make(overrides):
        path = tmp_path_factory.mktemp("whole") / "whole.db"
        engine = create(path, tiny_spec(*overrides))
        assert os.waitpid(forked_worker(path), 0)[1] == 0
        table = table_of(engine)
        engine.dispose()
        return table

    return make


def test_three_killed_and_one_paused(
    new_store, tiny_spec, create_study, uninterrupted, monkeypatch
):
    """A bounded sample: twelve trials, processes that are forked here."""
    monkeypatch.setenv(retry.LEASE_VARIABLE, str(LEASE_S))
    storage = new_store("chaos")
    engine = create_study(storage, tiny_spec(*trials(12)))
    crowd = Crowd([forked_worker(storage, patience_s=60) for _ in range(4)])
    disturb(engine, crowd, random.Random(5), 12)
    check_whole(engine)
    assert table_of(engine) == uninterrupted(trials(12))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_sixty_trials_by_four_commands(
    new_store, tiny_spec, create_study, uninterrupted, monkeypatch, seed
):
    """The whole: sixty trials, the command ``aesearch worker`` four times, thrice by chance."""
    monkeypatch.setenv(retry.LEASE_VARIABLE, str(LEASE_S))
    storage = new_store("chaos")
    engine = create_study(storage, tiny_spec(*trials(60)))
    environment = os.environ | {"AESEARCH_STORAGE": storage}
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "aesearch", "worker", "--exit-when-idle"],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(4)
    ]
    disturb(engine, Crowd([worker.pid for worker in workers]), random.Random(seed), 60)
    for worker in workers:
        worker.returncode = 0  # waited for already
    check_whole(engine)
    assert len(study_rows.snapshot(engine, "digits").trials) == 60
    assert table_of(engine) == uninterrupted(trials(60))
