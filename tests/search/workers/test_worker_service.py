"""One worker for every study: which it serves, which it leaves aside, and how it leaves."""

import gc
import json
import logging
import os
import signal
import subprocess
import threading
import time
import weakref

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from chaos import bury, check_whole, create, table_of
from forked_command import PROGRAM, ForkedCommand
from patience import PATIENCE_S
from typer.testing import CliRunner

import aesearch.workers.service
from aesearch.cli import app
from aesearch.device import DeviceLostError
from aesearch.studies.errors import (
    RunFailedError,
    StoreError,
    StudyMismatchError,
    StudyNotFoundError,
)
from aesearch.studies.store import ledger, search_results, study_rows, tables, whole_studies
from aesearch.studies.store.connection import database
from aesearch.workers import schedule
from aesearch.workers import worker as worker_module
from aesearch.workers.service import Service
from aesearch.workers.worker import KINDS, Worker

SHORT = ("search.trials=4", "search.pruner=none", "retrain.seeds=1")


def serve(engine, **options):
    """Serve a store until nothing is left to do, as a worker on a CPU."""
    Service(engine, devices=("cpu",), stop=threading.Event(), **options).run(exit_when_idle=True)


def claims(engine):
    """Names of studies in the order in which their work was claimed."""
    with database.reading(engine) as connection:
        rows = connection.exec_driver_sql(
            "SELECT study_name FROM aesearch_lease JOIN studies USING (study_id) "
            "WHERE claimed IS NOT NULL ORDER BY claimed"
        )
        return list(rows.scalars())


def set_facts(engine, name, **columns):
    """Change what the store says of a study."""
    study = study_rows.find_study(engine, name)
    with database.writing(engine) as connection:
        connection.execute(
            tables.study.update().where(tables.study.c.study_id == study.study_id).values(**columns)
        )


@pytest.fixture
def images(tmp_path):
    """A data set that can be taken away: a file of images."""
    path = tmp_path / "images.npz"
    values = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(path, images=values)
    return path


def test_studies_are_served_in_order_of_creation(new_store, tiny_spec, create_study, tmp_path):
    """Without a name a worker finishes the oldest study first, each as if it were alone."""
    storage = new_store("service")
    engine = create_study(storage, tiny_spec(*SHORT, "name=zebra"))
    create_study(storage, tiny_spec(*SHORT, "name=ant", "seed=1"))
    serve(engine)
    assert claims(engine) == ["zebra"] * 4 + ["ant"] * 4
    for name, seed in (("zebra", 0), ("ant", 1)):
        check_whole(engine, name)
        alone = create_study(tmp_path / f"{name}.db", tiny_spec(*SHORT, f"seed={seed}"))
        Worker(alone, "digits", stop=threading.Event()).run()
        assert table_of(engine, name) == table_of(alone)


def test_images_of_one_study_are_held_at_most(tmp_path, tiny_spec, create_study, monkeypatch):
    """The images of the study before are gone when the next ones are loaded."""
    loaded = []
    load = worker_module.load_problem

    def load_and_look(*arguments, **options):
        gc.collect()
        assert not any(reference() is not None for reference in loaded)
        problem = load(*arguments, **options)
        loaded.append(weakref.ref(problem))
        return problem

    monkeypatch.setattr(worker_module, "load_problem", load_and_look)
    engine = create_study(tmp_path / "s.db", tiny_spec(*SHORT, "name=one"))
    create_study(tmp_path / "s.db", tiny_spec(*SHORT, "name=two"))
    serve(engine)
    assert len(loaded) == 2


def test_a_study_that_comes_while_idle_is_taken(tmp_path, tiny_spec, create_study):
    """A worker that waits begins with a new study by itself."""
    engine = study_rows.open_store(str(tmp_path / "s.db"))
    stop = threading.Event()
    service = Service(engine, devices=("cpu",), stop=stop)
    thread = threading.Thread(target=service.run)
    thread.start()
    create_study(tmp_path / "s.db", tiny_spec(*SHORT))
    while not study_rows.snapshot(engine, "digits").test_looks:
        assert thread.is_alive()
        time.sleep(0.05)
    stop.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    check_whole(engine)
    engine.dispose()


