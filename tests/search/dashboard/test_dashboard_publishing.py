"""What Optuna's own dashboard answers after we wrote into its tables, without training anything."""

import contextlib
import csv
import io
import json
import math
from dataclasses import replace

import optuna
import plotly.graph_objects as go
import pytest
import sqlalchemy as sa
from markdown_it import MarkdownIt
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState
from optuna_dashboard import get_note, save_note, wsgi
from PIL import Image
from report_study import report_arguments

from aesearch.studies.dashboard import publishing, rows
from aesearch.studies.dashboard.artifacts import StoredArtifacts
from aesearch.studies.dashboard.figures import study_figures
from aesearch.studies.dashboard.notes import study_note
from aesearch.studies.dashboard.publishing import publish
from aesearch.studies.dashboard.rows import CHUNK, write_figures
from aesearch.studies.report.figures_search import importances
from aesearch.studies.results.records import Picture, TrialRecord
from aesearch.studies.results.summary import Front, FrontTrial, summary
from aesearch.studies.store import (
    ledger,
    retrain_results,
    search_results,
    study_rows,
    tables,
    whole_studies,
)
from aesearch.studies.store.connection import database
from aesearch.studies.store.optuna import optuna_tables
from aesearch.studies.store.search_results import FoldCurve, Outcome

KINDS = {"encoding_dim": CategoricalDistribution([4, 8])}
HOSTILE = "<img src=x onerror=alert(1)> | ![p](http://evil/p.png) [l](javascript:1) *b* `c` $x$"


def png(width=30, height=6):
    """A picture as the strip is: small, grey."""
    stream = io.BytesIO()
    Image.new("L", (width, height), 128).save(stream, "PNG")
    return stream.getvalue()


def complete(number, value, *, unstable=None):
    """A trial that completed with three fold scores around a value."""
    scores = (value - 0.001, value, value + 0.001)
    attributes = {"standard_error": 0.001 / math.sqrt(3), "fold_scores": list(scores)}
    if unstable:
        attributes["unstable"] = unstable
    return Outcome(
        number,
        TrialState.COMPLETE,
        value=value,
        fold_scores=scores,
        user_attributes=attributes,
        pictures=(Picture("reconstructions.png", "10 validation images", png()),),
    )


def ended(number, state, reason):
    """A trial that ended early, with its reason."""
    value = 0.2 if state == TrialState.PRUNED else None
    return Outcome(number, state, value=value, user_attributes={"reason": reason})


def finish(engine, name, outcomes):
    """Write outcomes as a worker does, a generation at a time; every fold has two epochs."""
    study = study_rows.find_study(engine, name)
    left = {outcome.number: outcome for outcome in outcomes}
    while left:
        lease = ledger.claim(engine, study, owner="me", lookahead=99, kinds=("search",))
        own = [left.pop(number) for number in lease.members]
        search_results.write_suggestions(
            engine, lease, [{"encoding_dim": 4 * (1 + n % 2)} for n in lease.members], KINDS
        )
        curves = [
            FoldCurve(o.number, fold, 1, [0.5, 0.25 + fold], [0.4, math.nan if fold else 0.125])
            for o in own
            for fold in range(3)
        ]
        reports = {o.number: {1: 0.4, 2: 0.2} for o in own}
        search_results.write_rung(
            engine, lease, curves=curves, reports=reports, outcomes=own, done=True
        )


@pytest.fixture
def make_study(create_study, tiny_spec):
    """Make a study of a name with these outcomes in a store; returns its engine."""

    def make(storage, outcomes, name="digits", spec=None):
        spec = spec or tiny_spec(f"search.trials={len(outcomes)}")
        spec = spec.model_copy(update={"name": name})
        engine = create_study(storage, spec)
        finish(engine, name, outcomes)
        return engine

    return make


