"""The five reports held against studies: what is measured, how it is judged, and the page."""

import re
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from aesearch import __version__
from aesearch.artifacts import model_file
from aesearch.driver.create import leave_study
from aesearch.models.training.corruptions import corrupt
from aesearch.seeds import derive_seed
from aesearch.studies.spec.resolved import resolve
from aesearch.studies.spec.series import load_series
from aesearch.studies.store import retrain_results, study_rows
from aesearch.studies.store.contents import read_contents
from aesearch.terminal.display import make_display
from aesearch.workers.worker import Worker
from reproduction import measures, recording
from reproduction import tables as reproduction_tables
from reproduction.evidence import Evidence, Evidences, NotMeasuredError
from reproduction.folder import other_settings, read_records, record_store
from reproduction.measures import NAMES, Values, measure
from reproduction.networks import measure_networks
from reproduction.page import figure, make_page
from reproduction.record import RecordError, read_record, record_text
from reproduction.recording import StoredStudy
from reproduction.reported import Measure, asked_of, load_reported
from reproduction.tables import NOT_MEASURED, NOT_RUN, claim_row, number_row
from reproduction.verdict import CLAIM_RULE, agreement, claim_verdict, outcome

REPORTS, OURS = load_reported()
ROOT = Path(__file__).resolve().parents[2]


def asked_measures():
    """Every measurement that reported.yaml asks for, with a name for the test."""
    for study, asked in asked_of(REPORTS).items():
        for measured in asked:
            what = measured.model_dump_json(exclude={"study", "of"}, exclude_defaults=True)
            yield pytest.param(measured, id=f"{study}: {measured.of} {what}")


def preset_specs():
    presets = [report.preset for report in REPORTS] + [OURS.dense, OURS.conv]
    specs = [spec for preset in presets for spec in load_series(preset=preset)]
    return {
        spec.name: resolve(spec, image_shape=(1, 28, 28), n_train=60_000, device="cpu")
        for spec in specs
    }


SPECS = preset_specs()


@pytest.mark.parametrize("asked", list(asked_measures()))
def test_what_is_asked_for_is_in_a_preset(asked):
    """Its study, its trial (one, or those of a choice) and its epoch are there when it is run."""
    assert asked.of in NAMES
    spec = SPECS[asked.study]
    if asked.trial:
        grid = spec.space.grid_configurations()
        fitting = [g for g in grid if all(g.get(k) == v for k, v in asked.trial.items())]
        assert len(fitting) > 1 if asked.of == "best_choice" else len(fitting) == 1
    of_retraining = asked.of in ("seed_train", "seed_validation", "gap", "fall_share")
    epochs = spec.retrain.max_epochs if of_retraining else spec.training.epochs
    assert 1 <= (asked.epoch or 1) <= epochs
    if asked.parameter is not None:
        assert asked.parameter in spec.space.dimensions()


def test_every_report_has_its_preset_and_every_preset_its_report():
    """Each preset's description names the file."""
    assert len(REPORTS) == 5
    for report in REPORTS:
        assert all(report.file in spec.description for spec in load_series(preset=report.preset))


def test_every_dimension_of_ours_has_a_study():
    """A rival that competes at a dimension has one of ours there."""
    assert {f"{OURS.dense}-{dimension}" for dimension in OURS.dimensions} <= set(SPECS)
    rivals = {n.competes for r in REPORTS for g in r.groups for n in g.numbers}
    assert rivals - {None} <= set(OURS.dimensions)


def test_table_one_of_report_003_is_whole():
    """16 + 16 losses, and 8 choices."""
    groups = {g.title: g for r in REPORTS if r.file.startswith("003") for g in r.groups}
    losses = [n for title, g in groups.items() if title.startswith("Validation") for n in g.numbers]
    assert len(losses) == 32
    assert len(groups["Best latent dimension"].numbers) == 8


def of(*values, study="a"):
    return Values(np.array(values, dtype=float), "seeds", study)


