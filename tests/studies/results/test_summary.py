"""The summary says what a study found, what is missing, and nothing that JSON cannot hold."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from finished_study import FINISHED, FIXED, resolved_spec, trial
from report_study import report_arguments

from aesearch.studies.results.evaluation import Corrupted, Evaluation
from aesearch.studies.results.records import LeaseRecord, RetrainRecord, StudySnapshot, TrialRecord
from aesearch.studies.results.selection import indistinguishable
from aesearch.studies.results.summary import Denoising, NearTie, summary
from aesearch.studies.results.summary_text import summary_text
from aesearch.studies.results.text import one_line, value_text

DOCUMENTS = Path(__file__).parents[2] / "documents"


@pytest.mark.parametrize(
    ("value", "standard_error", "text"),
    [
        (0.0123449, 0.000121, "0.01234 ± 0.00012"),
        (0.0119, None, "0.0119"),
        (0.5, 0.0, "0.5 ± 0"),
        (12.0, 25.0, "12 ± 25"),
        (None, None, "no value"),
        (math.inf, 0.1, "inf"),
        (0.5, 1e-15, "0.5 ± 1e-15"),
        (3.2e-9, 4e-10, "3.2e-09 ± 4e-10"),
    ],
)
def test_value_is_written_to_the_digits_of_its_standard_error(value, standard_error, text):
    assert value_text(value, standard_error) == text


def test_summary_holds_the_figures_of_the_study():
    found = summary(FINISHED).to_dict()
    assert found["trials"] == {
        "waiting": 0,
        "running": 0,
        "complete": 4,
        "pruned": 1,
        "failed": 1,
    }
    assert found["finished"] is True
    assert found["selection"] == "one-se"
    assert found["image_shape"] == [1, 8, 8]
    assert found["winner"] == {
        "number": 0,
        "params": {"encoding_dim": 32, "learning_rate": 0.00123456},
        "architecture": "dense",
        "value": pytest.approx(0.037 / 3),
        "standard_error": 0.00012,
        "fold_scores": [0.012, 0.012, 0.013],
    }
    assert found["best"]["number"] == 5
    assert found["unstable"] == [{"number": 2, "reason": "the loss of fold 0 ends at 0.2"}]
    assert found["failed"] == [{"number": 3, "reason": "loss nan\nat epoch 3"}]
    assert [seed["seed"] for seed in found["retrain"]["seeds"]] == [77, 78]
    assert found["retrain"]["test_mse"] == {
        "mean": pytest.approx(0.012),
        "sd": pytest.approx(0.001 * math.sqrt(2.0)),
        "n_seeds": 2,
    }


NOISY = ("training.corruption=gaussian", "training.validation_corruption_level=0.5")


def by_size():
    """Two sizes that completed, one of which no trial may be chosen, and what PCA reaches."""
    small = {"params": {"encoding_dim": 4}}
    trials = (
        *FINISHED.trials,
        trial(6, 0.021, 0.020, 0.022, **small),
        trial(7, 0.031, 0.030, 0.032, **small),
        TrialRecord(8, "pruned", value=0.05, params={"encoding_dim": 8}),
    )
    pca = [{"encoding_dim": 4, "mse": 0.042}, {"encoding_dim": 8, "mse": 0.03}]
    return replace(FINISHED, trials=trials, facts=FINISHED.facts | {"pca": pca})


def test_the_best_of_each_size_stands_beside_pca():
    """Also a size of which nothing may be chosen; nothing is said of one size alone."""
    found = summary(by_size())
    rows = {row.encoding_dim: row for row in found.sizes}
    assert {size: row.n_trials for size, row in rows.items()} == {4: 2, 8: 1, 32: 4}
    assert rows[4].best.number == 6
    assert rows[8].best is None
    assert (rows[4].pca, rows[32].pca) == (0.042, None)
    lines = summary_text(found).splitlines()
    start = lines.index("Best of each code size, mean ± standard error over the folds:")
    assert lines[start + 1 : start + 5] == [
        "   4: 0.02100 ± 0.00012, PCA 0.042 (50% lower), trial 6 (2 tried)",
        "   8: none of 1 trial may be chosen",
        "  32: 0.01100 ± 0.00012, trial 5 (4 tried)",
        "  another size than the winner's: aesearch train pens --encoding-dim <size>",
    ]
    assert summary(FINISHED).sizes == []
    denoises = replace(by_size(), spec=resolved_spec(*FIXED, *NOISY))
    assert {row.pca for row in summary(denoises).sizes} == {None}


def test_score_and_test_number_stand_side_by_side():
    """Not of a study that denoises: its validation images are corrupted, the test's are not."""
    found = summary(FINISHED)
    assert found.retrain.score_over_test == pytest.approx(0.037 / 3 / 0.012)
    denoises = replace(FINISHED, spec=resolved_spec(*FIXED, *NOISY))
    assert summary(denoises).retrain.score_over_test is None