def test_missing_images_are_left_aside_and_looked_for_again(
    tmp_path, images, tiny_spec, create_study, caplog, monkeypatch
):
    """A study whose images are not here stops nobody; once they are, it is finished."""
    caplog.set_level(logging.INFO)
    engine = create_study(
        tmp_path / "s.db",
        tiny_spec(*SHORT, f"data.dataset={images}", "data.limit=null", "name=away"),
    )
    create_study(tmp_path / "s.db", tiny_spec(*SHORT))
    hidden = images.rename(tmp_path / "hidden.npz")
    with pytest.raises(RunFailedError, match=r"not finished: study 'away' \(.*images.npz"):
        serve(engine)
    assert claims(engine) == ["digits"] * 4
    check_whole(engine)
    warnings = [record.message for record in caplog.records if "left aside" in record.message]
    assert len(warnings) == 1, "said once, not at every look"
    assert "'away'" in warnings[0]
    assert str(images) in warnings[0]
    hidden.rename(images)
    monkeypatch.setattr(aesearch.workers.service, "_LOOK_AGAIN_S", 0.01)
    serve(engine)
    check_whole(engine, "away")


def test_other_images_of_the_same_name_are_left_aside(
    tmp_path, images, tiny_spec, create_study, caplog
):
    """A file that holds other images than the study's is not trained on."""
    engine = create_study(
        tmp_path / "s.db", tiny_spec(*SHORT, f"data.dataset={images}", "data.limit=null")
    )
    others = np.random.default_rng(1).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(images, images=others)
    with pytest.raises(RunFailedError, match="not finished: study 'images'"):
        serve(engine)
    assert "must go on with the images it was made with" in caplog.text
    assert claims(engine) == []
    assert study_rows.snapshot(engine, "images").trials[0].state == "waiting"


def test_a_study_of_another_device_is_left_aside(tmp_path, tiny_spec, create_study, caplog):
    """A worker without a GPU says so and serves the others."""
    engine = create_study(tmp_path / "s.db", tiny_spec(*SHORT, "name=big"))
    create_study(tmp_path / "s.db", tiny_spec(*SHORT))
    spec = study_rows.find_study(engine, "big").spec
    spec["compute"]["device"] = "cuda"
    set_facts(engine, "big", spec=json.dumps(spec))
    serve(engine)
    check_whole(engine)
    assert "study 'big' is left aside: it trains on cuda" in caplog.text
    with pytest.raises(StudyMismatchError, match="--device cpu"):
        Worker(engine, "digits", devices=("cuda",), stop=threading.Event())


def test_a_gpu_takes_its_own_studies_first(tmp_path, tiny_spec, create_study, monkeypatch):
    """Where both can be trained, a younger study of the GPU comes before an older CPU's."""
    engine = create_study(tmp_path / "s.db", tiny_spec("name=cpu-1"))
    for name in ("gpu-1", "cpu-2", "gpu-2"):
        create_study(tmp_path / "s.db", tiny_spec(f"name={name}"))
        spec = study_rows.find_study(engine, name).spec
        spec["compute"]["device"] = "cuda" if "gpu" in name else "cpu"
        set_facts(engine, name, spec=json.dumps(spec))
    stop = threading.Event()
    asked = []

    class Nobody:
        def __init__(self, _engine, name, **_options):
            asked.append(name)

        def step(self):
            if len(asked) == 4:
                stop.set()
            return False

    monkeypatch.setattr(aesearch.workers.service, "Worker", Nobody)
    Service(engine, devices=("cuda", "cpu"), stop=stop).run()
    assert asked == ["gpu-1", "gpu-2", "cpu-1", "cpu-2"]


