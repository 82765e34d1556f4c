"""A study of noisy images beside clean ones: nested loops, one number everywhere, its files."""

import json

import numpy as np
import pytest
import torch
from plain_network import PLAIN
from torch import nn
from typer.testing import CliRunner

import aesearch
from aesearch.cli import app
from aesearch.data.arrays.images import MIN_SAMPLES
from aesearch.data.study_data import load_problem
from aesearch.driver.cost import cost_of
from aesearch.evaluation.baseline import PrincipalComponents, principal_components_by_fold
from aesearch.models.autoencoder import build_autoencoder
from aesearch.models.training.randomness import minibatch_order
from aesearch.options import OptionError
from aesearch.seeds import derive_seed
from aesearch.studies.errors import DataMissingError, StudyMismatchError
from aesearch.studies.store import study_rows

RNG = np.random.default_rng(0)
# Smooth images: something to learn, whatever lies over it.
CLEAN = np.rint(
    np.add.outer(RNG.uniform(0, 100, 90), np.zeros((9, 9)))
    + RNG.uniform(0, 15, 90)[:, None, None] * np.arange(9)[None, :, None]
).astype(np.uint8)
NOISY = np.clip(CLEAN + RNG.normal(0, 40, CLEAN.shape), 0, 255).astype(np.uint8)
OF_STUDY = ("data.limit=null", "search.trials=2", "name=pairs", "evaluation.bootstrap=9")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Both in one file."""
    path = tmp_path_factory.mktemp("images") / "both.npz"
    np.savez(path, images=CLEAN, noisy=NOISY)
    return path


@pytest.fixture
def spec(tiny_spec, archive):
    """A study of seconds, of dense networks."""
    return lambda *more: tiny_spec(
        f"data.dataset={archive}", "data.noisy=noisy", "name=pairs", *more
    )


def test_fold_scores_are_those_of_nested_loops(tmp_path, spec, create_study, work):
    """Noisy images in, clean ones expected, in training and validation."""
    asked = spec(
        "space={architecture: null, dropout: null}", "search.pruner=none", "search.trials=2", *PLAIN
    )
    engine = create_study(tmp_path / "s.db", asked)
    work(engine, "pairs", kinds=("search",))
    trials = study_rows.snapshot(engine, "pairs").trials
    problem = load_problem(asked, device="cpu")
    looped = [nested_loops(problem, trial) for trial in trials]
    # float32 sums in another order: batched products against single ones.
    np.testing.assert_allclose([t.fold_scores for t in trials], looped, rtol=2e-4)


def nested_loops(problem, trial):
    """One trial the way everybody writes it."""
    spec, configuration = problem.spec, problem.spec.configuration(trial.params)
    clean = torch.from_numpy(problem.images).float() / 255
    noisy = torch.from_numpy(problem.noisy).float() / 255
    scores = np.zeros((spec.search.folds, spec.training.epochs))
    for fold in range(spec.search.folds):
        seed = derive_seed(spec.seed, "member", trial.number, fold)
        model = build_autoencoder(
            architecture=configuration.architecture,
            image_shape=tuple(clean.shape[1:]),
            encoding_dim=configuration.encoding_dim,
            hidden=configuration.hidden,
            seed=seed,
        )
        optimizer = torch.optim.Adam(
            model.parameters(),
            lr=configuration.learning_rate,
            weight_decay=configuration.weight_decay,
        )
        train, validation = map(torch.from_numpy, problem.fold_indices(fold))
        for epoch in range(spec.training.epochs):
            order = train[minibatch_order(seed, epoch, len(train))]
            for batch in order.split(spec.training.batch_size):
                optimizer.zero_grad()
                nn.functional.mse_loss(model(noisy[batch]), clean[batch]).backward()
                optimizer.step()
            with torch.no_grad():
                loss = nn.functional.mse_loss(model(noisy[validation]), clean[validation])
            scores[fold, epoch] = loss.item()
    return scores[:, -spec.search.score_epochs :].mean(axis=1)


def test_principal_components_project_the_noisy_images(spec):
    """Components of the clean training part; errors against the clean ones that are held out."""
    problem = load_problem(spec("space.encoding_dim.choices=[2, 4]"), device="cpu")
    found = {row["encoding_dim"]: row["mse"] for row in principal_components_by_fold(problem)}
    errors = []
    for fold in range(problem.spec.search.folds):
        train, held_out = problem.fold_indices(fold)
        components = PrincipalComponents(problem.images[train], 2, seed=0)
        seen = torch.from_numpy(problem.noisy[held_out]).float() / 255
        made = components.decode(components.encode(seen), problem.image_shape)
        errors.append((made - torch.from_numpy(problem.images[held_out]) / 255).square().mean())
    assert found[2] == pytest.approx(float(np.mean(errors)), rel=1e-5)


def test_memory_counts_both(spec):
    """Images and noisy images are held by each worker."""
    noisy = load_problem(spec(), device="cpu")
    clean = load_problem(spec("data.noisy=null"), device="cpu")
    more = cost_of(noisy).worker_bytes - cost_of(clean).worker_bytes
    assert more == noisy.images.nbytes


@pytest.fixture(scope="module")
def found(tiny_spec, tmp_path_factory):
    """A finished study of two arrays."""
    folder = tmp_path_factory.mktemp("study")
    spec = tiny_spec(*OF_STUDY)
    where = {"storage": f"{folder}/s.db", "out": folder / "run"}
    return aesearch.search(CLEAN, noisy=NOISY, spec=spec, workers=1, quiet=True, **where)


def test_one_number_is_that_of_noisy_images_against_clean_ones(found):
    """In the study, its evaluation, and by hand; beside what the noisy ones are as they are."""
    spec = found.spec
    problem = load_problem(spec, device="cpu")
    clean = torch.from_numpy(problem.test_images).float() / 255
    noisy = torch.from_numpy(problem.test_noisy).float() / 255
    with torch.no_grad():
        by_hand = (found.model(noisy) - clean).square().mean().item()
    assert found.test_mse == pytest.approx(by_hand, rel=1e-5)
    evaluation = found.evaluation
    assert evaluation.metrics.overall.mse.mean == pytest.approx(by_hand, rel=1e-5)
    assert evaluation.noisy.mse == pytest.approx((noisy - clean).square().mean().item(), rel=1e-5)
    assert "noisy" in json.loads((found.folder / "evaluation.json").read_text())
    # Scores are of images as the network sees them.
    assert evaluation.calibration is not None
    scores = aesearch.score_samples(found.folder, problem.noisy[:, 0])
    assert scores.p_value.between(0, 1).all()


def test_it_says_what_it_did(found):
    """The summary, the report, and what denoises with the model."""
    text = repr(found)
    assert "validation MSE per pixel; inputs noisy, targets clean" in text
    assert "Test MSE per pixel, noisy images against clean ones:" in text
    assert "noisy test images, held against the clean ones; as given: MSE" in text
    page = (found.folder / "report.html").read_text("utf-8")
    assert "each beside its noisy one" in page
    assert "The noisy test images are" in page
    assert "noisy and to be given back clean" in page
    samples = next(p for p in found.evaluation.pictures if p.name == "samples")
    assert "noisy partners" in samples.alt


def test_the_file_alone_gives_the_same_model(found, tmp_path):
    """``best.yaml`` names both; the images that are kept hold both."""
    assert aesearch.verify(found.folder, quiet=True).verdict == "identical"
    trained = aesearch.train(found.folder, out=tmp_path / "again", quiet=True)
    assert trained.test_mse == pytest.approx(found.test_mse, rel=1e-6)


def go_on(found, tiny_spec, noisy):
    where = {"storage": found.storage, "out": found.folder, "workers": 1, "quiet": True}
    spec = tiny_spec(*OF_STUDY)
    return aesearch.search(CLEAN, noisy=noisy, spec=spec, **where)


def test_a_study_goes_on_with_its_noisy_images(found, tiny_spec):
    """The same call finds it finished."""
    assert go_on(found, tiny_spec, NOISY).test_mse == found.test_mse


@pytest.mark.parametrize("noisy", [NOISY[::-1], None], ids=["other", "none"])
def test_a_study_does_not_go_on_with_other_noise(found, tiny_spec, noisy):
    """That is another study, and the images that are kept stay."""
    before = (found.folder / "images.npz").read_bytes()
    with pytest.raises(StudyMismatchError):
        go_on(found, tiny_spec, noisy)
    assert (found.folder / "images.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": CLEAN, "noisy": "noisy/"}, "noisy must be images beside images, .*got str"),
        ({"dataset": "clean/", "noisy": NOISY}, "a path beside a dataset, got ndarray"),
        ({"images": CLEAN, "noisy": NOISY, "corruption": "gaussian"}, "corruption: must be none"),
        ({"images": CLEAN, "noisy": NOISY[:MIN_SAMPLES]}, r"shape of the clean ones .*got \(10"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, message, tmp_path, monkeypatch):
    """Before anything is written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises((OptionError, aesearch.AesearchError), match=message):
        aesearch.search(**arguments, quiet=True)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def moved(tiny_spec, tmp_path_factory):
    """A finished study of four files, and where they are now."""
    folder = tmp_path_factory.mktemp("moved")
    parts = {"dataset": CLEAN[:70], "noisy": NOISY[:70], "test": CLEAN[70:]}
    parts |= {"noisy_test": NOISY[70:], "other": NOISY[70:][::-1]}
    for name, images in parts.items():
        np.save(folder / f"{name}.npy", images)
    names = ("dataset", "noisy", "test", "noisy_test")
    spec = tiny_spec(*OF_STUDY, *(f"data.{name}={folder}/{name}.npy" for name in names))
    where = {"storage": f"{folder}/s.db", "out": folder / "run"}
    found = aesearch.search(spec=spec, workers=1, quiet=True, **where)
    (folder / "now").mkdir()
    for name in parts:
        (folder / f"{name}.npy").rename(folder / "now" / f"{name}.npy")
    return found, {name: folder / "now" / f"{name}.npy" for name in (*names, "other")}