@pytest.mark.parametrize(
    ("reported", "values", "metric", "exact", "verdict"),
    [
        ("0.020", of(0.0219), "mse", False, "agrees"),  # a tenth
        ("0.020", of(0.0221), "mse", False, "ours is worse"),
        ("0.020", of(0.0179), "mse", False, "ours is better"),
        ("0.02", of(0.0249), "mse", False, "agrees"),  # half of the last digit
        ("0.020", of(0.023, 0.027), "mse", False, "within our spread"),  # deviation 0.0028
        ("0.020", of(0.019, 0.022), "mse", False, "agrees"),
        ("0.020", of(0.0249, 0.0251), "mse", False, "ours is worse"),
        ("0.968", of(0.972), "binary_accuracy", False, "ours is better"),  # 0.028 of 0.032
        ("0.968", of(0.9705), "binary_accuracy", False, "agrees"),
        ("0.968", of(0.96), "binary_accuracy", False, "ours is worse"),
        ("17", of(17.4), "psnr", False, "agrees"),
        ("17.0", of(17.4), "psnr", False, "agrees"),  # 8.8% of the mean squared error
        ("17.0", of(17.6), "psnr", False, "ours is better"),
        ("17.0", of(16.4), "psnr", False, "ours is worse"),
        ("622504", of(622504), "mse", True, "the same"),
        ("622504", of(622505), "mse", True, "another"),
        ("0.00001", of(1e-5), "mse", True, "the same"),
        ("0.02", of(float("nan"), 0.02), "mse", False, "diverged"),
    ],
)
def test_a_number_agrees_by_the_written_rule(reported, values, metric, exact, verdict):
    """A tenth of the error or half of the last digit; two deviations are a word of their own."""
    assert agreement(reported, values, metric=metric, exact=exact) == verdict


def one(value):
    return Values(np.array([value]), "none")


def folds(*values, split="these"):
    return Values(np.array(values, dtype=float), "folds", "any", split)


@pytest.mark.parametrize(
    ("left", "relation", "right", "found"),
    [
        (one(1.0), "below", one(2.0), "holds"),
        (one(2.0), "below", one(1.0), "fails"),
        (one(2.0), "above", one(1.0), "holds"),
        (one(0.0), "above", one(0.0), "fails"),
        (one(0.0), "below", one(0.0), "fails"),
        (of(1.0, 1.1, 1.2), "below", of(2.0, 2.1, 2.2, study="b"), "holds"),
        (of(1.0, 2.0, 3.0), "below", of(2.0, 3.0, 4.0, study="b"), "open"),
        (of(1.0, 2.0, 3.0), "below", of(2.0, 3.1, 3.9), "holds"),  # the same networks
        (of(1.0, 1.0), "below", of(2.0, 2.0, study="b"), "holds"),
        (of(1.0, 1.0), "below", of(1.0, 1.0, study="b"), "fails"),
        (of(1.0, 2.0, 3.0), "below", of(2.0, 2.0, 2.0, study="b"), "open"),
        (of(1.0, 1.0), "below", of(2.0, 2.0 + 1e-12, study="b"), "holds"),
        (of(1.0, 2.0, 3.0), "below", one(9.0), "holds"),
        (of(1.0, 2.0, 3.0), "below", one(4.0), "open"),
        (folds(1.0, 2.0, 3.0), "below", folds(2.0, 3.1, 3.9), "holds"),
        # t = 4.6 of the plain test, 2.9 of the corrected one; 4.3 is needed.
        (folds(0.0, 0.0, 0.0), "below", folds(1.3, 0.6, 1.1), "open"),
        (of(0.0, 0.0, 0.0), "below", of(1.3, 0.6, 1.1), "holds"),
        # Folds of other images are not paired: Welch's test on deviations that are 1.6 times as
        # large, which turns its t of 4.9 (p = 0.008) into one of 3.1 (p = 0.036) and 2.5 (0.067).
        (folds(1.0, 2.0, 3.0), "below", folds(2.0, 3.1, 3.9, split="others"), "open"),
        (folds(1.0, 2.0, 3.0), "below", folds(5.0, 6.0, 7.0, split="others"), "holds"),
        (folds(1.0, 2.0, 3.0), "below", folds(4.2, 5.2, 6.2, split="others"), "open"),
        (of(1.0, 2.0, 3.0), "below", of(4.2, 5.2, 6.2, study="b"), "holds"),
        (of(1.0), "near", of(1.1), "holds"),
        (of(1.0), "near", of(1.2), "fails"),
        (of(0.5, 1.5), "near", of(0.9, 1.5, study="b"), "open"),
        (of(float("nan")), "near", of(1.0), "open"),
        (of(1.0), "below", of(float("nan")), "open"),
    ],
)
def test_a_comparison_holds_only_if_it_is_clear(left, relation, right, found):
    """By a t-test: paired for the same networks or folds, corrected for folds, else Welch's."""
    assert outcome(left, relation, right) == found


