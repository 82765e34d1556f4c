"""What the report says of the retrained model: its test numbers, and what they mean."""

import math

from markupsafe import Markup

from aesearch.studies.report.look import count
from aesearch.studies.results.evaluation import Corrupted, Evaluation, NoisyInputs
from aesearch.studies.results.records import StudySnapshot
from aesearch.studies.results.summary import Retraining, Summary
from aesearch.studies.results.summary_text import seeds_apart_text
from aesearch.studies.results.text import value_text

ALIKE = 1.1  # ratio of two errors below which neither is called the better one


def scale(snapshot: StudySnapshot, evaluation: Evaluation | None) -> Markup:
    """Give the test number a scale: PCA of that size, or the noise that was to be removed."""
    if evaluation is None:
        return Markup("")
    if evaluation.noisy is not None:
        return _cleaned(evaluation, evaluation.noisy)
    if snapshot.spec.training.corruption == "none":
        return _against_pca(evaluation)
    return _denoised(evaluation.under_own_corruption(snapshot.spec.training))


def retrained(found: Summary, evaluation: Evaluation | None) -> Markup:
    """Say what the retrained winner reaches on the test set."""
    if found.winner is None:
        return Markup("")
    retrain = found.retrain
    if retrain is None:
        return Markup("It has not been retrained yet.")
    text = _trained(retrain)
    advice = Markup("")
    if retrain.n_cut_off:
        advice = Markup(
            " {} with <code>--set retrain.max_epochs={}</code> to train for longer."
        ).format(
            "Begin a new study" if retrain.longer_is_another_study else "Run again",
            2 * retrain.max_epochs,
        )
    if retrain.seeds_apart:
        advice += Markup(
            " <strong>Its seeds lie far apart:</strong> {}. Run again with "
            "<code>--set retrain.seeds={}</code> to see how often that happens."
        ).format(seeds_apart_text(retrain), 2 * len(retrain.seeds))
    test = retrain.test_mse
    if test is None:
        return text + Markup("; the test set has not been looked at yet.") + advice
    over = "one seed" if test.sd is None else "mean ± standard deviation over the seeds"
    clean = "clean images of the " if found.denoising else ""
    text += Markup(", it reaches <strong>{}</strong> on the {}test set ({}).").format(
        value_text(test.mean, test.sd), clean, over
    )
    text += advice
    looks = found.test_looks
    if looks == 1:
        text += Markup(" The test set was looked at once.")
    elif looks > 1:
        text += Markup(
            " The test set was looked at {} times: only the first look is free of bias."
        ).format(looks)
    if evaluation is not None and evaluation.n_live_units < evaluation.encoding_dim:
        text += Markup(" Only {} of the {} numbers of its code are in use.").format(
            evaluation.n_live_units, evaluation.encoding_dim
        )
    return text


def _trained(retrain: Retraining) -> Markup:
    """Say from how many seeds, and what ended their training."""
    n_seeds, n_cut_off = len(retrain.seeds), retrain.n_cut_off
    limit, patience = retrain.max_epochs, retrain.patience
    text = Markup("Retrained from {}").format(count(n_seeds, "seed"))
    if n_cut_off:
        which = "which" if n_seeds == 1 else f"{n_cut_off} of which"
        return text + Markup(", {} still got better at the limit of {}").format(
            which, count(limit, "epoch")
        )
    if patience >= limit:
        return text + Markup(" for {}").format(count(limit, "epoch"))
    return text + Markup(" until it stopped getting better")


def _against_pca(evaluation: Evaluation) -> Markup:
    pca, ours = evaluation.pca.mse, evaluation.metrics.overall.mse.mean
    ratio = pca / ours if ours > 0 else math.inf
    if ratio >= ALIKE:
        compared = f"{ratio:.2g} times the error of the autoencoder, {value_text(ours)}"
    elif ratio > 1 / ALIKE:
        compared = f"about what the autoencoder reaches, {value_text(ours)}"
    else:
        compared = f"less than the autoencoder's {value_text(ours)}, so that would serve better"
    return Markup(
        "For scale: PCA, the best linear map through {} numbers, reaches {} on the same images, {}."
    ).format(evaluation.pca.encoding_dim, value_text(pca), compared)


def _cleaned(evaluation: Evaluation, noisy: NoisyInputs) -> Markup:
    overall, pca = evaluation.metrics.overall, evaluation.pca
    return Markup(
        "The noisy test images are {} away from the clean ones ({:.1f} dB); what it makes of them "
        "is <strong>{}</strong> away ({:.1f} dB). {} principal components of the clean images make "
        "{} of them."
    ).format(
        value_text(noisy.mse),
        noisy.psnr,
        value_text(overall.mse.mean),
        overall.psnr.mean,
        pca.encoding_dim,
        value_text(pca.mse),
    )


def _denoised(row: Corrupted | None) -> Markup:
    if row is None:
        return Markup("")
    return Markup(
        "Test images with that corruption are {} away from the clean ones ({:.1f} dB); what it "
        "makes of them is <strong>{}</strong> away ({:.1f} dB)."
    ).format(value_text(row.input_mse), row.input_psnr, value_text(row.mse), row.psnr)
