"""A study in MLflow and in W&B: what a run holds, that none is doubled, and what is refused."""

import builtins
import json
import os
import shutil
import struct

import pytest
from chaos import create, forked_worker
from typer.testing import CliRunner

import aesearch
from aesearch.cli import app
from aesearch.options import OptionError
from aesearch.studies.results.records import TrialRecord
from aesearch.trackers import mlflow as to_mlflow
from aesearch.trackers import runs
from aesearch.trackers import wandb as to_wandb
from aesearch.trackers.runs import TrackerError

# Of MLflow and W&B themselves, and of what they leave open.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SHORT = ("search.trials=4", "search.pruner=median", "search.startup_trials=1", "retrain.seeds=1")


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_spec):
    """A finished study of four trials."""
    path = str(tmp_path_factory.mktemp("tracked") / "s.db")
    create(path, tiny_spec(*SHORT)).dispose()
    assert os.waitpid(forked_worker(path), 0)[1] == 0
    return path


@pytest.fixture
def study(store):
    return aesearch.open_study("digits", store)


@pytest.fixture
def uri(tmp_path):
    """A database of MLflow's own making; files go to a folder beside it."""
    pytest.importorskip("mlflow", reason="MLflow is not installed (aesearch[mlflow])")
    return f"sqlite:///{tmp_path}/ml.db"


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """W&B without a server, in a folder of its own."""
    found = pytest.importorskip("wandb", reason="W&B is not installed (aesearch[wandb])")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return found


def mlflow_runs(uri, name="digits"):
    """All runs of an experiment, by their names."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert len({run.info.run_name for run in found}) == len(found)
    return client, {run.info.run_name: run for run in found}


def records_of(path):
    """Records of a file of W&B: blocks of 32 KiB, each record in one piece or in several."""
    data, place, piece = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        piece += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield piece
            piece = b""


def wandb_records(folder):
    """What the runs of a folder hold, by their names: as a server would be told of them."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = {}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        records = [Record.FromString(piece) for piece in records_of(path)]
        (name,) = {each.run.display_name for each in records if each.HasField("run")}
        found.setdefault(name, []).append(records)
    return found


def test_a_trial_holds_its_folds(study):
    """Parameters, scores and losses by epoch of every fold, as the study's tables have them."""
    tracked = list(runs.trial_runs(study))
    table = study.trials().set_index("number")
    assert [run.name for run in tracked] == [f"trial {number}" for number in table.index]
    assert len({run.identity for run in tracked}) == len(tracked)
    curves = study.curves().set_index(["number", "epoch", "fold"])
    for number, run in enumerate(tracked):
        assert run.labels["state"] == table.loc[number, "state"]
        assert run.metrics["value"] == table.loc[number, "value"]
        folds = [table.loc[number, f"fold_{fold}"] for fold in range(3)]
        if run.labels["state"] == "complete":
            assert [run.metrics[f"score/fold_{fold}"] for fold in range(3)] == folds
        for epoch, losses in run.curves:
            for name, value in losses.items():
                kind, fold = name.split("/fold_")
                assert value == curves.loc[(number, epoch, int(fold)), kind]
        assert sum(len(losses) for _, losses in run.curves) == 2 * len(curves.loc[number])
        assert ("hidden" in run.params) is False
        assert json.dumps(run.params), "plain values"


@pytest.mark.parametrize("again", ["the same study", "a copy of it"])
def test_mlflow_has_each_run_once(store, uri, tmp_path, monkeypatch, again):
    """A run for each trial and one for the model, whoever writes them a second time."""
    monkeypatch.chdir(tmp_path)
    done = to_mlflow.log_study("digits", storage=store, tracking_uri=uri)
    assert (done.project, done.written, done.there) == ("digits", 5, 0)
    other = store
    if again == "a copy of it":
        other = str(shutil.copy(store, tmp_path / "copy.db"))
    done = to_mlflow.log_study("digits", storage=other, tracking_uri=uri)
    assert (done.written, done.there) == (0, 5)
    client, found = mlflow_runs(uri)
    study = aesearch.open_study("digits", store)
    for number, row in study.trials().set_index("number").iterrows():
        run = found[f"digits trial {number}"]
        assert run.info.status == "FINISHED"
        assert run.data.metrics["value"] == row["value"]
        assert float(run.data.params["learning_rate"]) == row["learning_rate"]
        losses = client.get_metric_history(run.info.run_id, "validation_loss/fold_1")
        own = study.curves().query(f"number == {number} and fold == 1")
        assert {p.step: p.value for p in losses} == dict(
            zip(own["epoch"], own["validation_loss"], strict=True)
        )
    model = found["digits delivered"]
    assert model.data.metrics["test/mse"] == study.evaluation.metrics.overall.mse.mean
    names = {item.path for item in client.list_artifacts(model.info.run_id)}
    assert names == {"best.yaml", "model.safetensors", "evaluation.json", "report.html"}


