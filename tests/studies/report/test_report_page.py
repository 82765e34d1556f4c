"""The report says what a study holds, names what it lacks, and is deterministic."""

import json
import math
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pandas as pd
import pytest
from report_study import SPACE, report_arguments

from aesearch.studies.report.figures_dimension import dimension_rows
from aesearch.studies.report.importances import early_losses, shares
from aesearch.studies.report.look import clean, log_ticks, loss_axis, script_json
from aesearch.studies.report.page import report_page
from aesearch.studies.report.words import reproducing_commands
from aesearch.studies.report.words_evaluation import retrained
from aesearch.studies.results.records import StudySnapshot, TrialRecord
from aesearch.studies.results.summary import summary
from aesearch.studies.spec.load import load_spec
from aesearch.studies.spec.resolved import ResolvedSpec, resolve
from aesearch.studies.store import study_rows

FIGURES = {
    "history",
    "importances",
    "parallel",
    "dimensions",
    "folds",
    "retraining",
    "classes",
    "robustness",
    "latent",
}


def changed(spec: ResolvedSpec, *overrides: str) -> ResolvedSpec:
    """Change some settings of a study."""
    asked = load_spec(spec=spec, overrides=overrides)
    return resolve(asked, image_shape=(1, 8, 8), n_train=1438, device="cpu")


def drawn(html: str) -> dict:
    """Read the figures back out of the page, by name."""
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html)
    return {figure["name"]: figure for figure in json.loads(found[1])["figures"]}


