"""What one worker does of the evaluation while another retrains."""

import threading

import pytest
from chaos import check_whole, table_of
from patience import PATIENCE_S

from aesearch.studies.store import ledger, study_rows
from aesearch.studies.store.evaluation_results import read_evaluation
from aesearch.training import out_of_fold
from aesearch.workers.schedule import settle
from aesearch.workers.worker import Worker

SHORT = ("search.trials=2", "training.epochs=2", "space.architecture.choices=[dense]")


@pytest.fixture
def searched(new_store, tiny_spec, create_study, work):
    """Make a study whose winner is chosen and not yet retrained; gives its engine."""

    def make(word):
        engine = create_study(new_store(word), tiny_spec(*SHORT))
        work(engine, kinds=("search",))
        assert settle(engine, "digits")
        return engine

    return make


def test_the_test_is_taken_early_only_while_all_retraining_is_held(searched):
    """By who asks for it; a retraining that is free comes first."""
    engine = searched("s")
    study = study_rows.find_study(engine, "digits")
    early = {"owner": "me", "lookahead": 2, "kinds": ("evaluate",), "beside_retraining": True}
    assert ledger.claim(engine, study, **early) is None
    ledger.claim(engine, study, owner="dead", lookahead=2, seconds=-1)
    assert ledger.claim(engine, study, **early) is None
    held = ledger.claim(engine, study, owner="other", lookahead=2)
    assert held.kind == "retrain"
    assert ledger.claim(engine, study, owner="me", lookahead=2) is None
    assert ledger.claim(engine, study, **early).kind == "evaluate"
    assert ledger.claim(engine, study, **early) is None


def test_networks_for_the_p_values_are_trained_once_beside_the_retraining(
    searched, work, monkeypatch
):
    """Also where the retraining comes back: then the evaluation does too, with what is known."""
    straight = searched("straight")
    work(straight)
    engine = searched("beside")
    study = study_rows.find_study(engine, "digits")
    held = ledger.claim(engine, study, owner="other", lookahead=2)
    trained, done = [], threading.Event()
    fold_networks = out_of_fold.fold_networks

    def noted(*arguments):
        yield from fold_networks(*arguments)
        trained.append(ledger.open_work(engine, study))
        done.set()

    monkeypatch.setattr(out_of_fold, "fold_networks", noted)
    worker = Worker(engine, "digits", stop=threading.Event())
    beside = threading.Thread(target=worker.step)
    beside.start()
    assert done.wait(PATIENCE_S)
    assert beside.is_alive()
    assert ledger.claim(engine, study, owner="me", lookahead=2) is None
    ledger.release(engine, held)
    beside.join(PATIENCE_S)
    assert ledger.open_work(engine, study) == {"search": 0, "retrain": 1, "evaluate": 1}
    worker.run()
    assert trained == [{"search": 0, "retrain": 1, "evaluate": 1}]
    check_whole(engine)
    assert table_of(engine) == table_of(straight)
    expected = read_evaluation(straight, study_rows.find_study(straight, "digits"))
    assert read_evaluation(engine, study_rows.find_study(engine, "digits")) == expected
    assert expected.calibration.source == "out-of-fold"
