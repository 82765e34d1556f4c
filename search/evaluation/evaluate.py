"""The whole evaluation of one model, as numbers and pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from aesearch.data.study_data import Problem
from aesearch.evaluation.baseline import pca_baseline
from aesearch.evaluation.intervals import metric_table
from aesearch.evaluation.latent import codes_of, latent_map, live_units, sample
from aesearch.evaluation.metrics import image_errors, measured
from aesearch.evaluation.pictures import draw_oddest, draw_pictures
from aesearch.evaluation.robustness import robustness
from aesearch.models.autoencoder import Autoencoder
from aesearch.seeds import derive_seed
from aesearch.studies.results.calibration import Calibration, shares_below
from aesearch.studies.results.evaluation import (
    Evaluation,
    Latent,
    NoisyInputs,
    PictureWords,
    StoredCalibration,
)
from aesearch.studies.results.records import Picture
from aesearch.studies.spec.dimensions import Range
from aesearch.studies.spec.resolved import ResolvedSpec

# Training images whose codes are the neighbours of the test codes.
MOST_TRAIN_CODES = 10_000


@dataclass(frozen=True)
class Evaluated:
    """What a model is worth on a test set: in numbers, and in pictures."""

    document: Evaluation
    pictures: list[Picture]


def evaluate(
    model: Autoencoder,
    problem: Problem,
    *,
    seed_index: int,
    calibration: Calibration | None = None,
    check: Callable[[], None] = lambda: None,
) -> Evaluated:
    """Measure a model on the test set.

    Parameters
    ----------
    model : Autoencoder
        On the CPU, in evaluation mode.
    problem : Problem
        Its specification says which corruptions, and how many resamples.
    seed_index : int
        Which of the retrained seeds the model is.
    calibration : Calibration, optional
        What its errors on the test images are held against.
    check : callable
        Called every few seconds; may raise to stop.

    Returns
    -------
    Evaluated
        A function of model and problem, on one kind of machine to the last bit.
    """
    spec = problem.spec
    levels, resamples = noise_levels(spec), spec.evaluation.bootstrap
    images, labels, noisy = problem.test_images, problem.test_labels, problem.test_noisy
    class_names = _short_names(problem.class_names)
    # Sums differ in their last bits with the number of threads, also in NumPy and scikit-learn.
    with threadpool_limits(spec.compute.threads):
        found = measured(lambda _first, batch: model(batch), images, check, inputs=noisy)
        metrics, omitted = metric_table(
            found, labels, class_names, resamples=resamples, seed=spec.seed
        )
        pca = pca_baseline(
            problem.images,
            images,
            encoding_dim=model.encoding_dim,
            curve_dims=_curve_dims(spec, model.encoding_dim),
            seed=spec.seed,
            inputs=noisy,
        )
        if pca.encoding_dim < model.encoding_dim:
            omitted.append(
                f"PCA baseline of {model.encoding_dim} components: there are only "
                f"{pca.encoding_dim}"
            )
        check()
        rows = robustness(model, images, levels, seed=spec.seed, check=check)
        codes = codes_of(model, problem.test_inputs, check)
        latent, left_out = latent_space(model, problem, codes, class_names, check)
        omitted += left_out
        pictures, left_out = draw_pictures(
            model,
            images,
            labels,
            class_names,
            errors=found["mse"],
            levels=levels,
            seed=spec.seed,
            noisy=noisy,
        )
        calibrated = None
        if calibration is not None:
            pictures.append(draw_oddest(model, problem.inputs, calibration))
            errors = found["mse"] if noisy is None else image_errors(model, noisy, check)
            shares = shares_below(calibration.p_values(errors))
            calibrated = StoredCalibration(**calibration.document(), test=shares)
    document = Evaluation(
        n_test=len(images),
        encoding_dim=model.encoding_dim,
        n_live_units=live_units(codes),
        image_shape=list(problem.image_shape),
        seed_index=seed_index,
        metrics=metrics,
        pca=pca,
        robustness=rows,
        latent=latent,
        bootstrap=resamples,
        pictures=[PictureWords(picture.name, picture.alt) for picture in pictures],
        omitted=omitted + left_out,
        calibration=calibrated,
        noisy=None if noisy is None else _given(images, noisy, check),
    )
    # The promise of finite values is kept here, where a failure is one of the evaluation.
    document.to_json()
    return Evaluated(document, pictures)


def _given(images: np.ndarray, noisy: np.ndarray, check: Callable[[], None]) -> NoisyInputs:
    """Measure noisy images as if they were their reconstruction."""
    found = measured(lambda _first, seen: seen, images, check, inputs=noisy)
    return NoisyInputs(float(found["mse"].mean()), float(found["psnr"].mean()))


def noise_levels(spec: ResolvedSpec) -> dict[str, tuple[float, ...]]:
    """Levels by kind of corruption, as ``aesearch.models.corruptions`` names them.

    A denoiser is also measured at the level at which its trials were compared.
    """
    asked = spec.evaluation.robustness.model_dump()
    levels = {name.replace("_", "-"): of_kind for name, of_kind in asked.items()}
    kind, own = spec.training.corruption, spec.training.validation_corruption_level
    if kind != "none" and own and own not in levels[kind]:
        levels[kind] = tuple(sorted({*levels[kind], own}))
    return levels


def _curve_dims(spec: ResolvedSpec, encoding_dim: int) -> list[int]:
    """Dimensions of the baseline's curve: what was searched, and powers of two up to there."""
    dimension = spec.space.encoding_dim
    searched = [encoding_dim]
    if isinstance(dimension, Range):
        searched += [dimension.low, dimension.high]
    elif dimension is not None:
        searched += dimension.choices
    powers = [2**power for power in range(max(searched).bit_length())]
    return sorted({*searched, *powers})


def _short_names(class_names: Sequence[str] | None) -> list[str] | None:
    """Shorten names that begin with their own number, as MNIST's "0 - zero", to the number."""
    if class_names is None:
        return None
    numbered = all(name.startswith(f"{n} - ") for n, name in enumerate(class_names))
    return [str(n) if numbered else name for n, name in enumerate(class_names)]


def latent_space(
    model: Autoencoder,
    problem: Problem,
    codes: np.ndarray,
    class_names: Sequence[str] | None = None,
    check: Callable[[], None] = lambda: None,
) -> tuple[Latent, list[str]]:
    """Describe the codes (sample, unit) of the test images, as ``latent.latent_map`` does."""
    train_codes = train_labels = None
    if problem.labels is not None and problem.test_labels is not None:
        seed = derive_seed(problem.spec.seed, "latent", 2)
        neighbours = sample(len(problem.images), MOST_TRAIN_CODES, seed)
        train_codes = codes_of(model, problem.inputs[neighbours], check)
        train_labels = problem.labels[neighbours]
    return latent_map(
        codes,
        problem.test_labels,
        train_codes,
        train_labels,
        class_names,
        seed=problem.spec.seed,
    )