def words(html: str) -> str:
    """Take the page without scripts, styles and tags, spaces made one."""
    text = re.sub(r"<(script|style).*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


def test_the_same_study_gives_the_same_bytes():
    """Nothing in the page depends on the time, on chance or on the order of a set."""
    assert report_page(**report_arguments()) == report_page(**report_arguments())


def test_a_finished_study_has_every_figure_and_number():
    """The winner, its error, the test and the baseline stand in the words; nothing is left out."""
    html = report_page(**report_arguments())
    figures = drawn(html)
    text = words(html)
    assert set(figures) == FIGURES
    assert 'class="absent"' not in html.replace("<noscript><p class=", "")
    for part in (
        "The winner is trial 23",
        "PCA, the best linear map through 32 numbers, reaches 0.02",
        "0.01060 ± 0.00071",
        "Only 31 of the 32 numbers of its code are in use",
        "Trial 3 : loss nan",
        "Trial 5 : the loss oscillates",
        "SSIM: too small",
        "aesearch run",
        "ten images pens",
    ):
        assert part in text, part


def test_every_figure_is_what_plotly_takes():
    """Plotly's own validation finds no property that it does not know."""
    from plotly import graph_objects

    figures = drawn(report_page(**report_arguments()))
    assert figures
    for figure in figures.values():
        layout = {k: v for k, v in figure["layout"].items() if k != "template"}
        graph_objects.Figure(data=figure["data"], layout=layout)


def test_fifty_trials_stay_below_six_megabytes():
    """The page can be sent by mail: most of it is plotly.js, embedded once."""
    html = report_page(**report_arguments(50))
    assert len(html.encode()) < 6_000_000
    assert html.count("* plotly.js v") == 1


def test_a_time_limit_that_cut_a_study_off_is_said():
    """Its command gives another number of trials elsewhere."""
    arguments = report_arguments()
    snapshot = arguments["snapshot"]
    limited = changed(snapshot.spec, "search.timeout=60")
    told = "Its time limit ended it before all trials were tried"
    assert told not in report_page(**arguments | {"snapshot": replace(snapshot, spec=limited)})
    cut = replace(snapshot, spec=limited, n_trials=snapshot.n_trials + 5)
    assert told in report_page(**arguments | {"snapshot": cut})


def test_the_page_asks_for_nothing():
    """No element names another place, and the policy forbids what a script might try."""
    html = report_page(**report_arguments())
    policy = unescape(re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', html)[1])
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "http" not in policy
    own = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert set(re.findall(r'(?:src|href)="([^"#][^:]*):', own)) == {"data"}


@pytest.mark.parametrize(
    ("limit", "epochs", "said", "unsaid"),
    [
        (
            ("retrain.max_epochs=12", "retrain.patience=4"),
            (12, 11),
            (
                "Retrained from 2 seeds, 1 of which still got better at the limit of 12 epochs, it "
                "reaches 0.01060 ± 0.00071 on the test set (mean ± standard deviation over the "
                "seeds). Run again with --set retrain.max_epochs=24 to train for longer."
            ),
            "stopped getting better",
        ),
        (
            ("retrain.max_epochs=12", "retrain.patience=4"),
            (12,),
            "Retrained from 1 seed, which still got better at the limit of 12 epochs, it reaches",
            "stopped getting better",
        ),
        (
            ("retrain.max_epochs=12", "retrain.patience=3"),
            (12, 12),
            "Retrained from 2 seeds until it stopped getting better, it reaches",
            "limit",
        ),
        (
            ("retrain.max_epochs=12", "retrain.patience=12"),
            (12, 12),
            "Retrained from 2 seeds for 12 epochs, it reaches",
            "limit",
        ),
    ],
    ids=["cut off", "one seed", "stopped", "fixed"],
)
def test_a_retraining_that_the_limit_cut_off_is_called_so(limit, epochs, said, unsaid):
    """Where patience was not over; a study of a fixed number of epochs names that number."""
    arguments = report_arguments()
    snapshot = arguments["snapshot"]
    retrains = tuple(
        replace(record, epochs=last)
        for record, last in zip(snapshot.retrains, epochs, strict=False)
    )
    spec = changed(snapshot.spec, *limit)
    found = summary(replace(snapshot, spec=spec, retrains=retrains))
    text = words(str(retrained(found, None)))
    assert said in text
    assert unsaid not in text


def test_one_pruned_trial_was_stopped_and_several_were():
    arguments = report_arguments()
    snapshot = arguments["snapshot"]
    assert "10 were pruned as hopeless" in words(report_page(**arguments))
    first = next(trial for trial in snapshot.trials if trial.state == "pruned")
    trials = tuple(t for t in snapshot.trials if t.state != "pruned" or t is first)
    page = report_page(**arguments | {"snapshot": replace(snapshot, trials=trials)})
    assert "1 was pruned as hopeless" in words(page)


@pytest.mark.parametrize(
    ("epochs", "said"),
    [
        (
            "auto",
            [
                "on one of 3 folds of the images first",
                "measured once, with the weights of the best epoch",
                "pruned 0.15 \N{EN DASH} 1 of 3 2 ",
                "last value, on one fold",
            ],
        ),
        (
            "20",
            [
                "each trained and judged on 3 folds of the images;",
                "Its score is the mean over epochs 18 to 20 (shaded)",
                "pruned 0.15 \N{EN DASH} 3 of 3 2 ",
                "last value, after fewer epochs",
            ],
        ),
    ],
)
def test_a_report_says_on_which_folds_a_trial_trained_and_what_its_score_is(epochs, said):
    arguments = report_arguments()
    spec = load_spec(overrides=[*SPACE, "search.trials=30", f"training.epochs={epochs}"])
    spec = resolve(spec, image_shape=(1, 8, 8), n_train=1438, device="cpu")
    trials = tuple(
        replace(trial, value=0.15) if trial.state == "pruned" else trial
        for trial in arguments["snapshot"].trials
    )
    snapshot = replace(arguments["snapshot"], spec=spec, trials=trials)
    text = words(report_page(**arguments | {"snapshot": snapshot}))
    assert [words for words in said if words not in text] == []


def test_pca_is_that_of_the_folds_where_it_is_known():
    """As the trials' scores are; of the test set only where the store has no other."""
    arguments = report_arguments()
    assert "measured on the test images" in words(report_page(**arguments))
    facts = arguments["snapshot"].facts | {"pca": [{"encoding_dim": 8, "mse": 0.034567}]}
    snapshot = replace(arguments["snapshot"], facts=facts)
    text = words(report_page(**arguments | {"snapshot": snapshot}))
    assert "PCA is measured over the same folds" in text
    assert "0.03457" in text


def test_a_winner_that_depends_on_its_seed_is_called_so():
    """With what shows how often it goes well; a mean ± deviation alone hides it."""
    arguments = report_arguments()
    snapshot = arguments["snapshot"]
    said = (
        "Its seeds lie far apart: the worst has 3 times the validation MSE of the best, so what "
        "this configuration reaches depends on the seed. Run again with --set retrain.seeds=4"
    )
    assert "far apart" not in words(report_page(**arguments))
    best, worst = snapshot.retrains
    retrains = (best, replace(worst, validation_loss=3 * best.validation_loss))
    page = report_page(**arguments | {"snapshot": replace(snapshot, retrains=retrains)})
    assert said in words(page)


def test_a_study_in_mid_search_says_how_far_it_is():
    """Without winner, retraining and evaluation the page is whole, and names what is missing."""
    arguments = report_arguments()
    snapshot = arguments["snapshot"]
    waiting = tuple(TrialRecord(number, "waiting") for number in range(12, 30))
    snapshot = replace(
        snapshot, trials=snapshot.trials[:12] + waiting, chosen=None, retrains=(), test_looks=0
    )
    html = report_page(snapshot, arguments["curves"])
    text = words(html)
    assert "In mid-search: 12 of 30 trials finished" in text
    assert "Best so far is trial 11" in text
    assert "Importances need 10 complete trials, and there are 7" in text
    assert "The test set has not been looked at yet" in text
    figures = drawn(html)
    assert set(figures) == {"history", "parallel", "dimensions", "folds"}
    assert max(figures["history"]["data"][0]["x"]) == 11  # best so far ends with what is finished


def test_a_study_without_a_result_has_a_page():
    """Before the first trial is complete there is a page that says so."""
    arguments = report_arguments()
    nothing = tuple(TrialRecord(number, "waiting") for number in range(30))
    snapshot = replace(arguments["snapshot"], trials=nothing, chosen=None, retrains=())
    text = words(report_page(snapshot, arguments["curves"].iloc[:0]))
    assert "No trial is complete and stable yet, so there is no winner" in text
    assert "no optimisation history to draw" in text


def test_without_labels_class_figures_are_left_out():
    """Images without labels: no numbers per class, a map in one colour."""
    arguments = report_arguments()
    evaluation = arguments["evaluation"]
    metrics = replace(evaluation.metrics, per_class=None)
    latent = replace(evaluation.latent, labels=None, class_names=None, silhouette=None)
    unlabelled = replace(evaluation, metrics=metrics, latent=latent)
    html = report_page(**arguments | {"evaluation": unlabelled})
    assert "no numbers per class: the images have no labels, or too many" in words(html)
    assert [trace["name"] for trace in drawn(html)["latent"]["data"]] == ["test images"]


HOSTILE = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>&amp;\"'"
)


def test_text_of_a_study_is_only_text():
    """A name made of markup appears escaped, in the words and in the JSON alike."""
    html = report_page(**report_arguments(text=HOSTILE))
    assert "<script>window.hacked" not in html
    assert "<img src=x" not in html
    assert html.count("</script>") == 3  # figures, plotly.js, page.js
    names = [trace["name"] for trace in drawn(html)["latent"]["data"]]
    assert names[0].startswith("0 &lt;/script&gt;")


def test_json_cannot_end_its_element():
    """Text that figures hold without escaping it still cannot leave the script element."""
    data = {"text": "</script><!-- <script> &amp; \u2028"}
    text = script_json(data)
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == data


def test_dimension_rows_agree_with_a_plain_search():
    """The best stable trial of each size, and the front, as two loops find them."""
    snapshot = report_arguments()["snapshot"]
    # Sixteen numbers do worse than eight: that size is not on the front.
    trials = tuple(
        replace(t, value=t.value * 3) if t.eligible and t.params["encoding_dim"] == 16 else t
        for t in snapshot.trials
    )
    snapshot = replace(snapshot, trials=trials)
    rows = dimension_rows(snapshot, 16, {8: 0.5})
    eligible = [trial for trial in snapshot.trials if trial.eligible]
    for row in rows:
        same = [t for t in eligible if t.params["encoding_dim"] == row.encoding_dim]
        assert row.trial.value == min(t.value for t in same)
        assert row.n_trials == len(same)
        smaller = [t.value for t in eligible if t.params["encoding_dim"] < row.encoding_dim]
        assert row.on_front == all(row.trial.value < value for value in smaller)
        assert row.pca_mse == (0.5 if row.encoding_dim == 8 else None)
    assert [(row.encoding_dim, row.on_front) for row in rows] == [
        (4, True),
        (8, True),
        (16, False),
        (32, True),
    ]


def test_what_decides_the_value_is_most_important():
    """The encoding dimension makes the value of these trials; the forests are seeded."""
    snapshot = report_arguments()["snapshot"]
    spec = snapshot.spec
    found = shares(snapshot, spec.space.dimensions(), seed=3)
    assert max(found, key=lambda name: found[name][0]) == "encoding_dim"
    assert all(low <= mean <= high for mean, low, high in found.values())
    assert found == shares(snapshot, spec.space.dimensions(), seed=3)


def valued(space, trials):
    """A study of complete trials with these parameters and values, and what is searched in it."""
    records = tuple(
        TrialRecord(number, "complete", params, value, 0.0, (value,))
        for number, (params, value) in enumerate(trials)
    )
    spec = load_spec(overrides=["space.defaults=false", *space])
    return StudySnapshot("s", spec, len(records), records, (), (), None, 0, {}), spec.space


def test_what_matters_only_together_is_not_said_to_matter_alone():
    """The shares are of the whole variation, and here much of it is of both together."""
    places = [0.1, 0.2, 0.3, 0.4]
    snapshot, space = valued(
        [
            "space.learning_rate.choices=[0.1, 0.2, 0.3, 0.4]",
            "space.dropout.choices=[0.1, 0.2, 0.3, 0.4]",
        ],
        [
            ({"learning_rate": rate, "dropout": dropout}, 1.0 + ((i < 2) != (j < 2)))
            for i, rate in enumerate(places)
            for j, dropout in enumerate(places)
        ],
    )
    found = shares(snapshot, space.dimensions(), seed=0)
    assert sum(mean for mean, _, _ in found.values()) < 0.7


@pytest.mark.parametrize("n_rungs", [1, 3])
def test_where_few_are_complete_all_count_at_the_first_rung(n_rungs):
    """At equal sizes of the code: there the learning rate decides, over all the size does."""
    rng = np.random.default_rng(0)
    spec = load_spec(overrides=["data.dataset=digits", "search.trials=40"])
    spec = resolve(spec, image_shape=(1, 8, 8), n_train=1438, device="cpu")
    rung, trials, rows = spec.search.warmup_epochs, [], []
    for number in range(40):
        params = {
            "encoding_dim": (4, 8, 16, 32)[number % 4],
            "learning_rate": float(10 ** rng.uniform(-3, -2.1)),
            "weight_decay": float(10 ** rng.uniform(-1.5, 0)),
            "dropout": float(rng.uniform(0, 0.1)),
        }
        loss = (1 + 300 * params["learning_rate"]) / params["encoding_dim"] ** 2
        state = "complete" if number < 5 else "pruned"
        trials.append(TrialRecord(number, state, params, loss, epochs=rung))
        for fold in range(3 if number < 5 else 1):
            # Later losses and those of other folds are of survivors alone, and count for nothing.
            for epoch in range(1, n_rungs * rung + 1):
                late = epoch > rung or fold > 0
                rows.append((number, fold, epoch, 1.0, rng.uniform() if late else loss / epoch))
    snapshot = StudySnapshot("s", spec, 40, tuple(trials), (), (), 0, 0, {})
    columns = ["number", "fold", "epoch", "train_loss", "validation_loss"]
    early = early_losses(snapshot, pd.DataFrame(rows, columns=columns))
    assert sorted(early) == list(range(40))
    for size in range(4):
        assert sum(early[n] for n in range(size, 40, 4)) == pytest.approx(0, abs=1e-9)
    expected = math.log(trials[4].value / trials[0].value)
    assert early[4] - early[0] == pytest.approx(expected)
    dimensions = spec.space.dimensions()
    found = shares(snapshot, dimensions, seed=0, early=early)
    assert "encoding_dim" not in found
    assert found["learning_rate"][0] > 0.8
    assert "need 10 complete trials" in shares(snapshot, dimensions, seed=0)
    unpruned = spec.model_copy(update={"search": spec.search.model_copy(update={"pruner": "none"})})
    assert early_losses(replace(snapshot, spec=unpruned), pd.DataFrame(rows, columns=columns)) == {}


def test_a_logarithmic_range_counts_by_its_logarithm():
    """Half of this one lies below 1e-3: a tenth of its width on a linear scale."""
    rng = np.random.default_rng(0)
    rates, dropouts = 10 ** rng.uniform(-4, -2, 60), rng.uniform(0, 0.5, 60)
    snapshot, space = valued(
        [
            "space.learning_rate={low: 1e-4, high: 1e-2, log: true}",
            "space.dropout={low: 0, high: 0.5}",
        ],
        [
            (
                {"learning_rate": float(rate), "dropout": float(dropout)},
                (rate < 3e-4) + 1.4 * dropout,
            )
            for rate, dropout in zip(rates, dropouts, strict=True)
        ],
    )
    found = shares(snapshot, space.dimensions(), seed=0)
    assert found["learning_rate"][0] > found["dropout"][0]


def test_a_study_that_was_extended_within_a_generation_takes_two_commands(
    tmp_path, create_study, tiny_spec
):
    """Its third trial was suggested alone, and those after it from other results than at once."""
    spec = tiny_spec("search.trials=3", "search.generation_size=2")
    engine = create_study(str(tmp_path / "s.db"), spec)
    study = study_rows.find_study(engine, "digits")

    def commands():
        return reproducing_commands(study_rows.snapshot(engine, "digits"))

    whole = "aesearch run --spec study.yaml"
    assert commands() == [whole]
    study_rows.raise_trials(engine, study, 5, 2)
    assert commands() == [f"{whole} --trials 3", whole]
    study_rows.raise_trials(engine, study, 7, 2)
    assert commands() == [f"{whole} --trials 3", whole]


ROUND = ("1.", "1.5", "2.", "3.", "4.", "5.", "7.")


@pytest.mark.parametrize(("low", "high"), [(0.008, 0.21), (1e-5, 3.0), (0.011, 0.05), (2.0, 2e6)])
def test_ticks_are_round_and_inside(low, high):
    """A logarithmic axis has between four and a dozen round values, in order."""
    ticks = log_ticks(low, high)
    assert 4 <= len(ticks) <= 12
    assert ticks == sorted(ticks)
    assert low <= ticks[0]
    assert ticks[-1] <= high
    assert {f"{tick:.9e}".split("e")[0].rstrip("0") for tick in ticks} <= set(ROUND)


@pytest.mark.parametrize("values", [[0.0, 0.1], [0.0101, 0.0102], [], [None, math.nan]])
def test_losses_that_no_logarithm_suits_get_a_plain_axis(values):
    """Zero has no logarithm, and values of one size need none."""
    assert "type" not in loss_axis(values)


def test_json_holds_no_nan():
    """Numbers that JSON has no word for become null; others keep six digits."""
    found = clean({"a": [math.nan, math.inf, 1 / 3], "b": np.float32(2.0), 3: (True, None, "x")})
    assert found == {"a": [None, None, 0.333333], "b": 2.0, "3": [True, None, "x"]}


def test_a_denoising_study_is_held_against_its_own_noise():
    """Not PCA on clean images but what became of the corruption that it was trained against."""
    arguments = report_arguments()
    noise = ("training.corruption=gaussian", "training.corruption_level=0.5")
    spec = changed(arguments["snapshot"].spec, *noise)
    html = report_page(**arguments | {"snapshot": replace(arguments["snapshot"], spec=spec)})
    text = words(html)
    assert "looked for the autoencoder that cleans these images best" in text
    assert "corrupted by gaussian 0.5 and to be given back clean" in text
    assert "Test images with that corruption are 0.11 away from the clean ones (15.0 dB)" in text
    assert "what it makes of them is 0.07 away (17.0 dB)" in text
    assert "the best linear map" not in text
    assert "PCA" not in [trace["name"] for trace in drawn(html)["dimensions"]["data"]]