def test_accuracies_are_near_if_their_errors_are():
    """0.90 and 0.95 differ by half of the error, not by a twentieth."""
    assert "1 - a" in CLAIM_RULE, "it is said so"
    assert outcome(one(0.90), "near", one(0.95), metric="binary_accuracy") == "fails"
    assert outcome(one(0.950), "near", one(0.953), metric="binary_accuracy") == "holds"


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        (["holds", "holds"], "yes"),
        (["fails"], "no"),
        (["open", "open"], "open"),
        (["holds", "fails", "open"], "partly: 1 of 3 hold, 1 open"),
        (["holds", "fails"], "partly: 1 of 2 hold"),
        (["holds", "open"], "partly: 1 of 2 hold, 1 open"),
        (["fails", "open"], "no: 0 of 2 hold, 1 open"),
    ],
)
def test_a_claim_is_the_sum_of_its_comparisons(outcomes, verdict):
    assert claim_verdict(outcomes) == verdict


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (of(0.01779, 0.01781), "0.017800 ± 1.4e-05 (2)"),
        (of(0.0178, 0.0182), "0.01800 ± 0.00028 (2)"),
        (of(12.0, 14.0), "13.0 ± 1.4 (2)"),
        (of(4.0, 4.0), "4 ± 0 (2)"),
        (of(622504), "622504"),
        (of(0.112233), "0.1122"),
        (of(float("nan")), "diverged"),
        (of(3.0e-9, 3.4e-9), "3.2e-09 ± 2.8e-10 (2)"),
    ],
)
def test_a_figure_shows_as_many_digits_as_its_deviation(values, text):
    assert figure(values) == text


def hand_made(train, validation=None):
    """Evidence with the retraining curves of one seed; a tenth of the loss is wrong pixels."""
    validation = train if validation is None else validation
    accuracy = 1 - np.array(validation, dtype=float) / 10
    training = SimpleNamespace(
        schedule="plateau", learning_rate=0.1, gamma=0.95, factor=0.5, patience=2
    )
    return SimpleNamespace(
        name="hand-made",
        split="",
        is_quick=False,
        seed_curves=np.array([[train], [validation], [accuracy]], dtype=float),
        spec=SimpleNamespace(training=training),
        position=lambda asked, n: n - 1 if asked.epoch is None else asked.epoch - 1,
    )


@pytest.mark.parametrize(
    ("what", "epoch", "train", "validation", "value"),
    [
        ("seed_train", 2, [3, 2, 1], None, 2),
        ("seed_validation", None, [3, 2, 1], [6, 5, 4], 4),
        ("seed_accuracy", 2, [3, 2, 1], [6, 5, 4], 0.5),
        ("gap", None, [3, 2, 1], [6, 5, 4], 4),
        ("fall_share", 2, [5, 2, 1], None, 0.75),
        ("fall_epoch", None, [101, 10, 5, 1], None, 3),
        ("reach_epoch", None, [0, 0, 0, 0], [9, 3, 2, 1], 3),
        ("climb", None, [9, 1, 2, 3, 2, 2], None, 1.0),
        ("climb", 3, [9, 1, 2, 3, 2, 2], None, 0.5),
        ("climb", None, [9, 9, 9, 2, 2, 2], None, 0.0),
        ("plateaus", None, [1] * 12, None, 3),
        ("plateaus", None, list(range(12, 0, -1)), None, 0),
    ],
)
def test_a_curve_is_measured_as_it_says(what, epoch, train, validation, value):
    """Against figures worked out by hand."""
    asked = Measure(of=what, study="", epoch=epoch, bound=2.5)
    found = measure(hand_made(train, validation), asked)
    assert found.values.tolist() == pytest.approx([value])


@pytest.mark.parametrize("what", ["fall_epoch", "fall_share", "reach_epoch", "plateaus"])
def test_curves_that_end_before_others_are_not_measured(what):
    """A seed that diverged has no last epoch: no figure is better than a wrong one."""
    nan = float("nan")
    evidence = hand_made([3, 2, 1, nan], [3, 2, 1, nan])
    with pytest.raises(NotMeasuredError):
        measure(evidence, Measure(of=what, study="", epoch=2, bound=9))


PRESET = "dense-bottleneck"