def test_near_ties_of_the_summary_are_those_of_the_test_with_the_folds_sizes():
    expected = indistinguishable(FINISHED.trials, FINISHED.trials[1], n_train=958, n_validation=479)
    ties = summary(FINISHED).indistinguishable
    assert ties.trials == [NearTie(other.number, other.value, p) for other, p in expected]
    assert (ties.alpha, ties.n_compared) == (0.05, 2)


def test_summary_is_strict_json_even_of_numbers_that_are_not():
    odd = replace(
        FINISHED,
        trials=(
            *FINISHED.trials,
            trial(6, math.inf, 0.1, 0.2, params={"learning_rate": math.nan}),
        ),
        retrains=(RetrainRecord(0, 77, 60, 41, math.nan, "abc", math.inf),),
        chosen=6,
    )
    found = json.loads(json.dumps(summary(odd).to_dict(), allow_nan=False))
    assert found["winner"]["value"] is None
    assert found["winner"]["params"] == {"learning_rate": None}
    assert found["retrain"]["test_mse"] is None


def test_text_of_a_finished_study():
    assert (
        summary_text(summary(FINISHED))
        == """\
Study pens on digits (1 x 8 x 8 images): 6 of 6 trials finished (4 complete, 1 pruned, 1 failed)
Winner: trial 0 — dense, encoding_dim 32, learning_rate 0.001235
  0.01233 ± 0.00012 (mean ± standard error over 3 folds, fold effects out; validation MSE per pixel)
  per fold: 0.012, 0.012, 0.013
  chosen by one-se although trial 5 has the lowest mean, 0.01100 ± 0.00012
2 other trials cannot be told apart from it (corrected resampled t-test, p >= 0.05): 5, 1
1 trial was unstable and set aside:
  trial 2: the loss of fold 0 ends at 0.2
1 trial failed:
  trial 3: loss nan at epoch 3
Retrained with 2 seeds:
  seed 0: best epoch 41 of 60, validation MSE 0.011, test MSE 0.011
  seed 1: best epoch 50 of 70, validation MSE 0.0111, test MSE 0.013
Test MSE per pixel: 0.0120 ± 0.0014 (mean ± standard deviation over 2 seeds)
  the mean over the folds is 1.03 times that: a fold's network trains for a fixed number of \
epochs, on the other folds only
The model was not evaluated further: 'aesearch evaluate' does it, or says why not."""
    )


def test_a_denoising_study_says_of_which_images_its_losses_are():
    """Trials are compared on corrupted inputs; the test number is that of clean images."""
    found = summary(replace(FINISHED, spec=resolved_spec(*FIXED, *NOISY)))
    assert found.denoising == Denoising("gaussian", 0.5)
    text = summary_text(found)
    assert "; validation MSE per pixel; inputs corrupted by gaussian 0.5, targets clean)" in text
    assert "Test MSE per pixel of clean images: 0.0120 ± 0.0014" in text
    assert summary(FINISHED).denoising is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((), True),
        (("corruption_clamp=false",), False),
        (("validation_corruption_level=0.25",), False),
        (("corruption=uniform",), False),
        (("corruption=none",), False),
        # Nothing of these kinds lies outside [0, 1]: there is no cutting off to compare.
        (("corruption=occlusion", "corruption_clamp=false"), True),
    ],
)
def test_a_denoiser_says_what_it_makes_of_its_own_noise(changes, told):
    """The row of the robustness that it was trained for, and no other."""
    row = Corrupted(
        "gaussian", 0.5, clamped=True, mse=0.0187, psnr=17.28, input_mse=0.1157, input_psnr=9.37
    )
    rows = [replace(row, level=0.1), row, replace(row, corruption="occlusion")]
    evaluation = replace(report_arguments()["evaluation"], robustness=rows)
    spec = resolved_spec(*FIXED, *NOISY, *(f"training.{change}" for change in changes))
    text = summary_text(summary(replace(FINISHED, spec=spec), evaluation))
    kind = spec.training.corruption
    line = (
        f"of images corrupted by {kind} 0.5 (MSE 0.1157, PSNR 9.37 dB) it makes: "
        "MSE 0.01870, PSNR 17.28 dB"
    )
    assert (line in text) is told
    assert (f"corrupted by {kind} 0.5 (MSE" in text) is told


