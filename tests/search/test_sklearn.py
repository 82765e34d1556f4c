"""The scikit-learn estimators: its own checks, and what they compute against plain loops."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from aesearch.sklearn import Autoencoder, AutoencoderSearchCV, search_cv
from aesearch.studies.errors import AesearchError, RunFailedError
from aesearch.studies.spec.load import spec_from_mapping
from aesearch.studies.spec.study import StudySpec

SMALL = Autoencoder(4, hidden=(8,), max_epochs=3)
SEARCH = AutoencoderSearchCV(
    SMALL, folds=2, trials=2, space={"weight_decay": None, "dropout": None}
)
# Rows of so few columns are PCA's without a rest, and losses near zero rise and fall by their
# multiples: a search that looks at the last epochs gets networks that start at random.
FIXED = clone(SEARCH).set_params(epochs=2, estimator__shortcut="none")

# Every check that is expected to fail, with its reason: none is.
EXPECTED_FAILURES = {}


@parametrize_with_checks(
    [SMALL, SEARCH],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES.get(type(estimator).__name__, {}),
)
def test_scikit_learn_accepts_it(estimator, check):
    """Its own conformance tests, all of them."""
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([FIXED])
def test_scikit_learn_accepts_a_fixed_number_of_epochs(estimator, check):
    """The same of a search that is scored by its last epochs."""
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    """The first 120 digits, on their own scale of 0 to 16: (sample, pixel)."""
    from sklearn.datasets import load_digits

    return load_digits().data[:120]


@pytest.fixture(scope="module")
def fitted(digits):
    """Train for a few epochs on the digits as images."""
    network = Autoencoder(6, hidden=(24,), image_shape=(8, 8), learning_rate=0.001, max_epochs=25)
    return network.fit(digits)


def test_it_computes_what_its_network_computes(digits, fitted):
    """Codes, rows and score, by hand in plain torch on values scaled from 0..16 to 0..1."""
    network = fitted.model_.double()
    images = torch.from_numpy(digits / 16).reshape(-1, 1, 8, 8)
    with torch.no_grad():
        codes = network.encode(images).numpy()
        rows = network.decode(torch.from_numpy(codes)).reshape(len(digits), -1).numpy() * 16
    network.float()
    assert fitted.data_range_ == (0.0, 16.0)
    np.testing.assert_allclose(fitted.transform(digits), codes)
    np.testing.assert_allclose(fitted.inverse_transform(codes), rows)
    assert fitted.score(digits) == pytest.approx(-((rows - digits) ** 2).mean())


def test_it_learns_something(digits, fitted):
    """More than the mean image, and more with a longer training."""
    longer = clone(fitted).set_params(max_epochs=60).fit(digits)
    assert -np.var(digits - digits.mean(axis=0)) < fitted.score(digits) < longer.score(digits)
    assert 1 <= longer.best_epoch_ <= longer.n_iter_ <= 60
    assert 0 < longer.validation_loss_ < fitted.validation_loss_


def test_the_scale_of_x_is_no_matter(digits, fitted):
    """X times ten plus three has the same codes, rows on its own scale, errors a hundredfold."""
    other = clone(fitted).fit(10 * digits + 3)
    np.testing.assert_allclose(
        other.transform(10 * digits + 3), fitted.transform(digits), rtol=1e-9, atol=1e-9
    )
    assert other.score(10 * digits + 3) == pytest.approx(100 * fitted.score(digits))


def test_the_range_is_given_or_learnt_once(digits, fitted):
    """A given one is used as it is; later values outside are taken, and come back inside."""
    given = clone(fitted).set_params(data_range=(-4, 20)).fit(digits)
    assert given.data_range_ == (-4.0, 20.0)
    far = fitted.inverse_transform(fitted.transform(digits * 3))
    assert 0 <= far.min() < far.max() <= 16


def test_it_is_a_part_of_pipelines_and_cross_validation(digits):
    """Scaling, codes, and a score on held-out rows by scikit-learn's own loop."""
    network = Autoencoder(3, hidden="none", max_epochs=4)
    pipeline = Pipeline([("scale", StandardScaler()), ("codes", network)]).fit(digits)
    by_hand = clone(network).fit(StandardScaler().fit_transform(digits))
    codes = by_hand.transform(StandardScaler().fit_transform(digits))
    np.testing.assert_array_equal(pipeline.transform(digits), codes)
    pipeline.set_params(codes__encoding_dim=2)
    assert pipeline.fit_transform(digits).shape == (120, 2)
    scores = cross_val_score(network, digits, cv=2)
    folds = [(digits[60:], digits[:60]), (digits[:60], digits[60:])]
    assert scores.tolist() == [clone(network).fit(train).score(test) for train, test in folds]


