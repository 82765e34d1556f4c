"""A study as tables: every row and value of the store, exact floats, documented types."""

import csv
import io
import json
import math
import threading

import numpy as np
import pandas as pd
import pytest
from finished_study import resolved_spec
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

import aesearch
from aesearch.artifacts.table_file import TableFormatError, table_bytes
from aesearch.cli import app
from aesearch.studies.results import frames as pure
from aesearch.studies.results.records import StudySnapshot, TrialRecord
from aesearch.studies.store import study_rows

TYPES = {
    "number": "int64",
    "state": "string",
    "value": "float64",
    "standard_error": "float64",
    "fold_0": "float64",
    "fold_1": "float64",
    "fold_2": "float64",
    "epochs": "int64",
    "unstable": "string",
    "reason": "string",
}
SEARCHED = {
    "architecture": "string",
    "learning_rate": "float64",
    "weight_decay": "float64",
    "encoding_dim": "Int64",
    "dropout": "float64",
}


SMALL = [
    "data.limit=90",
    "training.epochs=3",
    "training.batch_size=16",
    "model.dense.hidden=[24]",
    "model.conv.channels=[3,4,5]",
    "model.conv.hidden=12",
    "space.architecture.choices=[dense, conv]",
    "search.trials=4",
    "search.score_epochs=2",
    "search.unstable_loss=1.0",
    "compute.device=cpu",
]


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Search a small study, without its retraining, in a store of its own."""
    from aesearch.data.study_data import load_problem
    from aesearch.inference.network import denormals_flushed
    from aesearch.studies.spec.load import load_spec
    from aesearch.workers.worker import Worker

    path = tmp_path_factory.mktemp("frames") / "a.db"
    problem = load_problem(load_spec(overrides=SMALL), device="cpu")
    engine = study_rows.open_store(str(path))
    study_rows.create_study(
        engine,
        "digits",
        spec=problem.spec,
        facts=problem.facts(),
        n_trials=4,
        generation_size=2,
        version="test",
    )
    # A worker changes its process for good; this one has other tests to run.
    with denormals_flushed():
        Worker(engine, "digits", kinds=("search",), stop=threading.Event()).run(exit_when_idle=True)
    yield engine, path
    engine.dispose()


@pytest.fixture
def here(searched, monkeypatch, tmp_path):
    """Go to an empty folder, with that store as the default."""
    engine, path = searched
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AESEARCH_STORAGE", str(path))
    return engine


def test_trials_are_those_of_the_store(here):
    """A row per trial with every value as it is stored, in columns of the documented types."""
    snapshot = study_rows.snapshot(here, "digits")
    frame = aesearch.frames.trials("digits")
    types = {name: str(dtype) for name, dtype in frame.dtypes.items()}
    assert {name: types.pop(name) for name in TYPES} == TYPES
    assert {name: types.pop(name) for name in SEARCHED} == SEARCHED
    assert set(types) <= {"hidden"}
    assert len(frame) == 4
    for row, trial in zip(frame.to_dict("records"), snapshot.trials, strict=True):
        assert row["number"] == trial.number
        assert row["state"] == trial.state
        assert row["value"] == trial.value
        assert row["epochs"] == trial.epochs
        scores = [row[f"fold_{fold}"] for fold in range(3) if not math.isnan(row[f"fold_{fold}"])]
        assert tuple(scores) == trial.fold_scores
        assert {k: row[k] for k in trial.params} == trial.params
        assert all(pd.isna(row[name]) for name in SEARCHED if name not in trial.params)


def test_curves_and_scores_are_those_of_the_store(here):
    """A row per trial, fold and epoch; a row per fold of a complete trial."""
    snapshot = study_rows.snapshot(here, "digits")
    curves = aesearch.frames.curves("digits")
    rows = study_rows.curves(here, study_rows.find_study(here, "digits"))
    assert [tuple(row) for row in curves.itertuples(index=False)] == rows
    assert len(rows) == 3 * sum(trial.epochs for trial in snapshot.trials)
    scores = aesearch.frames.scores("digits")
    expected = [(t.number, f, s) for t in snapshot.trials for f, s in enumerate(t.fold_scores)]
    assert [tuple(row) for row in scores.itertuples(index=False)] == expected
    assert expected
    whole = [str(dtype) for dtype in curves.dtypes], [str(dtype) for dtype in scores.dtypes]
    assert whole == (["int64"] * 3 + ["float64"] * 2, ["int64"] * 2 + ["float64"])


def test_a_study_that_has_not_begun_has_the_same_columns():
    """Waiting trials: the types are those of a finished study."""
    waiting = tuple(TrialRecord(number, "waiting") for number in range(2))
    snapshot = StudySnapshot("x", resolved_spec(), 2, waiting)
    frame = pure.trials(snapshot)
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == TYPES
    assert pure.scores(snapshot).dtypes.astype(str).tolist() == ["int64", "int64", "float64"]
    assert pure.curves([]).dtypes.astype(str).tolist() == ["int64"] * 3 + ["float64"] * 2


def test_a_searched_name_has_one_type():
    """Whole numbers stay whole beside trials that wait; a mix with fractions is float64."""
    trials = (
        TrialRecord(0, "complete", {"encoding_dim": 8, "weight_decay": 0}),
        TrialRecord(1, "complete", {"encoding_dim": 16, "weight_decay": 1e-05, "hidden": "24"}),
        TrialRecord(2, "waiting"),
    )
    frame = pure.trials(StudySnapshot("x", resolved_spec("search.folds=2"), 3, trials))
    assert frame["encoding_dim"].tolist() == [8, 16, pd.NA]
    assert frame["weight_decay"].tolist()[:2] == [0.0, 1e-05]
    assert frame["hidden"].isna().tolist() == [True, False, True]
    assert "8," in frame.to_csv()


def read_back(content, name):
    """Read a table with nothing of ours: floats of its first column, then texts."""
    if name == "csv":
        rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
        return [float(r["x"]) if r["x"] else math.nan for r in rows], [r["t"] for r in rows]
    if name == "json":
        rows = json.loads(content, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
        return [math.nan if r["x"] is None else r["x"] for r in rows], [r["t"] for r in rows]
    frame = pd.read_parquet(io.BytesIO(content))
    return frame["x"].tolist(), frame["t"].tolist()


@pytest.mark.parametrize("name", ["csv", "json", "parquet"])
@example(numbers=[5e-324, 1.7976931348623157e308, 0.1 + 0.2, -0.0], text='a,"b"\r\n')
@example(numbers=[1.0], text="\rlone")
@given(
    numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5),
    text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
)
def test_every_float_and_text_is_read_back_as_it_was(name, numbers, text):
    """Bit for bit, from the smallest denormal to the largest; commas, quotes and line ends too."""
    if name == "parquet":
        pytest.importorskip("pyarrow")
    texts = [text] * len(numbers)
    frame = pd.DataFrame({"x": numbers, "t": pd.Series(texts, dtype="string")})
    found, words = read_back(table_bytes(frame, name), name)
    assert np.array(found).tobytes() == np.array(numbers).tobytes()
    assert words == texts


def test_what_is_missing_is_empty_or_null():
    """NaN, NA and infinity, which JSON lacks."""
    frame = pd.DataFrame(
        {
            "x": [1.5, math.nan, math.inf],
            "n": pd.Series([1, None, 3], dtype="Int64"),
            "t": pd.Series(["a", None, "c"], dtype="string"),
        }
    )
    assert table_bytes(frame, "csv") == b"x,n,t\n1.5,1,a\n,,\ninf,3,c\n"
    assert json.loads(table_bytes(frame, "json")) == [
        {"x": 1.5, "n": 1, "t": "a"},
        {"x": None, "n": None, "t": None},
        {"x": None, "n": 3, "t": "c"},
    ]


def test_the_command_prints_csv_and_json(here):
    """On standard output alone, and the same as the Python function's table."""
    frame = aesearch.frames.trials("digits")
    done = invoke("trials", "digits")
    assert (done.exit_code, done.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [float(row["value"]) for row in rows] == frame["value"].tolist()
    assert [int(row["encoding_dim"]) for row in rows] == frame["encoding_dim"].tolist()
    found = json.loads(invoke("trials", "digits", "--format", "json").stdout)
    assert [row["learning_rate"] for row in found] == frame["learning_rate"].tolist()
    assert list(found[0]) == list(frame.columns)


def test_the_command_writes_a_file_whose_ending_says_the_format(here, tmp_path):
    """Parquet keeps the types; a file that exists is replaced by force only."""
    pytest.importorskip("pyarrow")
    assert invoke("trials", "digits", "--out", "t.parquet").exit_code == 0
    frame = aesearch.frames.trials("digits")
    pd.testing.assert_frame_equal(pd.read_parquet("t.parquet"), frame)
    before = (tmp_path / "t.parquet").read_bytes()
    done = invoke("trials", "digits", "--out", "t.parquet", "--format", "csv")
    assert done.exit_code == 2
    assert "--out must not exist, got 't.parquet'" in done.stderr
    assert (tmp_path / "t.parquet").read_bytes() == before
    assert invoke("trials", "digits", "--out", "t.parquet", "--force").exit_code == 0
    assert (tmp_path / "t.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits", "--format", "xlsx"], "format must be one of csv, json, parquet, got 'xlsx'"),
        (["digits", "--out", "t.xlsx"], "got 'xlsx'"),
        (["digits", "--format", "parquet"], "parquet must be written to a file"),
        (["digits", "--out", "no/t.csv"], "--out must lie in an existing folder"),
        (["digist"], "there: 'digits'"),
        (["digits", "--storage", "no.db"], "'no.db': no such file"),
    ],
)
def test_bad_input_is_named_and_nothing_is_made(arguments, message, here, tmp_path):
    """Exit 2 and one message on stderr."""
    done = invoke("trials", *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    """Parquet needs an extra."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(TableFormatError, match=r"pip install 'aesearch\[parquet\]'"):
        table_bytes(pd.DataFrame(), "parquet")


def test_a_study_is_a_name_or_a_result(here):
    """Anything else is named; a storage beside a result too."""
    with pytest.raises(aesearch.AesearchError, match="study must be a name, or what"):
        aesearch.frames.trials(3)
    with pytest.raises(LookupError, match="there: 'digits'"):
        aesearch.frames.curves("other")
    with pytest.raises(aesearch.AesearchError, match=r"'no\.db': no such file"):
        aesearch.frames.scores("digits", storage="no.db")
