"""A study from Python: what the commands show and write, in few statements and one transaction."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner

import aesearch
from aesearch.artifacts.run_folder import write_run_folder
from aesearch.cli import app
from aesearch.studies.errors import RunFailedError, StudyNotFoundError
from aesearch.studies.store import retrain_results, study_rows
from aesearch.studies.store.status import statuses

SMALL = ("search.trials=3", "retrain.max_epochs=2", "evaluation.bootstrap=30")
NAME = "<b>digits & co</b>"


@pytest.fixture(scope="module")
def storage(tmp_path_factory, tiny_spec):
    """A store with one finished study, whose name is no name for HTML or a folder."""
    from chaos import create, finish

    path = tmp_path_factory.mktemp("study") / "study.db"
    create(path, tiny_spec(*SMALL, f"name={NAME}")).dispose()
    finish(path, NAME)
    return str(path)


def test_it_gives_what_the_store_holds(storage):
    """Tables, best trial, model and summary, each read here in another way."""
    study = aesearch.open_study(storage=storage)
    engine = study_rows.open_store(storage)
    row = study_rows.find_study(engine, NAME)
    snapshot = study_rows.snapshot(engine, NAME)
    rows = retrain_results.retrained(engine, row)
    assert study.name == NAME
    assert study.spec == study_rows.stored_spec(row)
    assert study.best == snapshot.trials[snapshot.chosen]
    assert study.trials().number.tolist() == [0, 1, 2]
    assert len(study.curves()) == len(study_rows.curves(engine, row))
    assert study.scores().score.tolist() == [
        score for trial in snapshot.trials for score in trial.fold_scores
    ]
    assert study.summary().winner.number == snapshot.chosen
    assert study.evaluation.n_test == 359
    assert study.status().state == statuses(engine, NAME)[0].state == "finished"
    exported = min(rows, key=lambda row: (row.validation_loss, row.seed_index))
    from aesearch.artifacts.model_file import weights_sha256

    assert weights_sha256(study.model()) == exported.weights_sha256
    engine.dispose()


def test_the_commands_write_the_same(storage, tmp_path, monkeypatch):
    """Report and run folder, byte for byte."""
    monkeypatch.chdir(tmp_path)
    study = aesearch.open_study(NAME, storage)
    page = study.report(tmp_path / "new" / "page.html")
    folder = study.export(tmp_path / "python")
    for words in (["report", NAME, "--out", "r.html"], ["export", NAME, "--out", "command"]):
        assert CliRunner().invoke(app, [*words, "--storage", storage]).exit_code == 0
    assert (tmp_path / "r.html").read_bytes() == page.read_bytes()
    files = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    assert len(files) > 9
    for file in files:
        there = tmp_path / "command" / file
        assert there.is_dir() or there.read_bytes() == (folder / file).read_bytes()
    shown = CliRunner().invoke(app, ["show", NAME, "--storage", storage]).stdout
    assert shown.startswith(repr(study))


def test_a_run_folder_is_read_in_one_transaction(storage, tmp_path):
    """Fifteen statements at most, however many trials: nothing can change between them."""
    engine = study_rows.open_store(storage)
    asked, begun = [], []
    sa.event.listen(engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
    sa.event.listen(engine, "begin", lambda _: begun.append(1))
    write_run_folder(engine, NAME, tmp_path / "out")
    engine.dispose()
    statements = [text for text in asked if not text.startswith("BEGIN")]
    assert len(begun) == 1
    assert 10 < len(statements) <= 15, statements


def test_a_notebook_shows_it(storage):
    """The words, the best trials and a picture; a name is no markup."""
    page = aesearch.open_study(NAME, storage)._repr_html_()
    assert "<b>digits" not in page
    assert "&lt;b&gt;digits &amp; co" in page
    assert 'src="data:image/png;base64,' in page
    numbers = [trial.number for trial in aesearch.open_study(NAME, storage).best_trials(5)]
    assert re.findall(r"<tr>\s*<td>(\d+)</td>", page) == list(map(str, numbers))


def test_another_look_is_counted(storage):
    """The levels that were asked for only; the store keeps its own evaluation."""
    study = aesearch.open_study(NAME, storage)
    found = study.evaluate(noise={"gaussian": [0.25]}, bootstrap=20)
    assert (found.looks, found.saved) == (2, False)
    rows = found.evaluation.document.robustness
    assert {(row.corruption, row.level) for row in rows} == {("gaussian", 0.25)}
    assert aesearch.open_study(NAME, storage).evaluation == study.evaluation


def test_what_is_not_there_is_named(storage, tmp_path, tiny_spec, create_study):
    """No name among several, another name, a study that was not retrained."""
    path = str(tmp_path / "s.db")
    create_study(path, tiny_spec("name=a"))
    create_study(path, tiny_spec("name=b"))
    with pytest.raises(StudyNotFoundError, match="there: 'a', 'b'"):
        aesearch.open_study(storage=path)
    with pytest.raises(StudyNotFoundError, match="got 'c'; there: 'a', 'b'"):
        aesearch.open_study("c", path)
    assert [found.name for found in aesearch.list_studies(path)] == ["a", "b"]
    study = aesearch.open_study("a", path)
    assert study.best is None
    assert "<table" not in study._repr_html_()
    with pytest.raises(RunFailedError, match="must be retrained and tested"):
        study.model()


def test_each_image_is_measured(storage):
    """Against the difference of the reconstruction, by hand; in every layout."""
    model = aesearch.open_study(NAME, storage).model()
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8), dtype=np.uint8)
    found = aesearch.evaluate(model, images)
    again = aesearch.reconstruct(model, images)
    errors = ((again - images / 255.0) ** 2).mean((1, 2))
    np.testing.assert_allclose(found.mse, errors, rtol=1e-5)
    assert list(found) == ["mse", "psnr", "binary_accuracy", "ssim"]
    pd.testing.assert_frame_equal(aesearch.evaluate(model, images[:, None]), found)


def test_every_public_name_is_there():
    """Also in the list that Tab completes."""
    for name in aesearch.__all__:
        assert getattr(aesearch, name) is not None


def test_the_specification_in_the_run_folder_makes_the_study_again(storage, tmp_path, monkeypatch):
    """Trial for trial, in another store."""
    monkeypatch.chdir(tmp_path)
    study = aesearch.open_study(NAME, storage)
    folder = study.export(tmp_path / "out")
    again = aesearch.search(spec=folder / "study.yaml", storage="other.db", workers=1, quiet=True)
    pd.testing.assert_frame_equal(again.trials, study.trials())
    assert again.spec.name == NAME


def test_a_script_without_a_guard_trains_once(storage, tmp_path):
    """A spawned process would run the whole script again: what it prints is printed once."""
    folder = aesearch.open_study(NAME, storage).export(tmp_path / "out")
    script = tmp_path / "script.py"
    script.write_text(
        "import aesearch\n"
        "print('hello')\n"
        f"print(aesearch.verify({str(folder)!r}, quiet=True).verdict)\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["hello", "identical"]


def test_a_run_folder_is_trained_again(storage, tmp_path):
    """To the same weights and the same error."""
    folder = aesearch.open_study(NAME, storage).export(tmp_path / "out")
    trained = aesearch.train(folder, out=tmp_path / "again", quiet=True)
    result = yaml.safe_load((folder / "best.yaml").read_text())["result"]
    assert trained.test_mse == result["test"]["mse"]
    name = "model.safetensors"
    assert (trained.folder / name).read_bytes() == (folder / name).read_bytes()


def test_it_is_read_again_wherever_the_process_goes(tmp_path, tiny_spec, work, monkeypatch):
    """A relative store, a folder that changes, trials that came since."""
    from chaos import create

    monkeypatch.chdir(tmp_path)
    engine = create("s.db", tiny_spec(*SMALL))
    study = aesearch.open_study(storage=Path("s.db"))
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert study.curves().empty
    before = study.report("before.html").read_text()
    work(engine)
    engine.dispose()
    assert len(study.curves()) > 0
    assert study.report("after.html").read_text() != before


def test_the_specification_of_a_study_that_grew_says_how(tmp_path, tiny_spec, create_study, work):
    """Its later trials know of the earlier ones: one command would try others."""
    engine = create_study(tmp_path / "s.db", tiny_spec(*SMALL, "search.generation_size=2"))
    study_rows.raise_trials(engine, study_rows.find_study(engine, "digits"), 5, 2)
    work(engine)
    folder = aesearch.open_study(storage=tmp_path / "s.db").export(tmp_path / "out")
    head = (folder / "study.yaml").read_text().splitlines()[:3]
    assert head[1:] == [
        "#   aesearch run --spec study.yaml --trials 3",
        "#   aesearch run --spec study.yaml",
    ]


def test_bad_arguments_are_named(storage, tmp_path):
    """By what they are; no image at all has no error."""
    from aesearch.studies.errors import AesearchError

    with pytest.raises(AesearchError, match="storage must be a database URL or a path, got int"):
        aesearch.open_study(NAME, 3)
    with pytest.raises(AesearchError, match="tolerance must be >= 0, got -1"):
        aesearch.verify(tmp_path, tolerance=-1)
    with pytest.raises(AesearchError, match="dataset must be"):
        aesearch.search(dataset="a" * 300)
    model = aesearch.open_study(NAME, storage).model()
    assert aesearch.evaluate(model, np.empty((0, 8, 8), np.uint8)).shape == (0, 4)


def test_the_tables_are_of_a_study_however_it_is_given(storage):
    """By name, or as what ``open_study`` gave; anything else is named."""
    from aesearch.options import OptionError

    study = aesearch.open_study(NAME, storage)
    for name in ("trials", "curves", "scores"):
        table = getattr(aesearch.frames, name)
        pd.testing.assert_frame_equal(table(study), table(NAME, storage=storage))
    with pytest.raises(OptionError, match="beside a Study, which knows its store"):
        aesearch.frames.trials(study, storage=storage)
    with pytest.raises(OptionError, match=r"study must be a name.*got int"):
        aesearch.frames.trials(3)


@pytest.mark.parametrize("command", ["train", "verify"])
def test_a_name_is_no_file_and_its_run_folder_is_named(tmp_path, monkeypatch, command):
    """Other commands take the name of a study; these take its file."""
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, [command, "digits"])
    assert said.exit_code == 2
    assert "got nothing at this path; a run writes to runs/<study>" in said.stderr
    (tmp_path / "runs/digits").mkdir(parents=True)
    (tmp_path / "runs/digits/best.yaml").touch()
    said = CliRunner().invoke(app, [command, "digits"])
    assert "a run writes to runs/digits" in said.stderr