@pytest.mark.parametrize("shape", ["8x8", (8, 9), (64,), [[8, 8]]])
def test_a_shape_that_is_none_is_refused(digits, shape):
    """By what it must be."""
    with pytest.raises(ValueError, match=r"image_shape must be \(height, width\), .* got"):
        Autoencoder(image_shape=shape).fit(digits)


def test_it_comes_back_from_a_pickle(digits, fitted):
    """Bit for bit."""
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform(digits), fitted.transform(digits))


def test_a_convolutional_network_needs_and_uses_the_shape(digits):
    """Given (height, width) or with the channels; refused without."""
    two = Autoencoder(3, architecture="conv", image_shape=(8, 8), max_epochs=2).fit(digits)
    three = clone(two).set_params(image_shape=(1, 8, 8)).fit(digits)
    assert two.model_.architecture == "conv"
    np.testing.assert_array_equal(two.transform(digits), three.transform(digits))
    with pytest.raises(ValueError, match="image_shape must be given for architecture 'conv'"):
        Autoencoder(architecture="conv").fit(digits)


@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_channels_may_be_last(architecture):
    """The same network, codes and scores as of rows with the channels first, in their order."""
    images = np.random.default_rng(0).uniform(0, 1, (40, 3, 8, 10))
    first, last = images.reshape(40, -1), np.moveaxis(images, 1, 3).reshape(40, -1)
    one = Autoencoder(3, architecture=architecture, image_shape=(3, 8, 10), max_epochs=2)
    two = clone(one).set_params(image_shape=(8, 10, 3))
    codes = one.fit_transform(first)
    np.testing.assert_array_equal(two.fit_transform(last), codes)
    assert two.image_shape_ == one.image_shape_ == (3, 8, 10)
    np.testing.assert_allclose(two.score_samples(last), one.score_samples(first), rtol=1e-12)
    back = two.inverse_transform(codes).reshape(40, 8, 10, 3)
    expected = one.inverse_transform(codes).reshape(40, 3, 8, 10)
    np.testing.assert_array_equal(np.moveaxis(back, 3, 1), expected)


def test_randomness_is_a_parameter(digits):
    """Equal seeds, equal codes; None and a generator draw one."""
    codes = [
        Autoencoder(
            2, hidden=(8,), max_epochs=2, shortcut="none", random_state=state
        ).fit_transform(digits)
        for state in (0, 0, 1, np.random.RandomState(5), np.random.RandomState(5))
    ]
    assert np.array_equal(codes[0], codes[1])
    assert not np.array_equal(codes[0], codes[2])
    assert np.array_equal(codes[3], codes[4])


