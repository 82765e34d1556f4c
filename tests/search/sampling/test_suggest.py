"""Suggestions and prunings are pure functions of the seed and of finished results."""

import math
from collections import Counter

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from threadpoolctl import threadpool_info, threadpool_limits

from aesearch.sampling import suggest as suggesting
from aesearch.sampling.suggest import Pruner, distributions, rungs, suggest
from aesearch.studies.spec.load import load_spec
from aesearch.studies.spec.resolved import resolve
from aesearch.studies.spec.weights import n_parameters

SHAPE = (1, 8, 8)


def resolved(*overrides):
    """Both kinds of networks, all of them for a fixed number of epochs."""
    fixed = ("training.epochs=20", "space.architecture.choices=[dense,conv]")
    spec = load_spec(overrides=(*fixed, *overrides))
    return resolve(spec, image_shape=(1, 8, 8), n_train=1000, device="cpu")


def finished_trials(spec, count, configurations=(), *, epochs=20):
    """Trials that a study might have finished: every third pruned half-way."""
    rng = np.random.default_rng(5)
    kinds = distributions(spec)
    trials = []
    for number in range(count):
        if configurations:
            params = configurations[number]
        else:
            params = suggest(spec, 1000 + number, range(1, 2), [], [])[0]
        means = (0.05 + rng.random() * 0.05) * np.exp(-np.arange(1, epochs + 1) / 10)
        pruned = number % 3 == 2
        last = epochs // 2 if pruned else epochs
        trials.append(
            create_trial(
                state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
                value=float(means[last - 1]),
                params=params,
                distributions={name: kinds[name] for name in params},
                intermediate_values={i + 1: float(m) for i, m in enumerate(means[:last])},
                system_attrs={f"completed_rung_{rung}": float(means[4]) for rung in range(2)},
            )
        )
    return trials


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp"])
def test_asking_twice_gives_the_same(sampler):
    """A generation that is suggested again, by anyone, is the same."""
    spec = resolved(f"search.sampler={sampler}", "search.startup_trials=4")
    known, window = finished_trials(spec, 12)[:9], finished_trials(spec, 12)[9:]
    first = suggest(spec, 4, range(12, 15), known, window)
    assert first == suggest(spec, 4, range(12, 15), known, window)
    assert len({str(params) for params in first}) == 3


def test_one_thread_of_blas_suggests(monkeypatch):
    """Whatever a worker was started with: the order of a sum goes by the number of threads."""
    seen = []

    def count(*_, **__):
        seen.extend(found["num_threads"] for found in threadpool_info())
        return {}

    monkeypatch.setattr(suggesting, "_ask", count)
    with threadpool_limits(2):
        suggest(resolved("search.sampler=gp"), 1, range(5, 6), [], [])
        assert max(found["num_threads"] for found in threadpool_info()) == 2
    assert seen
    assert set(seen) == {1}


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_suggestions_depend_on_results(sampler):
    """A model-based sampler proposes something else when the known results differ."""
    spec = resolved(f"search.sampler={sampler}", "search.startup_trials=4")
    trials = finished_trials(spec, 9)
    assert suggest(spec, 4, range(12, 15), trials, []) != suggest(
        spec, 4, range(12, 15), trials[::-1][:6], []
    )


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp"])
def test_the_default_configuration_is_the_first_trial(sampler):
    """Trial 0 is the default, so a search never ends worse than doing nothing."""
    spec = resolved(f"search.sampler={sampler}")
    first, second = suggest(spec, 0, range(2), [], [])
    assert first == spec.default_configuration_params()
    assert second != first


@pytest.mark.parametrize(
    ("overrides", "sampler", "startup"),
    [
        (("search.trials=500",), "gp", 5),
        (("search.trials=501",), "tpe", 10),
        (("search.trials=501", "search.sampler=gp"), "gp", 5),
        (("search.sampler=random",), "random", 10),
        (("search.startup_trials=3",), "gp", 3),
    ],
)
def test_the_sampler_follows_from_the_number_of_trials(overrides, sampler, startup):
    """A Gaussian process for as many trials as it can bear, unless something else is asked for."""
    search = resolved(*overrides).search
    assert (search.sampler, search.startup_trials) == (sampler, startup)