def run_quickly(engine, storage, preset, *, dataset="digits"):
    """Run the small version of a preset, on fewer images yet, in this process; its studies."""
    flags = {"data.dataset": dataset, "data.limit": 130}  # more than codes have dimensions
    specs = load_series(preset=preset, quick=True, flags=flags)
    for spec in specs:
        with make_display(quiet=True) as display:
            leave_study(spec, storage=storage, display=display)
        Worker(engine, spec.name, stop=threading.Event()).run()
    torch.set_flush_denormal(False)  # a worker turns it on for its whole process
    return [spec.name for spec in specs]


@pytest.fixture(scope="module")
def quick_store(tmp_path_factory):
    """A store with the small version of report 000: engine and path."""
    storage = str(tmp_path_factory.mktemp("reproduction") / "store.db")
    engine = study_rows.open_store(storage)
    run_quickly(engine, storage, PRESET)
    yield engine, storage
    engine.dispose()


@pytest.fixture
def stored(quick_store):
    """The study of the smallest code, as its store has it."""
    return StoredStudy(quick_store[0], "dense-bottleneck-4-quick", None)


@pytest.fixture
def evidence(stored):
    """The same, as its record has it."""
    record, _ = stored.record((), ())
    return Evidence(record)


def recorded(engine, folder, *, quick=True):
    """Record a store and read the records again: what the page is made of."""
    record_store(engine, folder, REPORTS, OURS, data_dir=None, quick=quick, message=lambda _: None)
    records = read_records(folder, REPORTS, OURS, quick=quick, message=lambda _: None)
    return Evidences(records, quick=quick)


@pytest.fixture(scope="module")
def evidences(quick_store, tmp_path_factory):
    """What was recorded of the store."""
    return recorded(quick_store[0], tmp_path_factory.mktemp("reports"))


def test_clean_images_give_the_stored_test_errors(stored):
    """One value per seed, as the retraining wrote them; looked at again, they are the same."""
    clean = measure_networks(stored, Measure(of="test", study=""))
    again = [
        float(np.mean((reconstructed(model, stored) - images(stored)) ** 2))
        for model in stored.models
    ]
    np.testing.assert_allclose(clean, again, rtol=1e-5)


def test_overfitting_is_measured_without_dropout(stored):
    """One error over another, each of a network that drops nothing; held-out images are in none."""
    found = measure_networks(stored, Measure(of="test_gap", study=""))
    train, held_out = stored.problem.holdout_indices()
    assert len(train) + len(held_out) == len(stored.problem.images)
    pixels = stored.problem.images[train].astype(np.float32) / 255
    for gap, model, test_mse in zip(found, stored.models, stored.test_mse, strict=True):
        errors = (reconstructed(model, stored, torch.from_numpy(pixels)) - pixels) ** 2
        assert gap == pytest.approx(test_mse / errors.mean(), rel=1e-5)


def images(stored):
    return stored.problem.test_images.astype(np.float32) / 255


def reconstructed(model, stored, inputs=None):
    inputs = torch.from_numpy(images(stored)) if inputs is None else inputs
    with torch.inference_mode():
        return model(inputs).numpy()


@pytest.mark.parametrize("clamped", [True, False])
def test_noise_of_the_evaluation_gives_its_figures(stored, clamped):
    """The exported seed's error is the one that the store's document has."""
    document = stored.evaluation
    (row,) = (
        row
        for row in document.robustness
        if row.corruption == "gaussian" and row.clamped is clamped
    )
    asked = Measure(of="test", study="", corruption="gaussian", level=row.level, clamp=clamped)
    found = measure_networks(stored, asked)
    assert found[document.seed_index] == pytest.approx(row.mse)
    inputs = asked.model_copy(update={"of": "input"})
    assert measure_networks(stored, inputs) == pytest.approx([row.input_mse])


def test_a_square_may_hang_off_the_border(stored):
    """As report 001 has it; the same draws, another square."""
    inside, off = (
        Measure(of="input", study="", corruption="occlusion", level=0.5, overhang=overhang)
        for overhang in (False, True)
    )
    clean = torch.from_numpy(images(stored))
    seed = derive_seed(stored.spec.seed, "robustness", 3)
    hidden = corrupt(clean, "occlusion", 0.5, seed, overhang=True)
    expected = float((hidden - clean).square().mean())
    assert measure_networks(stored, off) == pytest.approx([expected])
    assert measure_networks(stored, inside)[0] > expected


def test_binary_accuracy_is_the_share_of_equal_roundings(stored):
    """Of each seed, over all pixels."""
    asked = Measure(of="test", study="", metric="binary_accuracy")
    clean = images(stored).round()
    shares = [(reconstructed(m, stored).round() == clean).mean() for m in stored.models]
    np.testing.assert_allclose(measure_networks(stored, asked), shares)