def test_mlflow_writes_anew_what_was_interrupted(study, uri, tmp_path, monkeypatch):
    """A run that was begun and never ended is gone, and a whole one in its place."""
    monkeypatch.chdir(tmp_path)
    (run,) = runs.trial_runs(study, only=2)
    experiment = to_mlflow._Experiment(uri, "digits")
    terminated = experiment._client.set_terminated
    experiment._client.set_terminated = lambda *_: None
    assert experiment.write(run)
    experiment._client.set_terminated = terminated
    assert experiment.write(run)
    assert not experiment.write(run)
    _, found = mlflow_runs(uri)
    assert found["digits trial 2"].info.status == "FINISHED"


def test_mlflow_is_told_of_each_trial_as_it_ends(store, uri, tmp_path, monkeypatch):
    """What was written live is not written again afterwards."""
    monkeypatch.chdir(tmp_path)
    tell = to_mlflow.on_trial("digits", storage=store, project="live", tracking_uri=uri)
    for number in (0, 1, 1):
        tell(TrialRecord(number, "complete"))
    assert set(mlflow_runs(uri, "live")[1]) == {"digits trial 0", "digits trial 1"}
    done = to_mlflow.log_study("digits", storage=store, project="live", tracking_uri=uri)
    assert (done.written, done.there) == (3, 2)


def test_wandb_has_each_run_once(study, wandb, tmp_path):
    """Offline: a folder for each trial and one for the model, none of them twice."""
    live = to_wandb.on_trial("digits", storage=study.storage)
    live(TrialRecord(1, "complete"))
    done = to_wandb.log_study(study)
    assert (done.project, done.written, done.there) == ("digits", 4, 1)
    assert to_wandb.log_study(study).written == 0
    found = wandb_records(tmp_path)
    assert set(found) == {*(f"trial {number}" for number in range(4)), "delivered"}
    assert {len(each) for each in found.values()} == {1}
    (records,) = found["trial 0"]
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in each.history.item}
        for each in records
        if each.HasField("history")
    ]
    own = study.curves().query("number == 0 and fold == 2")
    assert [row["validation_loss/fold_2"] for row in rows] == list(own["validation_loss"])
    assert [row["_step"] for row in rows] == list(own["epoch"])
    (records,) = found["delivered"]
    (sent,) = (each.artifact for each in records if each.HasField("artifact"))
    names = {entry.path for entry in sent.manifest.contents}
    assert names == {"best.yaml", "model.safetensors", "evaluation.json", "report.html"}
    (run,) = (each.run for each in records if each.HasField("run"))
    assert (run.project, run.run_group, run.job_type) == ("digits", "digits", "delivered")
    assert to_wandb.log_study(study, project="other").written == 5


def test_wandb_writes_anew_what_was_interrupted(study, wandb, tmp_path):
    """A folder that is not whole does not count."""
    to_wandb.log_study(study)
    whole = next(iter(tmp_path.glob("wandb/offline-run-*/aesearch-whole")))
    whole.unlink()
    assert to_wandb.log_study(study).written == 1


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_library_that_is_missing_is_named(store, monkeypatch, name):
    """One line with what to install, exit 2."""
    real = builtins.__import__

    def without(module, *rest):
        if module == name:
            raise ImportError(f"No module named {name!r}")
        return real(module, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    done = CliRunner().invoke(app, ["track", "digits", "--to", name, "--storage", store])
    assert done.exit_code == 2
    assert f"pip install 'aesearch[{name}]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_cannot_be_meant_is_refused(study, store):
    """An unknown tracker, and two stores."""
    done = CliRunner().invoke(app, ["track", "digits", "--to", "paper", "--storage", store])
    assert done.exit_code == 2
    assert "--to must be one of mlflow, wandb, got 'paper'" in done.stderr
    with pytest.raises(OptionError, match="storage must be given beside a name only"):
        to_mlflow.log_study(study, storage=store)


def test_a_tracker_that_takes_nothing_is_one_line(study, uri):
    """With what it said, without a password."""
    with pytest.raises(TrackerError, match=r"MLflow must .*nowhere://\*\*\*@x") as caught:
        to_mlflow.log_study(study, tracking_uri="nowhere://me:secret@x")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