def test_training_leaves_the_process_as_it_was(digits):
    """Threads, denormal numbers and the kernels of a GPU are those of before."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.set_flush_denormal(False)  # a worker of another test may have turned it on
    cudnn = torch.backends.cudnn
    cudnn.deterministic, cudnn.allow_tf32 = False, True
    torch.set_float32_matmul_precision("high")
    try:
        clone(SEARCH).fit(digits)
        assert torch.get_num_threads() == 2
        assert np.array(5e-324) + 0.0 > 0
        assert not cudnn.deterministic
        assert cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.set_num_threads(before)


@pytest.mark.parametrize(("fast", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_a_large_search_has_the_precision_of_a_study(monkeypatch, fast, precision):
    """What the processor is fast at, as ``aesearch run`` decides it."""
    seen = []

    def stop(problem, _n_jobs):
        seen.append(problem.spec.compute.precision)
        raise RuntimeError

    monkeypatch.setattr(search_cv, "has_fast_bfloat16", lambda: fast)
    monkeypatch.setattr(search_cv, "_searched", stop)
    with pytest.raises(RuntimeError):
        AutoencoderSearchCV().fit(np.random.default_rng(0).random((500, 4097), np.float32))
    assert seen == [precision]


BAD = {
    "two parameters": (
        Autoencoder(0, dropout=1.5),
        r"Autoencoder is invalid \(2 problems\):\n  - model.encoding_dim.*\n  - model.dropout",
    ),
    "optimizer": (Autoencoder(optimizer="adma"), "training.optimizer: must be"),
    "a square in a row": (
        Autoencoder(corruption="occlusion"),
        "image_shape must be given for corruption 'occlusion', got None",
    ),
    "shape": (Autoencoder(image_shape=(7, 8)), r"X has columns \(64\), got \(7, 8\)"),
    "sizes": (Autoencoder(image_shape=(64,)), r"got \(64,\)"),
    "one size": (Autoencoder(image_shape=64), r"columns \(64\), got 64"),
    "one bound": (Autoencoder(data_range=16), r"low < high, got 16"),
    "no widths": (Autoencoder(hidden=1.5), "model.dense.hidden"),
    "widths": (Autoencoder(hidden=(24, -1)), "model.dense.hidden"),
    "range": (Autoencoder(data_range=(0, 1)), r"X must lie in data_range \(0, 1\), got .* to 16"),
    "no range": (Autoencoder(data_range=(1, 1)), r"low < high, got \(1, 1\)"),
    "folds": (AutoencoderSearchCV(folds=1), "search.folds: must be >= 2, got 1"),
    "many folds": (AutoencoderSearchCV(folds=61), "n_samples = 120 for 61 folds"),
    "space": (AutoencoderSearchCV(space={"droput": None}), "did you mean 'dropout'"),
    "architecture": (
        AutoencoderSearchCV(space={"architecture": {"choices": ["conv"]}}),
        "space must not name the architecture without an image_shape",
    ),
}


@pytest.mark.parametrize("hidden", [24, np.int64(24), (np.int64(24),), np.array([24]), "24"])
def test_widths_may_be_written_as_in_a_specification(hidden):
    """Or come out of an array."""
    document = Autoencoder(hidden=hidden).spec_document(image_given=False)
    assert spec_from_mapping(document, "test").model.dense.hidden == (24,)


def test_what_is_left_out_of_a_grid_is_warned_of(digits):
    """Fewer trials than configurations always lose the same end."""
    search = clone(SEARCH).set_params(
        sampler="grid", trials=1, space={"defaults": False, "encoding_dim": {"choices": [4, 6]}}
    )
    with pytest.warns(UserWarning, match="never tried: encoding_dim 6"):
        search.fit(digits)


@pytest.mark.parametrize(("estimator", "message"), BAD.values(), ids=BAD)
def test_bad_parameters_are_named(estimator, message, digits):
    """In ``fit``, as scikit-learn wants it: as ValueError and as AesearchError."""
    with pytest.raises(ValueError, match=message) as caught:
        estimator.fit(digits)
    assert isinstance(caught.value, AesearchError)


def test_codes_of_another_width_are_named(fitted):
    """Both widths."""
    with pytest.raises(ValueError, match="codes of width 6, got 5 columns"):
        fitted.inverse_transform(np.zeros((2, 5)))


def test_no_trial_that_may_be_chosen_is_told(digits):
    """With the reason, and without a winner."""
    search = clone(SEARCH).set_params(unstable_loss=1e-6)
    with pytest.raises(RunFailedError, match="above"):
        search.fit(digits)
    assert not hasattr(search, "best_params_")


STUDY = (
    "data.limit=90",
    "space.architecture=null",
    "model.dense.hidden=[24]",
    "training.batch_size=16",
    "training.epochs=4",
    "search.trials=16",
    "search.unstable_loss=1.0",
    "compute.device=cpu",
)


@pytest.fixture(scope="module")
def searched():
    """The images of a small study on the digits, and the search over them."""
    from aesearch.data.study_data import load_problem
    from aesearch.studies.spec.load import load_spec

    problem = load_problem(load_spec(overrides=STUDY), device="cpu")
    rows = problem.images.reshape(len(problem.images), -1) / 255
    template = Autoencoder(
        image_shape=(8, 8), data_range=(0, 1), hidden=(24,), batch_size=16, max_epochs=5
    )
    search = AutoencoderSearchCV(template, trials=16, epochs=4, space={"architecture": None})
    return rows, search.fit(rows)


def test_the_search_is_that_of_a_study(searched, tmp_path, create_study, work):
    """The same trials, fold scores and choice as a study's, bit for bit: no second engine."""
    from aesearch.inference.network import denormals_flushed
    from aesearch.studies.results import frames
    from aesearch.studies.spec.load import load_spec
    from aesearch.studies.store import study_rows

    _, found = searched
    engine = create_study(tmp_path / "a.db", load_spec(overrides=STUDY))
    with denormals_flushed():
        work(engine, kinds=("search",))
    snapshot = study_rows.snapshot(engine, "digits")
    engine.dispose()
    table = frames.trials(snapshot)
    assert found.cv_results_["params"] == [dict(trial.params) for trial in snapshot.trials]
    assert found.cv_results_["state"].tolist() == table["state"].tolist()
    for fold in range(3):
        np.testing.assert_array_equal(
            found.cv_results_[f"split{fold}_test_score"], -table[f"fold_{fold}"]
        )
    assert found.best_index_ == snapshot.chosen
    assert found.best_params_ == dict(snapshot.trials[snapshot.chosen].params)