def test_an_accuracy_is_reached_from_below():
    """First epoch above the bound; the loss does not matter."""
    evidence = hand_made([0, 0, 0, 0], [9, 3, 2, 1])  # accuracies 0.1, 0.7, 0.8, 0.9
    evidence.seed_curves[1] = [[9, 9, 9, 1]]
    asked = Measure(of="reach_epoch", study="", metric="binary_accuracy", bound=0.75)
    assert measure(evidence, asked).values.tolist() == [3]


def test_what_is_never_reached_is_not_measured():
    with pytest.raises(NotMeasuredError, match=r"mse must reach 0\.5 .* got a seed that does not"):
        measure(hand_made([3, 2, 1]), Measure(of="reach_epoch", study="", bound=0.5))


def test_accuracies_of_the_retraining_are_those_of_its_networks(quick_store, stored, evidence):
    """At the epoch whose weights were kept, on the images that were held out."""
    engine, _ = quick_store
    rows = retrain_results.retrained(engine, study_rows.find_study(engine, evidence.name))
    _, held_out = stored.problem.holdout_indices()
    clean = torch.from_numpy(stored.problem.images)[held_out] / 255
    for seed, (row, model) in enumerate(zip(rows, stored.models, strict=True)):
        asked = Measure(of="seed_accuracy", study="", epoch=row.best_epoch)
        with torch.inference_mode():
            share = (model(clean).round() == clean.round()).double().mean().item()
        assert measure(evidence, asked).values[seed] == pytest.approx(share)


def test_fold_losses_are_those_of_the_curves(quick_store, evidence):
    """Of the trial that is asked for, at its epoch; PSNR is that of the mean error."""
    engine, _ = quick_store
    rows = study_rows.curves(engine, study_rows.find_study(engine, evidence.name))
    third = [validation for number, _, epoch, _, validation in rows if (number, epoch) == (0, 3)]
    asked = Measure(of="cv_validation", study="", trial={"encoding_dim": 4}, epoch=3)
    assert measure(evidence, asked).values.tolist() == third
    asked = asked.model_copy(update={"metric": "psnr"})
    np.testing.assert_allclose(measure(evidence, asked).values, 10 * np.log10(1 / np.array(third)))


def test_a_trial_that_is_not_there_is_no_measurement(evidence):
    """Neither is one of several."""
    asked = Measure(of="cv_validation", study="", trial={"encoding_dim": 5})
    with pytest.raises(LookupError, match="trial must be one of study 'dense-bottleneck-4-quick'"):
        measure(evidence, asked)


def test_the_rest_is_read_from_the_store(quick_store, stored, evidence):
    """Parameters, the winner, the map, an image that is black everywhere."""
    engine, _ = quick_store
    (row, *_) = retrain_results.retrained(engine, study_rows.find_study(engine, stored.name))
    tensors = model_file.from_bytes(row.weights).state_dict().values()
    parameters = measure_networks(stored, Measure(of="parameters", study=""))
    assert parameters == [sum(t.numel() for t in tensors)]
    winner = measure(evidence, Measure(of="winner", study="", parameter="encoding_dim"))
    assert winner.values.tolist() == [4]
    black = measure_networks(stored, Measure(of="black", study=""))
    np.testing.assert_allclose(black, np.mean(images(stored) ** 2), rtol=1e-5)


def test_every_seed_has_a_latent_space(stored):
    """That of the exported seed is the evaluation's."""
    document = stored.evaluation
    found = measure_networks(stored, Measure(of="neighbour_accuracy", study=""))
    assert len(found) == len(stored.models) == 2
    assert found[document.seed_index] == pytest.approx(document.latent.knn_accuracy)
    maps = measure_networks(stored, Measure(of="map_silhouette", study=""))
    assert len(set(maps)) == 2
    assert all(-1 <= silhouette <= 1 for silhouette in maps)


def test_the_choice_is_that_of_the_lowest_loss(evidence, monkeypatch):
    """Over the trials that fit what is asked for."""
    losses = {4: 3.0, 8: 1.0, 16: 2.0}
    trials = [SimpleNamespace(params={"encoding_dim": dim}) for dim in losses]
    stub = SimpleNamespace(trials=lambda _params: trials)
    monkeypatch.setattr(
        measures,
        "_of_folds",
        lambda _index: lambda _e, asked: np.array([losses[asked.trial["encoding_dim"]]]),
    )
    asked = Measure(of="best_choice", study="", parameter="encoding_dim")
    assert measures._best_choice(stub, asked) == 8
    losses[4] = losses[8] = float("nan")
    assert measures._best_choice(stub, asked) == 16