def of_command(*words):
    """What a command prints, which must end well."""
    told = CliRunner().invoke(app, [str(word) for word in words])
    assert told.exit_code == 0, told.output
    return told.stdout


def options_of(where):
    return [word for name, path in where.items() for word in (f"--{name.replace('_', '-')}", path)]


def test_images_that_moved_are_found_where_they_are_now(moved, tmp_path):
    """By train, verify and evaluate, from Python and on the command line."""
    found, now = moved
    where = {name: path for name, path in now.items() if name != "other"}
    assert aesearch.verify(found.folder, **where, quiet=True).verdict == "identical"
    trained = aesearch.train(found.folder, out=tmp_path / "again", **where, quiet=True)
    assert trained.test_mse == pytest.approx(found.test_mse, rel=1e-6)
    study = aesearch.open_study("pairs", found.storage)
    document = study.evaluate(**where, bootstrap=9).evaluation.document
    assert document.metrics.overall.mse.mean == pytest.approx(found.test_mse, rel=1e-6)
    options = options_of(where)
    assert "identical" in of_command("verify", found.folder, *options, "--quiet")
    of_command("train", found.folder, "--out", tmp_path / "more", *options, "--quiet")
    told = of_command("evaluate", found.folder, "--bootstrap", 9, *options, "--json")
    assert json.loads(told)["metrics"]["overall"]["mse"]["mean"] == pytest.approx(found.test_mse)


@pytest.mark.parametrize("name", ["noisy", "noisy_test", "test"])
def test_others_in_their_place_are_refused(moved, name):
    """The fingerprint is over all of them."""
    found, now = moved
    where = {known: path for known, path in now.items() if known != "other"}
    np.save(now["other"], np.load(where[name])[::-1])
    with pytest.raises(StudyMismatchError, match="images must be those of"):
        aesearch.verify(found.folder, **where | {name: now["other"]}, quiet=True)
    study = aesearch.open_study("pairs", found.storage)
    with pytest.raises(StudyMismatchError, match="images it was made with"):
        study.evaluate(**where | {name: now["other"]})


def test_what_moved_is_named(moved):
    """With the options that say where it is; what is given already is not asked for."""
    found, now = moved
    with pytest.raises(DataMissingError, match="--dataset and --test and --noisy and --noisy-test"):
        aesearch.verify(found.folder, quiet=True)
    where = {name: now[name] for name in ("dataset", "test", "noisy")}
    with pytest.raises(DataMissingError, match=r"say where they are with --noisy-test$"):
        aesearch.verify(found.folder, **where, quiet=True)