def test_a_gaussian_process_learns_what_only_some_networks_have():
    """Hidden widths, which conv networks lack: the good ones are tried, and conv has none."""
    spec = resolved("search.sampler=gp", "space.hidden.choices=[none, 32, 64, 128]")
    kinds = distributions(spec)
    trials = []
    for number in range(24):
        params = suggest(spec, 1000 + number, range(1, 2), [], [])[0]
        params["architecture"] = "conv" if number % 4 == 0 else "dense"
        params.pop("hidden", None)
        if number % 4:
            params["hidden"] = ("none", "32", "64", "128")[number // 4 % 4]
        trials.append(
            create_trial(
                state=TrialState.COMPLETE,
                value=0.01 if params.get("hidden") == "64" else 0.02 + 1e-4 * (number % 3),
                params=params,
                distributions={name: kinds[name] for name in params},
            )
        )
    suggested = suggest(spec, 30, range(24, 34), trials, [])
    for params in suggested:
        assert ("hidden" in params) == (params["architecture"] == "dense")
    assert [params.get("hidden") for params in suggested].count("64") >= 7


def test_quasi_random_points_depend_on_their_number_alone():
    """Points 6..8 are the same whether they are asked for together or in two generations."""
    spec = resolved("search.sampler=qmc")
    whole = suggest(spec, 2, range(6, 9), [], [])
    assert whole == suggest(spec, 3, range(6, 7), [], []) + suggest(spec, 4, range(7, 9), [], [])


def test_the_grid_is_exact():
    """Every configuration once, conditional dimensions only where they apply."""
    spec = resolved(
        "search.sampler=grid",
        "space={defaults: false, architecture: {choices: [dense, conv]},"
        " dropout: {choices: [0.0, 0.2], when: {architecture: dense}}}",
    )
    points = suggest(spec, 0, range(spec.space.grid_size), [], [])
    assert points == [
        {"architecture": "dense", "dropout": 0.0},
        {"architecture": "dense", "dropout": 0.2},
        {"architecture": "conv"},
    ]


@pytest.mark.parametrize(
    ("pruner", "expected"),
    [
        ("none", [20]),
        ("median", [5, 7, 9, 11, 13, 15, 17, 19, 20]),
        ("halving", [5, 20]),
        ("hyperband", [5, 15, 20]),
    ],
)
def test_rungs_end_with_the_last_epoch(pruner, expected):
    """Nobody is judged before the warm-up, and the last rung is the end."""
    spec = resolved(
        f"search.pruner={pruner}", "search.warmup_epochs=5", "search.reduction_factor=3"
    )
    assert rungs(spec) == expected


def judged(spec, means, known):
    """Losers of a generation of trials 12, 13, … with constant means."""
    kinds = distributions(spec)
    params = spec.default_configuration_params()
    own = {
        12 + i: create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions={name: kinds[name] for name in params},
        )
        for i in range(len(means))
    }
    pruner = Pruner(spec, known, own)
    reports = {12 + i: dict.fromkeys(range(1, 6), mean) for i, mean in enumerate(means)}
    return pruner, pruner.losers(list(own), reports)


@pytest.mark.parametrize("pruner", ["median", "halving", "hyperband"])
def test_a_hopeless_trial_is_pruned_and_a_winner_is_not(pruner):
    """Ten times the median loses at the first rung; a tenth of it goes on."""
    spec = resolved(
        f"search.pruner={pruner}",
        "search.warmup_epochs=5",
        "search.reduction_factor=3",
        "search.startup_trials=4",
    )
    known = finished_trials(spec, 12)
    _, losers = judged(spec, [0.8, 0.001], known)
    assert 13 not in losers
    assert 12 in losers


@pytest.mark.parametrize(
    ("sampler", "startup", "losers"),
    [("tpe", 13, []), ("gp", 13, []), ("tpe", 12, [12]), ("random", 13, [12]), ("qmc", 13, [12])],
)
def test_what_a_sampler_learns_from_first_is_never_pruned(sampler, startup, losers):
    """Its first trials are trained in full, hopeless or not; others do not learn."""
    spec = resolved(
        "search.pruner=halving",
        "search.warmup_epochs=5",
        f"search.sampler={sampler}",
        f"search.startup_trials={startup}",
    )
    assert judged(spec, [0.8, 0.001], finished_trials(spec, 12))[1] == losers


@pytest.mark.parametrize("sampler", ["gp", "tpe", "random", "qmc"])
@pytest.mark.parametrize(
    "sizes",
    ["encoding_dim=null", "encoding_dim.choices=[16]", "encoding_dim={low: 4, high: 32}"],
)
def test_where_scores_are_of_delivered_models_only_the_default_is_protected(sampler, sizes):
    """Whether the size of the code is fixed, the only one of a list, or in a range."""
    spec = resolved(
        "training.epochs=auto",
        "model.encoding_dim=16",
        f"space.{sizes}",
        f"search.sampler={sampler}",
        "search.startup_trials=5",
    )
    default = spec.default_configuration_params()
    kinds = distributions(spec)
    own = {
        number: create_trial(
            state=TrialState.RUNNING,
            params=default,
            distributions={name: kinds[name] for name in default},
        )
        for number in range(4)
    }
    losses = {0: 0.9, 1: 0.8, 2: 0.7, 3: 0.1}
    pruner = Pruner(spec, [], own)
    reports = {number: {rungs(spec)[0]: loss} for number, loss in losses.items()}
    assert pruner.losers(list(own), reports) == [1, 2]
    assert pruner.losers_after_fold(losses) == [1, 2]