@pytest.mark.parametrize(
    ("theirs", "verdict"),
    [
        ([1.1, 1.0, 1.2], "not told apart"),
        ([2.1, 2.0, 2.2], "another"),
        (None, "another"),  # a choice that we did not try
    ],
)
def test_another_choice_may_be_a_near_tie(monkeypatch, theirs, verdict):
    """Where the folds do not tell the reported choice from ours."""

    def measured(_evidence, asked):
        if asked.of == "best_choice":
            return one(8.0)
        if asked.trial["encoding_dim"] == 8 and asked.trial["hidden"] == "24":
            return folds(1.0, 1.1, 1.05)
        if theirs is None:
            raise NotMeasuredError("none")
        return folds(*theirs)

    monkeypatch.setattr(reproduction_tables, "measure", measured)
    monkeypatch.setattr(reproduction_tables, "_present", lambda *_: SimpleNamespace())
    asked = Measure(of="best_choice", study="", parameter="encoding_dim", trial={"hidden": "24"})
    number = SimpleNamespace(reported="4", measure=asked, instead={})
    assert reproduction_tables.number_row(None, number).found.verdict == verdict


def test_a_record_says_what_the_store_says(stored, tmp_path):
    """Every measurement that was asked for, every curve, after it was written and read."""
    asked = [
        Measure(of="test", study="x", corruption="gaussian", level=0.3),
        Measure(of="black", study="x"),
        Measure(of="parameters", study="x"),
    ]
    record, pictures = stored.record(asked, ["curves", "interpolation", "nothing"])
    path = tmp_path / "record.json"
    path.write_text(record_text(record))
    again = read_record(path)
    assert again == record
    assert record_text(again) == path.read_text()
    assert [each.name for each in pictures] == ["curves", "interpolation"]
    evidence = Evidence(again)
    for each in asked:
        assert measure(evidence, each).values.tolist() == measure_networks(stored, each)
    assert evidence.test_mse.tolist() == stored.test_mse.tolist()
    assert str(stored.problem.spec.data.data_dir) not in path.read_text()


def test_what_was_not_asked_for_is_not_measured(stored, evidence):
    """A record made before a claim was added does not answer it; its study was run all the same."""
    asked = Measure(of="black", study="dense-bottleneck-4")
    with pytest.raises(NotMeasuredError, match="write it anew from a store"):
        measure(evidence, asked)
    evidences = Evidences([evidence.record], quick=True)
    number = replace(REPORTS[2].groups[0].numbers[0], measure=asked)
    assert number_row(evidences, number).found.verdict == NOT_MEASURED


def test_a_curve_that_ends_is_no_number_after_its_end(stored, tmp_path):
    """NaN is null in the file and NaN again; the shorter seed is padded."""
    record, _ = stored.record((), ())
    first, second = record.seeds
    shorter = second.model_copy(update={"train": (*second.train[:2], None)})
    path = tmp_path / "record.json"
    path.write_text(record_text(record.model_copy(update={"seeds": (first, shorter)})))
    curves = Evidence(read_record(path)).seed_curves
    assert curves.shape == (3, 2, 5)
    np.testing.assert_array_equal(np.isnan(curves[0]), [[False] * 5, [False, False, *[True] * 3]])


@pytest.mark.parametrize("text", ["", "{}", '{"study": 3}', "[1, 2"])
def test_a_file_that_is_no_record_is_named(text, tmp_path):
    """With the remedy."""
    path = tmp_path / "dense-bottleneck-4.json"
    path.write_text(text)
    with pytest.raises(
        RecordError, match=r"dense-bottleneck-4\.json must be the record .*; remove"
    ):
        read_records(tmp_path, REPORTS, OURS, quick=False, message=lambda _: None)