def test_text_says_that_a_clear_winner_is_clear():
    clear = replace(
        FINISHED,
        trials=(trial(0, 0.010, 0.011, 0.012), trial(1, 0.050, 0.0511, 0.052)),
        n_trials=2,
    )
    assert (
        "Every other eligible trial can be told apart from it "
        "(corrected resampled t-test, p < 0.05)." in summary_text(summary(clear)).splitlines()
    )


def test_text_of_a_lone_winner_says_that_nothing_is_left_to_compare():
    alone = replace(FINISHED, trials=(trial(0, 0.010, 0.011, 0.012),), n_trials=1)
    lines = summary_text(summary(alone)).splitlines()
    assert lines[4] == "There is no other eligible trial to compare it with."


def test_text_of_a_running_search_gives_the_best_so_far_and_chooses_nothing():
    running = replace(
        FINISHED,
        trials=(trial(0, 0.010, 0.011, 0.012), TrialRecord(1, "running")),
        retrains=(),
        chosen=None,
    )
    assert (
        summary_text(summary(running))
        .splitlines()[0]
        .endswith("1 of 6 trials finished (4 waiting, 1 running, 1 complete)")
    )
    assert summary_text(summary(running)).splitlines()[1].startswith("Best so far: trial 0 — ")
    assert summary_text(summary(running)).splitlines()[-1] == (
        "Nothing is chosen yet: the search is not finished."
    )


def test_text_of_a_study_that_has_not_begun():
    waiting = StudySnapshot(
        "pens", FINISHED.spec, 2, (TrialRecord(0, "waiting"), TrialRecord(1, "waiting"))
    )
    assert summary_text(summary(waiting)).splitlines() == [
        "Study pens: 0 of 2 trials finished (2 waiting)",
        "No winner: no trial has completed and is stable: the search is not finished.",
    ]


def test_text_without_the_fold_sizes_says_that_nothing_was_tested():
    bare = replace(FINISHED, facts={})
    assert summary(bare).indistinguishable is None
    assert (
        "Whether other trials can be told apart from it was not tested."
        in summary_text(summary(bare)).splitlines()
    )


def test_text_before_the_retraining_says_so():
    lines = summary_text(summary(replace(FINISHED, retrains=()))).splitlines()
    assert lines[-1] == "It has not been retrained yet."


def test_text_during_the_retraining_says_that_more_is_under_way():
    first = replace(FINISHED.retrains[1], test_mse=None)
    during = replace(
        FINISHED, retrains=(first,), leases=(LeaseRecord("retrain", 0, done=False),), test_looks=0
    )
    lines = summary_text(summary(during)).splitlines()
    assert lines[-3:] == [
        "Retrained with 1 seed; more are under way:",
        "  seed 0: best epoch 41 of 60, validation MSE 0.011",
        "The test set has not been looked at yet.",
    ]


def retrained(max_epochs: int, patience: int, *seeds: tuple[int, int]) -> StudySnapshot:
    """Make a study whose seeds trained for so many epochs and were best at that one."""
    limits = (f"retrain.max_epochs={max_epochs}", f"retrain.patience={patience}")
    records = (
        RetrainRecord(index, 77 + index, epochs, best, 0.011, "abc", 0.012)
        for index, (epochs, best) in enumerate(seeds)
    )
    return replace(FINISHED, spec=resolved_spec(*FIXED, *limits), retrains=tuple(records))


@pytest.mark.parametrize(
    ("study", "said"),
    [
        (retrained(70, 20, (60, 40), (70, 51)), ("1 of 2 seeds", 70)),
        (retrained(70, 20, (70, 70), (70, 51)), ("2 of 2 seeds", 70)),
        (retrained(4, 2, (4, 4)), ("1 of 1 seed", 4)),
        (retrained(70, 20, (60, 40), (70, 50)), None),  # patience was over at the limit
        (retrained(200, 20, (60, 41), (70, 50)), None),
        (retrained(50, 50, (50, 50), (50, 12)), None),  # a fixed number of epochs was asked for
        (retrained(15, 20, (15, 15)), None),
    ],
)
def test_text_says_when_the_limit_of_epochs_cut_the_retraining_off(study, said):
    """After the seeds, only where patience was not over; with the setting that goes on."""
    lines = summary_text(summary(study)).splitlines()
    last = max(number for number, text in enumerate(lines) if text.startswith("  seed "))
    if said is None:
        assert "at the limit" not in "\n".join(lines)
        assert lines[last + 1].startswith("Test MSE")
    else:
        who, limit = said
        assert lines[last + 1] == (
            f"  {who} still got better at the limit of {limit} epochs; run again with "
            f"--set retrain.max_epochs={2 * limit} to train for longer"
        )