def test_only_retraining_waits_for_the_search(tmp_path, tiny_spec, create_study):
    """A worker for retraining takes no generation, and the retraining when it is there."""
    engine = create_study(tmp_path / "s.db", tiny_spec(*SHORT))
    searcher = threading.Thread(
        target=Worker(engine, "digits", kinds=KINDS["search"], stop=threading.Event()).run
    )
    service = Service(engine, devices=("cpu",), kinds=KINDS["retrain"], stop=threading.Event())
    taken = []
    do = Worker._do
    retrainer = threading.Thread(target=service.run, kwargs={"exit_when_idle": True})

    def note(self, lease):
        taken.append((threading.current_thread() is retrainer, lease.kind))
        do(self, lease)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "_do", note)
        retrainer.start()
        searcher.start()
        for thread in (searcher, retrainer):
            thread.join(PATIENCE_S)
    assert sorted(taken) == [(False, "search")] * 2 + [(True, "evaluate"), (True, "retrain")]
    check_whole(engine)


def test_a_time_limit_holds_without_the_run(tmp_path, tiny_spec, create_study):
    """After the deadline no generation is begun; the winner comes from the trials there are."""
    engine = create_study(tmp_path / "s.db", tiny_spec(*SHORT, "search.timeout=3600"))
    assert Worker(engine, "digits", stop=threading.Event()).step()
    study = study_rows.find_study(engine, "digits")
    assert 3500 < study.deadline - study.created <= 3601
    set_facts(engine, "digits", deadline=study.created)
    serve(engine)
    snapshot = study_rows.snapshot(engine, "digits")
    assert [t.state for t in snapshot.trials] == ["complete"] * 2 + ["waiting"] * 2
    assert snapshot.chosen in (0, 1)
    assert snapshot.test_looks == 1


def test_a_retraining_that_nobody_survives_stops_only_itself(
    tmp_path, tiny_spec, create_study, work, caplog
):
    """The service says so and goes on with the next study; a person's resume forgives it."""
    engine = create_study(tmp_path / "s.db", tiny_spec(*SHORT, "name=deadly"))
    create_study(tmp_path / "s.db", tiny_spec(*SHORT))
    work(engine, "deadly", kinds=("search",))
    with database.writing(engine) as connection:
        connection.execute(
            tables.lease.update().where(tables.lease.c.kind == "retrain").values(attempt=3)
        )
    with pytest.raises(RunFailedError, match="not finished: study 'deadly'"):
        serve(engine)
    check_whole(engine)
    assert "died 3 times without progress" in caplog.text
    study = study_rows.find_study(engine, "deadly")
    assert ledger.open_work(engine, study)["retrain"] == 1
    ledger.forgive(engine, study)
    serve(engine)
    check_whole(engine, "deadly")


def test_a_study_without_a_winner_is_told_once_and_left(tmp_path, tiny_spec, create_study, caplog):
    """When every trial fails, the service says why, once, and is idle."""
    broken = "space={defaults: false, learning_rate: {low: 1.0e+29, high: 1.0e+30}}"
    engine = create_study(
        tmp_path / "s.db",
        tiny_spec(*SHORT, "training.optimizer=sgd", "search.trials=2", broken),
    )
    create_study(tmp_path / "s.db", tiny_spec(*SHORT, "name=fine"))
    serve(engine)
    check_whole(engine, "fine")
    assert sum("no completed trial" in record.message for record in caplog.records) == 1


def test_a_store_that_fails_is_not_the_trials_fault(
    tmp_path, tiny_spec, create_study, work, monkeypatch
):
    """A rung that cannot be written ends the worker and fails no trial, though the next could."""
    engine = create_study(tmp_path / "s.db", tiny_spec(*SHORT))
    write = search_results.write_rung
    refused = []

    def refuse_once(*arguments, **options):
        if not refused:
            refused.append(True)
            raise StoreError("the store cannot be used: the disk is full")
        write(*arguments, **options)

    monkeypatch.setattr(search_results, "write_rung", refuse_once)
    with pytest.raises(StoreError, match="disk is full"):
        work(engine)
    assert study_rows.snapshot(engine, "digits").trials[0].state == "running"
    bury(engine, os.getpid())
    work(engine)
    assert {trial.state for trial in study_rows.snapshot(engine, "digits").trials} == {"complete"}