def test_the_results_are_arranged_as_those_of_a_grid_search(searched):
    """Means, deviations and ranks over the splits; the winner is refitted on all rows."""
    rows, found = searched
    results = found.cv_results_
    splits = np.column_stack([results[f"split{fold}_test_score"] for fold in range(3)])
    np.testing.assert_allclose(results["mean_test_score"], splits.mean(axis=1))
    np.testing.assert_allclose(results["std_test_score"], splits.std(axis=1))
    complete = results["state"] == "complete"
    assert 1 <= complete.sum() < 16
    best = np.nanmax(results["mean_test_score"])
    assert found.best_score_ == best == results["mean_test_score"][found.best_index_]
    assert results["rank_test_score"][found.best_index_] == 1
    assert (results["rank_test_score"][~complete] == complete.sum() + 1).all()
    for name, value in found.best_params_.items():
        assert results[f"param_{name}"][found.best_index_] == value
    again = clone(found.estimator).set_params(**found.best_params_).fit(rows)
    np.testing.assert_array_equal(found.transform(rows), again.transform(rows))
    assert found.score(rows) == again.score(rows)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(found)).transform(rows), again.transform(rows)
    )


def test_scores_are_in_the_units_of_x(searched):
    """X times 255 has scores times 255 squared."""
    rows, found = searched
    template = clone(found.estimator).set_params(data_range=(0, 255))
    other = clone(found).set_params(estimator=template, refit=False).fit(rows * 255)
    np.testing.assert_allclose(
        other.cv_results_["mean_test_score"], found.cv_results_["mean_test_score"] * 255**2
    )
    with pytest.raises(AttributeError, match="best_estimator_"):
        _ = other.best_estimator_


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(searched):
    """Two processes share the study."""
    rows, found = searched
    other = clone(found).set_params(n_jobs=2).fit(rows)
    assert other.cv_results_["params"] == found.cv_results_["params"]
    assert other.best_score_ == found.best_score_
    np.testing.assert_array_equal(other.transform(rows), found.transform(rows))