@pytest.fixture
def study(make_study, tmp_path):
    """Make a study in an SQLite file that a word names; returns its engine."""
    return lambda outcomes, name="digits", word="s": make_study(
        str(tmp_path / f"{word}.db"), outcomes, name
    )


@pytest.fixture
def study_anywhere(make_study, new_store):
    """Make a study on each of the two databases; returns its engine."""
    return lambda outcomes: make_study(new_store("s"), outcomes)


@contextlib.contextmanager
def through_optuna(engine, **options):
    """Optuna's own view of the store, closed again."""
    storage = database.optuna_storage(engine, **options)
    try:
        yield storage
    finally:
        storage.engine.dispose()


def ask(engine, path):
    """What the stock dashboard answers: the body of one GET."""
    with through_optuna(engine, read_only=True) as storage:
        return answer_of(wsgi(storage, artifact_store=StoredArtifacts(engine)), path)


def answer_of(app, path):
    """The body of one GET, which must succeed."""
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "wsgi.errors": io.StringIO()}
    answer = {}
    found = app(environ, lambda status, headers, *_: answer.update(status=status, headers=headers))
    body = b"".join(found)
    assert answer["status"].startswith("200"), body
    return body


def detail(engine, name="digits"):
    """The study as the dashboard's page gets it."""
    return json.loads(ask(engine, f"/api/studies/{study_rows.find_study(engine, name).study_id}"))


def html(note):
    """A note as a Markdown reader shows it."""
    return MarkdownIt("commonmark").enable("table").render(note)


def dump(engine):
    """Every row of the tables that the dashboard reads, and ours."""
    shown = [
        optuna_tables.SYSTEM_ATTRIBUTES,
        optuna_tables.models.StudySystemAttributeModel.__table__,
        tables.trial_picture,
    ]
    with database.reading(engine) as connection:
        return [sorted(map(repr, connection.execute(sa.select(table)))) for table in shown]


def test_a_trial_has_its_note_and_files_the_moment_it_ends(study):
    """Without anybody publishing: one row per fold, and every file as it should be."""
    engine = study([complete(0, 0.02), complete(1, 0.03)])
    trial = detail(engine)["trials"][1]
    shown = html(trial["note"]["body"])
    assert "0.03000 ± 0.00058" in shown
    assert shown.count("<tr>") == 1 + 3 + 1
    assert "not finite" in shown
    assert shown.count("<img") == 2
    files = {}
    for meta in trial["artifacts"]:
        path = f"/artifacts/{trial['study_id']}/{trial['trial_id']}/{meta['artifact_id']}"
        files[meta["filename"]] = ask(engine, path)
        assert (path in trial["note"]["body"]) == (meta["mimetype"] == "image/png")
    assert list(files) == ["curves.csv", "curves.png", "reconstructions.png"]
    rows = list(csv.DictReader(io.StringIO(files["curves.csv"].decode())))
    assert [(r["fold"], r["epoch"]) for r in rows] == [(f, e) for f in "012" for e in "12"]
    assert float(rows[1]["validation_loss"]) == 0.125
    assert rows[3]["validation_loss"] == ""
    assert Image.open(io.BytesIO(files["curves.png"])).size == (720, 400)
    assert Image.open(io.BytesIO(files["reconstructions.png"])).size == (600, 120)


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (ended(0, TrialState.PRUNED, HOSTILE), "Pruned:"),
        (ended(0, TrialState.FAIL, HOSTILE), "Failed:"),
        (complete(0, 0.2, unstable=HOSTILE), "Unstable, never chosen:"),
    ],
)
def test_a_note_gives_the_reason_as_plain_text(study, outcome, word):
    """A reason is shown letter by letter, whatever markup an error message holds."""
    engine = study([outcome, complete(1, 0.03)])
    publish(engine, "digits")
    found = detail(engine)
    notes = [found["trials"][0]["note"]["body"], found["note"]["body"]]
    for note in notes[: 1 if outcome.state == TrialState.PRUNED else 2]:
        shown = html(note)
        assert "&lt;img src=x onerror=alert(1)&gt; | ![p](http://evil/p.png)" in shown
        assert "[l](javascript:1) *b* `c` $x$" in shown
    assert word in html(found["trials"][0]["note"]["body"])