# ------------------------------------------------------ studies that go, or change


def delete(engine, name):
    """Delete a study as ``aesearch delete`` does."""
    whole_studies.delete_study(engine, name)


def rename(engine, name):
    """Rename a study behind everyone's back."""
    with database.writing(engine) as connection:
        connection.execute(
            sa.text("UPDATE studies SET study_name = 'renamed' WHERE study_name = :name"),
            {"name": name},
        )


def replace(engine, name):
    """Delete a study and create another one of its name (on SQLite even of its id)."""
    from aesearch.studies.spec.load import spec_from_mapping

    spec = spec_from_mapping(study_rows.find_study(engine, name).spec, "the same")
    delete(engine, name)
    storage = engine.url.render_as_string(hide_password=False)
    create(storage, spec.model_copy(update={"seed": 7})).dispose()


@pytest.fixture
def at_first_epoch(monkeypatch):
    """Call something once, in the middle of the first generation."""

    def arrange(call):
        check = worker_module.Heartbeat.check
        calls = []

        def once(beat):
            if not calls:
                calls.append(True)
                call()
            check(beat)

        monkeypatch.setattr(worker_module.Heartbeat, "check", once)

    return arrange


def test_a_study_that_goes_while_its_trials_are_suggested_ends_its_own_worker(
    new_store, tiny_spec, create_study, monkeypatch
):
    """A sampler that learns takes seconds: the same message."""
    engine = create_study(new_store("s"), tiny_spec(*SHORT))
    suggest = schedule.suggest

    def slow(*arguments):
        delete(engine, "digits")
        return suggest(*arguments)

    monkeypatch.setattr(schedule, "suggest", slow)
    with pytest.raises(StudyNotFoundError, match="study 'digits' is gone: "):
        Worker(engine, "digits", stop=threading.Event()).run()


def test_a_device_that_is_broken_from_the_start_is_left_to_a_new_process(
    tmp_path, tiny_spec, create_study, monkeypatch
):
    """It is met when the images go there."""

    def broken(*_arguments, **_options):
        raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")

    engine = create_study(tmp_path / "s.db", tiny_spec(*SHORT))
    monkeypatch.setattr(torch.Tensor, "to", broken)
    with pytest.raises(DeviceLostError, match="uncorrectable ECC"):
        Worker(engine, "digits", stop=threading.Event())


@pytest.mark.parametrize("change", [delete, rename, replace])
def test_a_study_that_goes_ends_its_own_worker(
    new_store, tiny_spec, create_study, at_first_epoch, change
):
    """Deleted, renamed or replaced while it trains: a clear message, and nothing is written."""
    engine = create_study(new_store("s"), tiny_spec(*SHORT))
    at_first_epoch(lambda: change(engine, "digits"))
    with pytest.raises(StudyNotFoundError, match="study 'digits' is gone: "):
        Worker(engine, "digits", stop=threading.Event()).run()
    if change is replace:
        trials = study_rows.snapshot(engine, "digits").trials
        assert {trial.state for trial in trials} == {"waiting"}


@pytest.mark.parametrize("change", [delete, rename, replace])
def test_a_study_that_goes_is_not_the_end_of_the_service(
    new_store, tiny_spec, create_study, at_first_epoch, change
):
    """The others are finished; so is what has a new name, and what has an old one anew."""
    storage = new_store("s")
    engine = create_study(storage, tiny_spec(*SHORT))
    create_study(storage, tiny_spec(*SHORT, "name=other"))
    at_first_epoch(lambda: change(engine, "digits"))
    serve(engine)
    left = {delete: ["other"], rename: ["renamed", "other"], replace: ["other", "digits"]}[change]
    assert sorted(study_rows.study_names(engine)) == sorted(left)
    for name in left:
        check_whole(engine, name)
        assert study_rows.snapshot(engine, name).test_looks == 1