def test_every_default_is_that_of_the_specification():
    """One place for defaults: the study's specification."""
    spec, one, search = StudySpec(), Autoencoder(), AutoencoderSearchCV()
    for section in (spec.model, spec.training, spec.retrain):
        shared = set(type(section).model_fields) & set(one.get_params())
        # Of the training section this is the patience of a schedule, not of the stopping; the
        # weight decay is below.
        shared -= {"patience", "weight_decay"} if section is spec.training else set()
        assert shared
        assert {name: getattr(one, name) for name in shared} == {
            name: getattr(section, name) for name in shared
        }
    shared = set(type(spec.search).model_fields) & set(search.get_params()) - {"unstable_loss"}
    assert {name: getattr(search, name) for name in shared} == {
        name: getattr(spec.search, name) for name in shared
    }
    assert search.epochs == spec.training.epochs
    # It goes by the optimizer, in a specification too, where it is not written.
    assert one.weight_decay == "auto"
    for optimizer in ("adamw", "adam", "sgd"):
        document = Autoencoder(optimizer=optimizer).spec_document(image_given=False)
        asked = spec_from_mapping({"training": {"optimizer": optimizer}}, "test")
        found = spec_from_mapping(document, "test")
        assert found.training.weight_decay == asked.training.weight_decay


def test_outliers_are_the_rows_that_are_reconstructed_worst(digits):
    """So many of X as contamination says; a row's score is the error of its reconstruction."""
    model = Autoencoder(4, hidden=(8,), max_epochs=3, contamination=0.2).fit(digits)
    scores = model.score_samples(digits)
    errors = (model.inverse_transform(model.transform(digits)) - digits) ** 2
    np.testing.assert_allclose(scores, -errors.mean(axis=1), rtol=1e-9)
    assert scores.mean() == pytest.approx(model.score(digits))
    predicted = model.predict(digits)
    assert (predicted == -1).sum() == 0.2 * len(digits)
    assert scores[predicted == -1].max() < scores[predicted == 1].min()
    np.testing.assert_array_equal(predicted, model.fit_predict(digits))
    noise = np.random.default_rng(0).uniform(0, 16, (5, digits.shape[1]))
    assert (model.predict(noise) == -1).all()
    assert (model.decision_function(noise) == model.score_samples(noise) - model.offset_).all()


def test_a_search_judges_rows_by_its_winner(searched):
    """As the estimator that it refitted does."""
    rows, found = searched
    best = found.best_estimator_
    np.testing.assert_array_equal(found.score_samples(rows), best.score_samples(rows))
    np.testing.assert_array_equal(found.decision_function(rows), best.decision_function(rows))
    np.testing.assert_array_equal(found.predict(rows), best.predict(rows))


@pytest.mark.parametrize("contamination", [0, 0.6, -1, float("nan"), "auto", None])
def test_a_contamination_that_is_none_is_refused(digits, contamination):
    """Before anything is trained."""
    with pytest.raises(AesearchError, match=r"contamination must be in \(0, 0\.5\], got"):
        Autoencoder(contamination=contamination).fit(digits)


def test_a_search_with_two_objectives_gives_its_front(digits):
    """The knee is chosen of it where that is asked for, and no larger network is tried."""
    search = AutoencoderSearchCV(
        Autoencoder(hidden=(16,), max_epochs=3),
        folds=2,
        trials=3,
        epochs=3,
        space=dict.fromkeys(("learning_rate", "weight_decay", "dropout"))
        | {"encoding_dim": {"choices": [2, 4, 8, 16]}},
        sampler="grid",
        pruner="none",
        objectives=("mse", "n_parameters"),
        max_parameters=4000,
        refit=False,
    ).fit(digits)
    front = search.front_.set_index("number")
    params = {number: search.cv_results_["params"][number] for number in front.index}
    assert {p["encoding_dim"] for p in search.cv_results_["params"]} == {2, 4, 8}
    assert [params[number]["encoding_dim"] for number in front.index] == list(front["encoding_dim"])
    assert front["n_parameters"].is_monotonic_increasing
    assert front["mse"].is_monotonic_decreasing
    assert set(front["n_parameters"]) <= set(range(4001))
    with pytest.raises(ValueError, match="objectives"):
        AutoencoderSearchCV(objectives=["size"]).fit(digits)
