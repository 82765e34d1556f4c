"""A worker whose parent is gone, in the middle of an epoch that takes forever."""

import os
import threading
import time

from chaos import forked

from aesearch.models.training.population import Population
from aesearch.studies.store import ledger, study_rows
from aesearch.workers import heartbeat
from aesearch.workers.worker import Worker

GONE = 2**22 + 1  # no process has this number


def test_an_orphan_ends_and_gives_its_work_back(new_store, tiny_spec, create_study, monkeypatch):
    """Though its training never asks whether it should go on."""
    storage = new_store("s")
    engine = create_study(storage, tiny_spec())
    monkeypatch.setattr(heartbeat, "_ORPHAN_S", 0.0)
    monkeypatch.setattr(Population, "run_epoch", lambda *_, **__: time.sleep(3600))

    def work():
        own = study_rows.open_store(storage)
        Worker(own, "digits", stop=threading.Event(), parent=GONE).step()

    _, status = os.waitpid(forked(work), 0)
    assert os.waitstatus_to_exitcode(status) == 1
    lease = ledger.claim(engine, study_rows.find_study(engine, "digits"), owner="me", lookahead=1)
    assert (lease.position, lease.attempt) == (0, 1)