@pytest.mark.parametrize(
    ("change", "differences"),
    [
        ({"training": {"batch_size": 7}}, ["training.batch_size: 7 -> 2048"]),
        ({"retrain": {"seeds": 2}}, ["retrain.seeds: 2 -> 5"]),
        ({"compute": {"threads": 3}}, []),  # left to auto
        ({"evaluation": {"bootstrap": 77}}, []),
        ({"data": {"data_dir": "elsewhere"}}, []),
    ],
)
def test_a_study_of_other_settings_is_none_of_its_preset(change, differences):
    """Neither taken from a store nor from a record, and said to be so."""
    (preset, *_) = load_series(preset="dense-bottleneck")
    made = resolve(preset, image_shape=(1, 28, 28), n_train=60_000, device="cpu")
    for section, values in change.items():
        changed = getattr(made, section).model_copy(update=values)
        made = made.model_copy(update={section: changed})
    found = other_settings(preset, made, image_shape=[1, 28, 28], n_images=60_000)
    assert found == differences


def test_records_of_other_settings_are_left_out(quick_store, tmp_path):
    """The page says that the study was not run; the file stays."""
    recorded(quick_store[0], tmp_path)
    path = tmp_path / "dense-bottleneck-8-quick.json"
    record = read_record(path)
    spec = record.spec | {"training": record.spec["training"] | {"epochs": 4}}
    path.write_text(record_text(record.model_copy(update={"spec": spec})))
    said = []
    read = read_records(tmp_path, REPORTS, OURS, quick=True, message=said.append)
    assert [each.study for each in read] == [f"dense-bottleneck-{size}-quick" for size in (4, 16)]
    assert said == [f"{path} is of other settings than its preset: training.epochs: 4 -> 5"]
    assert path.exists()


def curves_of(engine, name):
    return read_contents(engine, name, curves=True)


def test_a_picture_that_is_missing_costs_no_page(quick_store, tmp_path, monkeypatch):
    """A study whose evaluation failed has no pictures; its curves are drawn all the same."""
    monkeypatch.setattr(recording, "read_contents", lambda *which, **_: curves_of(*which))
    page = make_page(recorded(quick_store[0], tmp_path), "reports")
    written = {path.name.rpartition("-")[2] for path in tmp_path.glob("*.png")}
    assert written == {"curves.png"}
    assert set(re.findall(r"\(reports/.*-(.*)\.png\)", page)) == {"curves"}


def test_claims_of_a_study_that_was_run_are_judged(evidences):
    """Those of another report are not."""
    claims = (*REPORTS[0].claims, *REPORTS[0].questions)
    verdicts = {claim_row(evidences, claim).verdict for claim in claims}
    assert not verdicts & {NOT_RUN, NOT_MEASURED}
    assert {claim_row(evidences, claim).verdict for claim in REPORTS[1].claims} == {NOT_RUN}
    number = REPORTS[2].groups[0].numbers[0]
    assert number_row(evidences, number).found.verdict == NOT_RUN


def test_a_black_image_is_neither_better_nor_worse_than_ours(stored):
    """It is no network: beside a figure it agrees or it does not."""
    study = "dense-bottleneck-4"
    black = Measure(of="black", study=study)
    record, _ = stored.record([black], ())
    evidences = Evidences([record], quick=True)
    its_error = f"{measure(evidences.of(study), black).mean:.9f}"
    number = replace(
        REPORTS[2].groups[1].numbers[0],
        measure=Measure(of="seed_train", study=study),
        instead={"black": black},
    )
    row = number_row(evidences, replace(number, reported="9.9"))
    assert row.found.verdict == "ours is better"
    assert row.instead["black"].verdict == "does not agree"
    row = number_row(evidences, replace(number, reported=its_error))
    assert row.instead["black"].verdict == "agrees"


def test_the_page_says_what_is_missing(evidences):
    """One page of figures, verdicts, and what was not run."""
    page = make_page(evidences, "reports")
    assert page.count("## Report 00") == 5
    assert f"Trained with aesearch {__version__}, torch {torch.__version__.split('+')[0]}" in page
    assert "; cpu, float32." in page
    row = next(line for line in page.splitlines() if line.startswith("| `dense-bottleneck-16` |"))
    assert "±" in row
    assert "not run" not in row
    assert "| `conv-grid-4` | not run |" in page
    assert "nan" not in page
    assert "these figures mean nothing" in page


def test_small_versions_are_not_taken_for_the_whole(quick_store, tmp_path):
    """Without --quick the store has nothing."""
    evidences = recorded(quick_store[0], tmp_path, quick=False)
    verdicts = {claim_row(evidences, claim).verdict for claim in REPORTS[0].claims}
    assert verdicts == {NOT_RUN}