def test_text_sends_a_longer_training_to_another_study_where_it_decides_the_scores():
    """A study that is scored by its retraining would refuse another limit."""
    study = retrained(200, 20, (200, 195), (150, 141))
    spec = resolved_spec(*FIXED, "training.epochs=auto", "retrain.patience=20")
    text = summary_text(summary(replace(study, spec=spec)))
    assert "begin a new study with --set retrain.max_epochs=400 to train for longer" in text


def with_losses(*losses: float) -> StudySnapshot:
    """Make a study whose seeds ended at these validation losses."""
    records = (RetrainRecord(i, 77 + i, 60, 41, x, "abc", x) for i, x in enumerate(losses))
    return replace(FINISHED, retrains=tuple(records))


def test_seeds_that_lie_far_apart_are_said():
    """Of the losses that a training with a high learning rate left (docs/reports.md)."""
    study = with_losses(0.0669, 0.0432, 0.0259)
    found = summary(study)
    assert found.retrain.seeds_apart == pytest.approx(0.0669 / 0.0259)
    assert (
        "  the seeds lie far apart: the worst has 2.6 times the validation MSE of the best, so "
        "what this configuration reaches depends on the seed; run again with --set "
        "retrain.seeds=6 to see how often that happens"
    ) in summary_text(found).splitlines()


@pytest.mark.parametrize(
    "losses", [(0.01, 0.0129, 0.012), (0.01,), (0.0, 0.0), (0.01, math.inf), (0.01, math.nan)]
)
def test_seeds_that_lie_together_or_cannot_be_compared_are_not(losses):
    found = summary(with_losses(*losses))
    assert found.retrain.seeds_apart is None
    assert "far apart" not in summary_text(found)


def test_seeds_that_lie_far_apart_are_said_once_all_are_done():
    """The number of seeds to ask for is twice what there is then."""
    study = with_losses(0.01, 0.02)
    for done in (True, False):
        lease = LeaseRecord("retrain", 0, done=done)
        assert ("far apart" in summary_text(summary(replace(study, leases=(lease,))))) is done


def test_text_of_one_seed_claims_no_spread():
    alone = summary_text(summary(replace(FINISHED, retrains=FINISHED.retrains[:1])))
    assert alone.splitlines()[-3] == "Test MSE per pixel: 0.013 (1 seed)"


def test_text_says_when_the_test_set_was_looked_at_again():
    assert summary_text(summary(replace(FINISHED, test_looks=2))).splitlines()[-2] == (
        "The test set was looked at 2 times; only the first look is free of bias."
    )


def test_text_of_many_failures_stays_short():
    failed = tuple(TrialRecord(n, "failed", reason="out of memory") for n in range(8))
    lines = summary_text(summary(StudySnapshot("pens", FINISHED.spec, 8, failed))).splitlines()
    assert lines[1] == "No winner: no trial has completed and is stable."
    assert lines[2] == "8 trials failed:"
    assert lines[-1] == "  and trials 5, 6, 7"


def test_control_characters_are_shown_not_sent():
    assert one_line("a\x1b[31m\n  b\tc") == "a\\x1b[31m b\\tc"


def test_a_summary_prints_what_version_0_1_printed():
    """The same keys in the same order, the same values: written by the code of that version."""
    limits = ("training.epochs=auto", "retrain.max_epochs=70", "retrain.patience=25")
    space = "space.learning_rate={low: 1.0e-4, high: 0.00123456, log: true}"
    small = trial(6, 0.021, 0.020, 0.022, params={"encoding_dim": 4})
    pruned = TrialRecord(7, "pruned", value=0.05, params={"encoding_dim": 8})
    study = replace(
        by_size(),
        spec=resolved_spec(FIXED[0], *limits, space),
        trials=(*FINISHED.trials, small, pruned),
        n_trials=9,
    )
    found = summary(study, report_arguments()["evaluation"])
    text = json.dumps(found.to_dict(), allow_nan=False, indent=1) + "\n"
    assert text == (DOCUMENTS / "summary.json").read_text()
    assert found["winner"]["number"] == found.winner.number  # as in that version


def test_an_evaluation_of_version_0_1_is_read_and_written_as_it_was():
    """What the store and the run folder of that version hold, to the byte."""
    text = (DOCUMENTS / "evaluation.json").read_text()
    assert Evaluation.from_json(text).to_json(indent=1) + "\n" == text