@pytest.mark.parametrize(
    ("columns", "remedy"),
    [
        ({"aesearch_version": "7.0.0"}, r"pip install 'aesearch==7\.0\.0'"),
        (
            {"facts": json.dumps({"versions": {"optuna": "4.5.0"}})},
            r"pip install 'optuna==4\.5\.0'",
        ),
    ],
    ids=["aesearch", "optuna"],
)
def test_a_study_of_another_major_version_is_refused(
    tmp_path, tiny_spec, create_study, columns, remedy
):
    """What is suggested would differ: the message gives the command that helps."""
    engine = create_study(tmp_path / "s.db", tiny_spec())
    set_facts(engine, "digits", **columns)
    with pytest.raises(StudyMismatchError, match=remedy):
        Worker(engine, "digits", stop=threading.Event())


# --------------------------------------------------------------------- the command


def start(storage, *arguments):
    """Start the command ``worker`` on a store."""
    return ForkedCommand(
        [*PROGRAM, "worker", *arguments],
        env=os.environ | {"AESEARCH_STORAGE": str(storage)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("number", "arguments", "code"),
    [(signal.SIGTERM, (), 143), (signal.SIGINT, ("--study", "digits"), 130)],
)
def test_a_signal_gives_the_work_back(tmp_path, tiny_spec, create_study, number, arguments, code):
    """SIGTERM and Ctrl-C: the lease is free at once, no attempt counts, no trial fails."""
    long = ("training.epochs=5000", "search.pruner=none")
    engine = create_study(tmp_path / "s.db", tiny_spec(*long))
    study = study_rows.find_study(engine, "digits")
    process = start(tmp_path / "s.db", *arguments)
    while not ledger.owners(engine, study):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (code, ""), err
    snapshot = study_rows.snapshot(engine, "digits")
    assert not ledger.owners(engine, study)
    assert {lease.attempt for lease in snapshot.leases} == {0}
    assert {trial.state for trial in snapshot.trials} == {"running", "waiting"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "nothing"), "only must be one of search, retrain, got 'nothing'"),
        (("--device", "tpu"), "device must be auto, cpu, cuda or mps, got 'tpu'"),
        (("--study", "nosuch"), "study must be one of the studies in"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arguments, words):
    """Exit code 2 and the remedy, without a traceback."""
    study_rows.open_store(str(tmp_path / "s.db")).dispose()
    storage = ("--storage", str(tmp_path / "s.db"))
    result = CliRunner().invoke(app, ["worker", *arguments, *storage])
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_worker_on_finished_studies_ends_and_has_done_nothing(
    tmp_path, tiny_spec, create_study, work
):
    """With --exit-when-idle there is nothing to wait for; exit code 0, no new trial."""
    engine = create_study(tmp_path / "s.db", tiny_spec(*SHORT))
    work(engine)
    before = table_of(engine)
    storage = ("--storage", str(tmp_path / "s.db"))
    result = CliRunner().invoke(app, ["worker", "--exit-when-idle", *storage])
    assert result.exit_code == 0, result.stderr
    assert table_of(engine) == before


@pytest.mark.parametrize(
    "where", ["aesearch.workers.worker.train_generation", "aesearch.workers.service.Worker"]
)
def test_a_broken_device_ends_the_service_and_no_trial(
    tmp_path, tiny_spec, create_study, monkeypatch, where
):
    """It is left to a new process, whether the device breaks in training or before it."""

    def broken(*_arguments, **_options):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    engine = create_study(tmp_path / "s.db", tiny_spec())
    monkeypatch.setattr(where, broken)
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        serve(engine)
    assert "failed" not in {trial.state for trial in study_rows.snapshot(engine, "digits").trials}