def command(*arguments):
    """Run ``python benchmarks/reproduction``."""
    import typer

    from reproduction.__main__ import reproduction

    app = typer.Typer()
    app.command()(reproduction)
    done = CliRunner().invoke(app, list(map(str, arguments)))
    torch.set_flush_denormal(False)  # it computes as a worker does
    return done


def test_the_command_writes_the_page(quick_store, tmp_path, monkeypatch):
    """From a store; without it the same page again, from what it recorded."""
    out = tmp_path / "docs" / "reports.md"
    done = command("--quick", "--storage", quick_store[1], "--out", out)
    assert done.exit_code == 0, done.stderr
    text = out.read_text()
    assert text.startswith("# The five reports, reproduced")
    shown = re.findall(r"!\[.*\]\((.*)\)", text)
    assert "reports/dense-bottleneck-16-quick-curves.png" in shown
    assert len(shown) == len(REPORTS[0].shown)
    for name in shown:
        with Image.open(out.parent / name) as picture:
            picture.load()
    out.unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AESEARCH_STORAGE", raising=False)
    done = command("--quick", "--out", out)
    assert done.exit_code == 0, done.stderr
    assert out.read_text() == text
    done = command("--quick", "--out", out, "--storage", "absent.db")
    assert done.exit_code == 2
    assert "absent.db" in done.stderr


def test_the_committed_page_is_that_of_the_committed_records():
    """Nothing in docs/reports.md is typed in by hand, and no record is of another preset."""
    said = []
    folder = ROOT / "docs" / "reports"
    records = read_records(folder, REPORTS, OURS, quick=False, message=said.append)
    assert not said
    assert records
    page = make_page(Evidences(records, quick=False), "reports")
    assert (ROOT / "docs" / "reports.md").read_text() == page
    assert not re.findall(rf"[|*] ?{NOT_MEASURED}", page)
    shown = re.findall(r"!\[.*\]\((reports/.*)\)", page)
    files = {f"reports/{path.name}" for path in folder.glob("*.png")}
    assert files == set(shown)
    assert {path.stem for path in folder.glob("*.json")} == {record.study for record in records}


def test_seeds_that_lie_far_apart_are_listed():
    """A mean and its deviation hide that one of three trainings went well."""
    records = read_records(
        ROOT / "docs" / "reports", REPORTS, OURS, quick=False, message=lambda _: None
    )
    page = (ROOT / "docs" / "reports.md").read_text()
    apart = 0
    for record in records:
        losses = sorted(seed.test_mse for seed in record.seeds)
        listed = ", ".join(f"{loss:.4f}" for loss in losses)
        assert (f"({len(losses)}): {listed} |" in page) is (losses[-1] >= 1.3 * losses[0])
        apart += losses[-1] >= 1.3 * losses[0]
    assert 0 < apart < len(records)


@pytest.mark.parametrize("preset", [report.preset for report in REPORTS if report.preset != PRESET])
def test_the_small_version_of_every_report_fills_its_page(preset, tmp_path):
    """Everything that the report says is measured; nothing is left out."""
    storage = str(tmp_path / "store.db")
    engine = study_rows.open_store(storage)
    run_quickly(engine, storage, preset)
    evidences = recorded(engine, tmp_path / "reports")
    (report,) = (report for report in REPORTS if report.preset == preset)
    rows = [number_row(evidences, number) for g in report.groups for number in g.numbers]
    verdicts = [row.found.verdict for row in rows]
    verdicts += [found.verdict for row in rows for found in row.instead.values()]
    claims = (*report.claims, *report.questions)
    verdicts += [claim_row(evidences, claim).verdict for claim in claims]
    engine.dispose()
    assert len(verdicts) > 2
    assert not {NOT_RUN, NOT_MEASURED} & set(verdicts)


def test_the_small_version_of_ours_is_held_against_the_reports(tmp_path):
    """At each size that has a convolutional network: both, and the components."""
    storage = str(tmp_path / "store.db")
    engine = study_rows.open_store(storage)
    run_quickly(engine, storage, OURS.conv)
    text = make_page(recorded(engine, tmp_path / "reports"), "reports")
    engine.dispose()
    row = next(line for line in text.splitlines() if line.startswith("| 32 |"))
    assert row.count("±") == 2
    assert row.startswith("| 32 | not run |  |"), "the dense one"
    assert row.count("beaten") == 1
    assert ("not beaten" in row) == ("not beaten so far" in row), "the dense one may do it"
    assert next(line for line in text.splitlines() if line.startswith("| 50 | not run |  |  |"))
