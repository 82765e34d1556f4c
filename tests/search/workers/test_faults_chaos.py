"""Seeded chaos: ten kills, pauses and good-byes among four workers; one table all the same."""

import os
import random
import signal
import time

import pytest
from chaos import check_whole, create, forked_worker, log_to, table_of

from aesearch.studies.store.connection import retry
from aesearch.studies.store.ledger import MAX_ATTEMPTS
from aesearch.studies.store.status import statuses

LEASE_S = 1.0
KILLS, WORKERS, TRIALS = 10, 4, 24
STUDY = (
    *(f"search.trials={TRIALS}", "search.lookahead=4", "search.pruner=median"),
    *("training.epochs=6", "search.startup_trials=6", "evaluation.bootstrap=10"),
)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tiny_spec):
    """The table that one worker makes on SQLite in one go."""
    path = tmp_path_factory.mktemp("whole") / "whole.db"
    engine = create(path, tiny_spec(*STUDY))
    assert os.waitpid(forked_worker(path), 0)[1] == 0
    yield table_of(engine)
    engine.dispose()


class Chaos:
    """Keeps so many workers alive, whatever it does to them.

    Parameters
    ----------
    start : callable
        Starts a worker and gives its process id.
    rng : random.Random
        Decides what happens to whom.
    """

    def __init__(self, start, rng):
        self._start = start
        self._rng = rng
        self._awake = [start() for _ in range(WORKERS)]
        self._asleep = []
        self._quiet = []

    def kill(self):
        """End one at once, awake or asleep, and start another; its lease runs on."""
        victims = self._asleep if self._asleep and self._rng.random() < 0.2 else self._awake
        victim = victims.pop(self._rng.randrange(len(victims)))
        os.kill(victim, signal.SIGKILL)
        assert os.waitpid(victim, 0)[1] in (0, signal.SIGKILL)
        self._awake.append(self._start())

    def pause(self):
        """Stop one wherever it is; another takes its place meanwhile."""
        sleeper = self._awake.pop(self._rng.randrange(WORKERS))
        os.kill(sleeper, signal.SIGSTOP)
        self._asleep.append(sleeper)
        self._awake.append(self._start())

    def wake(self):
        """Let one go on that was paused, as if no time had passed for it."""
        if self._asleep:
            sleeper = self._asleep.pop(self._rng.randrange(len(self._asleep)))
            os.kill(sleeper, signal.SIGCONT)
            self._quiet.append(sleeper)

    def join(self):
        """Wake all, wait for all; the status of each."""
        while self._asleep:
            self.wake()
        return [os.waitpid(pid, 0)[1] for pid in self._awake + self._quiet]


def waits(study, enough):
    """Whether the study is not that far, or a kill could be a generation's fourth in a row.

    That many are taken for its fault (see docs/reliability.md), whoever did it.
    """
    tried = max((worker.attempt for worker in study.workers), default=0)
    return study.finished < enough or tried >= MAX_ATTEMPTS


@pytest.mark.slow  # minutes; test_four_workers is the sample of the ordinary run
@pytest.mark.parametrize("seed", range(10))
def test_ten_kills_among_four_workers(
    new_store, tiny_spec, create_study, uninterrupted, monkeypatch, tmp_path, seed
):
    """Killed, paused beyond the lease, woken, replaced: as if one worker had done it in peace."""
    monkeypatch.setenv(retry.LEASE_VARIABLE, str(LEASE_S))
    storage = new_store("chaos")
    engine = create_study(storage, tiny_spec(*STUDY))
    rng = random.Random(seed)
    chaos = Chaos(
        lambda: forked_worker(storage, patience_s=60, prepare=log_to(tmp_path / "log")), rng
    )
    acts = [chaos.kill] * KILLS + [chaos.pause] * 3 + [chaos.wake] * 3
    rng.shuffle(acts)
    for number, act in enumerate(acts):
        # Spread over the study, but not so that a killed one could be waited for in vain.
        enough = TRIALS * number // (len(acts) + 2)
        limit = time.monotonic() + 10
        while waits(statuses(engine)[0], enough):
            time.sleep(0.01)
            if time.monotonic() > limit:
                # Who sleeps inside a transaction keeps a whole SQLite file to itself.
                chaos.wake()
                limit += 10
        time.sleep(rng.uniform(0, 0.2))
        act()
    assert set(chaos.join()) == {0}, (tmp_path / "log").read_text()
    check_whole(engine)
    assert table_of(engine) == uninterrupted