def test_publishing_again_writes_nothing(study_anywhere, tmp_path):
    """A second publication changes no row and no file; it says so."""
    engine = study_anywhere([complete(n, 0.02 + n / 1000) for n in range(4)])
    folder = tmp_path / "files"
    assert publish(engine, "digits", folder)
    rows, files = dump(engine), {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert len(files) == 4 * 3
    assert not publish(engine, "digits", folder)
    assert dump(engine) == rows
    assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == files


def test_a_file_that_a_power_cut_emptied_is_made_again(study, tmp_path):
    """An empty or missing file is written, the others are left alone."""
    engine = study([complete(0, 0.02), complete(1, 0.03)])
    publish(engine, "digits", tmp_path / "files")
    first, second, *_ = files = sorted((tmp_path / "files").iterdir())
    whole = {path: path.read_bytes() for path in files}
    first.write_bytes(b"")
    second.unlink()
    assert publishing.write_files(engine, "digits", tmp_path / "files") == 2
    assert {path: path.read_bytes() for path in files} == whole


def test_the_same_study_gives_the_same_files(study, tmp_path):
    """Two stores with one study: names and bytes of the files are equal, of another's not."""
    contents = []
    for word, value in (("one", 0.02), ("two", 0.02)):
        engine = study([complete(0, value), complete(1, 0.03)], word=word)
        publish(engine, "digits", tmp_path / word)
        contents.append({p.name: p.read_bytes() for p in (tmp_path / word).iterdir()})
    assert contents[0] == contents[1]
    engine = study([complete(0, 0.02), complete(1, 0.03)], name="other", word="three")
    publish(engine, "other", tmp_path / "three")
    assert not {p.name for p in (tmp_path / "three").iterdir()} & set(contents[0])


def test_stored_files_are_what_a_folder_holds(study, tmp_path):
    """The stock dashboard with a folder shows the very bytes that ours makes from the rows."""
    engine = study([complete(0, 0.02), complete(1, 0.03)])
    publish(engine, "digits", tmp_path / "files")
    stored = StoredArtifacts(engine)
    files = list((tmp_path / "files").iterdir())
    assert len(files) == 6
    for path in files:
        assert stored.open_reader(path.name).read() == path.read_bytes()


@pytest.mark.parametrize("artifact_id", ["00000000-0000-4000-8000-000000000000", "../s.db", ""])
def test_an_unknown_file_is_not_found(study, tmp_path, artifact_id):
    """Neither a foreign id nor a path gives anything away."""
    (tmp_path / "files").mkdir()
    stored = StoredArtifacts(study([complete(0, 0.02)]), tmp_path / "files")
    with pytest.raises(optuna.artifacts.exceptions.ArtifactNotFound):
        stored.open_reader(artifact_id)


def test_edited_notes_are_left_alone(study_anywhere):
    """What somebody wrote in the dashboard survives publishing, on trials and on the study."""
    engine = study_anywhere([complete(0, 0.02), complete(1, 0.03)])
    publish(engine, "digits")
    long = "mine, and long: " + "x" * (2 * CHUNK)
    with through_optuna(engine) as storage:
        opened = optuna.load_study(study_name="digits", storage=storage)
        key = f"dashboard:{opened.trials[0]._trial_id}:note_str:0"
        assert key in storage.get_study_system_attrs(opened._study_id)
        storage.set_study_system_attr(opened._study_id, key, "mine")
        save_note(opened, long)
        choose(engine, study_rows.find_study(engine, "digits"), 1)
        assert publish(engine, "digits"), "the figures name the winner"
        assert get_note(opened) == long
        assert detail(engine)["trials"][0]["note"]["body"] == "mine"
        save_note(opened, "")
        publish(engine, "digits")
        assert get_note(opened) == ""


def choose(engine, study_row, number):
    """Choose a trial as the end of a search does."""
    ended = ("complete", "pruned", "failed")
    trials = study_rows.snapshot(engine, study_row.name).trials
    assert retrain_results.begin_retraining(
        engine,
        study_row,
        number=number,
        retrain_key="k",
        chunks=[range(1)],
        n_finished=sum(trial.state in ended for trial in trials),
    )


def test_the_study_note_follows_the_study(study_anywhere):
    """Best so far, then winner: the dashboard's own reader gets the newest, by a new version."""
    engine = study_anywhere(
        [complete(0, 0.02), complete(1, 0.03), ended(2, TrialState.FAIL, "broke")]
    )
    publish(engine, "digits")
    before = detail(engine)["note"]
    assert "Best so far: [trial 0]" in before["body"]
    choose(engine, study_rows.find_study(engine, "digits"), 0)
    publish(engine, "digits")
    after = detail(engine)["note"]
    assert "Winner: [trial 0]" in after["body"]
    assert after["version"] == before["version"] + 1
    assert "1 trial failed:" in after["body"]
    assert "corrected resampled t-test" in after["body"]


def test_the_note_says_what_the_importances_of_the_page_are_of(study, monkeypatch):
    """What optuna-dashboard computes itself, by another method than the report."""
    used = []

    class PedAnovaImportanceEvaluator(optuna.importance.PedAnovaImportanceEvaluator):
        def evaluate(self, *arguments, **named):
            used.append(self)
            return super().evaluate(*arguments, **named)

    engine = study([complete(n, 0.02 + n / 1000) for n in range(12)])
    publish(engine, "digits")
    assert "best tenth of the trials apart from all (PED-ANOVA)" in detail(engine)["note"]["body"]
    kind = PedAnovaImportanceEvaluator
    monkeypatch.setattr(f"optuna_dashboard._importance.{kind.__name__}", kind)
    study_id = study_rows.find_study(engine, "digits").study_id
    answer = json.loads(ask(engine, f"/api/studies/{study_id}/param_importances"))
    assert len(used) == 1
    (shown,) = answer["param_importances"]
    assert sum(each["importance"] for each in shown) == pytest.approx(1)
    drawn = importances({"encoding_dim": (0.5, 0.4, 0.6)})
    assert "(fANOVA;" in drawn.caption
    assert "best tenth of the trials apart from all (PED-ANOVA)" in drawn.caption


@pytest.mark.server
def test_two_that_publish_take_turns(make_study, postgres_url, monkeypatch):
    """Each writes what differs from what it read: nobody may write between the two."""
    engine = make_study(postgres_url, [complete(0, 0.02), complete(1, 0.03)])
    locks = sa.text(
        "SELECT mode FROM pg_locks JOIN pg_class ON pg_class.oid = relation "
        "WHERE relname = 'studies' AND pid = pg_backend_pid()"
    )
    seen = []

    def spy(connection, *arguments):
        seen.append(set(connection.execute(locks).scalars()))
        return write(connection, *arguments)

    write = rows.write_study_note
    monkeypatch.setattr(rows, "write_study_note", spy)
    publish(engine, "digits")
    assert len(seen) == 1
    assert "RowShareLock" in seen[0]


def test_figures_are_small_and_stand_alone(study):
    """Plotly takes each figure; each is titled, under 30 kB, and gone when it says nothing."""
    engine = study([complete(n, 0.02 + n / 1000) for n in range(6)])
    publish(engine, "digits")
    figures = {item["id"]: item["graph_object"] for item in detail(engine)["plotly_graph_objects"]}
    assert set(figures) == {
        "aesearch-best-trials",
        "aesearch-encoding-dimension",
        "aesearch-fold-curves",
    }
    for text in figures.values():
        figure = go.Figure(json.loads(text))
        assert len(text) < 30_000
        assert len(figure.layout.title.text) > 20
        assert figure.data
    points = json.loads(figures["aesearch-best-trials"])["data"][0]
    assert points["y"][0] == 0.02
    # The variance over three folds is pooled over the six trials, without what a fold adds to all.
    shares = [0.001 / (0.02 + n / 1000) for n in range(6)]
    mean = sum(shares) / 6
    variance = 2 * sum((share - mean) ** 2 for share in shares) / (5 * 2)
    assert points["error_y"]["array"][0] == float(f"{0.02 * math.sqrt(variance / 3):.5g}")


def test_the_figure_of_the_encoding_dimension_shows_every_dimension():
    """Of a thousand trials too: the best of all would be those of the largest codes."""
    trials = [
        TrialRecord(n, "complete", {"encoding_dim": dim}, 0.1 / dim + n * 1e-6, 0.0, (0.1,))
        for n, dim in enumerate([64] * 600 + [8] * 400)
    ]
    drawn = study_figures(trials, ties=None, winner=999, curve=())
    figure = json.loads(drawn["encoding-dimension"])
    points, best, winner = figure["data"]
    assert set(points["x"]) == {8, 64}
    assert best["x"] == [8, 64]
    assert winner["x"] == [8]
    assert "the 150 best trials of each" in figure["layout"]["title"]["text"]


def test_the_front_is_drawn_by_weights_where_those_are_an_objective():
    """With its knee and the winner told apart, and nothing that is not on it."""
    values = {0: 0.05, 1: 0.012, 2: 0.01, 3: 0.06}
    trials = [
        TrialRecord(n, "complete", {"encoding_dim": 2 + n}, value, 0.0, (value,))
        for n, value in values.items()
    ]
    rows = [FrontTrial(n, values[n], 2 + n, 100 * 10**n) for n in (0, 1, 2)]
    about = {"ties": None, "winner": 2, "curve": ()}
    front = Front(["mse", "n_parameters"], rows, knee=1)
    figure = json.loads(study_figures(trials, **about, front=front)["pareto-front"])
    assert [(trace["name"], trace["x"], trace["y"]) for trace in figure["data"]] == [
        ("on the front", [100], [0.05]),
        ("its knee", [1000], [0.012]),
        ("trial 2", [10000], [0.01]),
    ]
    assert figure["layout"]["xaxis"]["type"] == "log"
    by_code = Front(["mse", "encoding_dim"], rows, knee=1)
    assert "pareto-front" not in study_figures(trials, **about, front=by_code)


def test_the_notes_of_a_denoiser_say_which_images_are_clean(make_study, tiny_spec, tmp_path):
    """A score under noise and a test on clean images are two things."""
    spec = tiny_spec(
        "search.trials=1", "training.corruption=gaussian", "training.corruption_level=0.5"
    )
    engine = make_study(str(tmp_path / "d.db"), [complete(0, 0.02)], spec=spec)
    study = study_rows.find_study(engine, "digits")
    choose(engine, study, 0)
    publish(engine, "digits")
    found = detail(engine)
    told = "validation MSE per pixel; inputs corrupted by gaussian 0.5, targets clean"
    for note in (found["note"]["body"], found["trials"][0]["note"]["body"]):
        assert told in html(note)


@pytest.mark.parametrize(
    ("epochs", "score_epochs", "told"),
    [
        ("auto", "auto", "the score is measured with the weights of the best epoch"),
        ("2", "2", "the mean validation loss of the last 2 epochs"),
    ],
)
def test_a_note_says_what_the_score_of_a_fold_is(
    make_study, tiny_spec, tmp_path, epochs, score_epochs, told
):
    """Measured once on what the fold holds out, or a mean of the losses that are listed."""
    how = (f"training.epochs={epochs}", f"search.score_epochs={score_epochs}")
    spec = tiny_spec("search.trials=1", *how)
    engine = make_study(str(tmp_path / "d.db"), [complete(0, 0.02)], spec=spec)
    shown = html(detail(engine)["trials"][0]["note"]["body"])
    assert told in shown
    assert "at the last epoch that was trained: 2." in shown


def test_the_note_of_a_study_says_where_its_seeds_lie_far_apart():
    snapshot = report_arguments()["snapshot"]
    best, worst = snapshot.retrains
    for factor in (1.0, 3.0):
        retrains = (best, replace(worst, validation_loss=factor * best.validation_loss))
        note = study_note(summary(replace(snapshot, retrains=retrains)), study_id=1, folds=3)
        assert ("Its seeds lie far apart:** the worst has 3 times" in note) is (factor == 3.0)


def test_a_figure_that_shrinks_or_goes_leaves_no_piece(study_anywhere):
    """A shorter figure is read back as written: no chunk of the longer one is left behind."""
    engine = study_anywhere([complete(0, 0.02)])
    study_id = study_rows.find_study(engine, "digits").study_id
    for figures in ({"a": "x" * (3 * CHUNK + 5), "b": "y"}, {"a": "z" * CHUNK}, {}):
        with database.writing(engine) as connection:
            write_figures(connection, study_id, figures)
        found = detail(engine)["plotly_graph_objects"]
        assert {item["id"]: item["graph_object"] for item in found} == {
            f"aesearch-{name}": text for name, text in figures.items()
        }


def test_trials_of_an_older_version_get_their_notes(study):
    """What an earlier version finished without notes is told of by the next publication."""
    engine = study([complete(0, 0.02), complete(1, 0.03)])
    whole = dump(engine)
    with database.writing(engine) as connection:
        for table in (
            optuna_tables.SYSTEM_ATTRIBUTES,
            optuna_tables.models.StudySystemAttributeModel.__table__,
        ):
            connection.execute(table.delete())
    assert detail(engine)["trials"][0]["note"]["body"] == ""
    publish(engine, "digits")
    trials = detail(engine)["trials"]
    assert [trial["note"]["body"] != "" for trial in trials] == [True, True]
    assert [len(trial["artifacts"]) for trial in trials] == [3, 3]
    assert len(dump(engine)[0]) == len(whole[0])


def test_a_very_large_study_notes_its_best(study, monkeypatch):
    """Beyond the limit, notes come when the search is over, on the best trials alone."""
    monkeypatch.setattr(publishing, "MAX_NOTED", 2)
    values = [0.05, 0.02, 0.04, 0.03]
    engine = study([complete(n, value) for n, value in enumerate(values)])
    assert not any(trial["note"]["body"] for trial in detail(engine)["trials"])
    publish(engine, "digits")
    noted = [trial["number"] for trial in detail(engine)["trials"] if trial["note"]["body"]]
    assert noted == [1, 3]


def test_deleting_a_study_takes_its_pictures(study_anywhere, make_study):
    """A deleted study leaves no picture; its neighbour keeps its own."""
    engine = study_anywhere([complete(0, 0.02), complete(1, 0.03)])
    url = engine.url.render_as_string(hide_password=False)
    make_study(url, [complete(0, 0.02), complete(1, 0.03)], "other")
    whole_studies.delete_study(engine, "digits")
    with database.reading(engine) as connection:
        left = set(connection.execute(sa.select(tables.trial_picture.c.trial_id)).scalars())
        mine = study_rows.find_study(engine, "other").study_id
        assert left == set(optuna_tables.trial_ids(connection, mine).values())


def test_a_read_only_view_cannot_write(study_anywhere):
    """The database itself refuses what the read-only dashboard might try to write."""
    engine = study_anywhere([complete(0, 0.02)])
    with (
        through_optuna(engine, read_only=True) as storage,
        pytest.raises((optuna.exceptions.StorageInternalError, sa.exc.SQLAlchemyError)),
    ):
        storage.set_study_user_attr(1, "key", "value")