@pytest.mark.parametrize("pruner", ["none", "median", "halving", "hyperband"])
def test_where_all_diverged_nobody_is_left_to_prune(pruner):
    """A generation of which no trial reached the rung."""
    assert Pruner(resolved(f"search.pruner={pruner}"), [], {}).losers([], {}) == []


def test_no_pruner_prunes_nobody():
    """With pruner none, the worst trial is trained to its end."""
    spec = resolved("search.pruner=none")
    _, losers = judged(spec, [9.0, 0.001], finished_trials(spec, 12))
    assert losers == []


def test_hyperband_remembers_its_rungs():
    """What hyperband notes on a trial comes out, so that later generations find it."""
    spec = resolved(
        "search.pruner=hyperband", "search.warmup_epochs=5", "search.reduction_factor=3"
    )
    pruner, _ = judged(spec, [0.8, 0.001], [])
    assert pruner.memory(12) == {"completed_rung_0": 0.8}


def test_scratch_studies_stay_out_of_optunas_log(capfd):
    """Hundreds of scratch studies leave no line on the screen."""
    optuna.logging.set_verbosity(optuna.logging.INFO)
    spec = resolved()
    assert math.isclose(suggest(spec, 0, range(1), [], [])[0]["learning_rate"], 3e-3)
    assert capfd.readouterr().err == ""


LIMITED = (
    "space.architecture.choices=[dense,conv]",
    "space.encoding_dim.choices=[4, 32]",
    "space.hidden.choices=[16, 48, 96, 128]",
    "space.channels.choices=[4-4-4, 16-32-64]",
    "model.conv.hidden=16",
    "model.dense.hidden=[128]",
    "search.max_parameters=14000",
)


def weights(spec, params):
    """Count those of a configuration for 8x8 images."""
    return n_parameters(spec.configuration(params), SHAPE)


@pytest.mark.parametrize("epochs", ["20", "auto"])
@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp"])
def test_nothing_above_the_limit_of_weights_is_suggested(sampler, epochs):
    """By no sampler, learning or not; asked twice the same; the first ones included."""
    asked = ("search.startup_trials=4", f"search.sampler={sampler}", f"training.epochs={epochs}")
    spec = resolved(*LIMITED, *asked)
    first = suggest(spec, 0, range(6), [], [], (), SHAPE)
    known = finished_trials(spec, 12, first * 2)
    later = suggest(spec, 4, range(12, 22), known, [], (), SHAPE)
    assert max(weights(spec, params) for params in first + later) <= 14_000
    assert later == suggest(spec, 4, range(12, 22), known, [], (), SHAPE)


def test_the_first_of_each_size_is_the_nearest_to_the_default_that_fits():
    """Each size has its own widths."""
    spec = resolved(*LIMITED, "training.epochs=auto", "model.dense.hidden=[96]")
    first = suggest(spec, 0, range(2), [], [], (), SHAPE)
    assert [(params["encoding_dim"], params["hidden"]) for params in first] == [
        (4, "96"),
        (32, "48"),
    ]
    default = spec.default_configuration_params()
    assert all(params["learning_rate"] == default["learning_rate"] for params in first)


def test_random_configurations_are_even_among_those_that_fit():
    """What is too large is drawn again; it does not become its neighbour."""
    spec = resolved(
        *LIMITED[1:], "space.architecture=null", "space.channels=null", "search.sampler=random"
    )
    found = suggest(spec, 0, range(1, 301), [], [], (), SHAPE)
    counts = Counter((params["encoding_dim"], params["hidden"]) for params in found)
    assert counts.keys() == {(4, "16"), (4, "48"), (4, "96"), (32, "16"), (32, "48")}
    # Within three standard deviations of 60; a neighbour would have 100.
    assert all(abs(count - 60) < 21 for count in counts.values())


def test_a_grid_leaves_out_what_is_too_large():
    """Its cells keep their order."""
    grid = (
        "search.sampler=grid",
        "space.learning_rate=null",
        "space.weight_decay=null",
        "space.dropout=null",
    )
    spec = resolved(*LIMITED, *grid)
    cells = suggest(spec, 0, range(spec.n_trials), [], [], (), SHAPE)
    small = [c for c in spec.space.grid_configurations() if weights(spec, c) <= 14_000]
    assert cells == small
    assert len(small) < spec.space.grid_size
    assert suggesting.cut_grid(spec, SHAPE) is None
    cut = spec.model_copy(update={"search": spec.search.model_copy(update={"trials": 2})})
    told = suggesting.cut_grid(cut, SHAPE)
    assert f"the grid has {len(small)} configurations, of which 2 are tried" in told
