"""What the report says of the retrained model: its test numbers, and what they mean."""

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from aesearch.studies.report.look import count
from aesearch.studies.results.evaluation_text import own_corruption
from aesearch.studies.results.records import StudySnapshot
from aesearch.studies.results.summary import seeds_apart_text, value_text

ALIKE = 1.1  # ratio of two errors below which neither is called the better one


def scale(
    snapshot: StudySnapshot, facts: Mapping[str, Any], document: Mapping[str, Any] | None
) -> Markup:
    """Give the test number a scale: PCA of that size, or the noise that was to be removed."""
    return _denoised(snapshot, document) if facts["denoising"] else _against_pca(document)


def retrained(facts: Mapping[str, Any], document: Mapping[str, Any] | None) -> Markup:
    """Say what the retrained winner reaches on the test set."""
    if facts["winner"] is None:
        return Markup("")
    retrain = facts["retrain"]
    if retrain is None:
        return Markup("It has not been retrained yet.")
    text = _trained(retrain)
    advice = Markup("")
    if retrain["n_cut_off"]:
        advice = Markup(
            " {} with <code>--set retrain.max_epochs={}</code> to train for longer."
        ).format(
            "Begin a new study" if retrain["longer_is_another_study"] else "Run again",
            2 * retrain["max_epochs"],
        )
    if retrain["seeds_apart"]:
        advice += Markup(
            " <strong>Its seeds lie far apart:</strong> {}. Run again with "
            "<code>--set retrain.seeds={}</code> to see how often that happens."
        ).format(seeds_apart_text(retrain), 2 * len(retrain["seeds"]))
    test = retrain["test_mse"]
    if test is None:
        return text + Markup("; the test set has not been looked at yet.") + advice
    over = "one seed" if test["sd"] is None else "mean ± standard deviation over the seeds"
    clean = "clean images of the " if facts["denoising"] else ""
    text += Markup(", it reaches <strong>{}</strong> on the {}test set ({}).").format(
        value_text(test["mean"], test["sd"]), clean, over
    )
    text += advice
    looks = facts["test_looks"]
    if looks == 1:
        text += Markup(" The test set was looked at once.")
    elif looks > 1:
        text += Markup(
            " The test set was looked at {} times: only the first look is free of bias."
        ).format(looks)
    live, dim = (document or {}).get("n_live_units"), (document or {}).get("encoding_dim")
    if live is not None and dim is not None and live < dim:
        text += Markup(" Only {} of the {} numbers of its code are in use.").format(live, dim)
    return text


def _trained(retrain: Mapping[str, Any]) -> Markup:
    """Say from how many seeds, and what ended their training."""
    n_seeds, n_cut_off = len(retrain["seeds"]), retrain["n_cut_off"]
    limit, patience = retrain["max_epochs"], retrain["patience"]
    text = Markup("Retrained from {}").format(count(n_seeds, "seed"))
    if n_cut_off:
        which = "which" if n_seeds == 1 else f"{n_cut_off} of which"
        return text + Markup(", {} still got better at the limit of {}").format(
            which, count(limit, "epoch")
        )
    if limit is not None and patience is not None and patience >= limit:
        return text + Markup(" for {}").format(count(limit, "epoch"))
    return text + Markup(" until it stopped getting better")


def _against_pca(document: Mapping[str, Any] | None) -> Markup:
    pca, ours = baseline(document)
    if pca is None or ours is None or document is None:
        return Markup("")
    ratio = pca / ours if ours > 0 else math.inf
    if ratio >= ALIKE:
        compared = f"{ratio:.2g} times the error of the autoencoder, {value_text(ours)}"
    elif ratio > 1 / ALIKE:
        compared = f"about what the autoencoder reaches, {value_text(ours)}"
    else:
        compared = f"less than the autoencoder's {value_text(ours)}, so that would serve better"
    return Markup(
        "For scale: PCA, the best linear map through {} numbers, reaches {} on the same images, {}."
    ).format(document["pca"]["encoding_dim"], value_text(pca), compared)


def _denoised(snapshot: StudySnapshot, document: Mapping[str, Any] | None) -> Markup:
    row = own_corruption(document, snapshot.spec["training"])
    if row is None:
        return Markup("")
    return Markup(
        "Test images with that corruption are {} away from the clean ones ({:.1f} dB); what it "
        "makes of them is <strong>{}</strong> away ({:.1f} dB)."
    ).format(value_text(row["input_mse"]), row["input_psnr"], value_text(row["mse"]), row["psnr"])


def baseline(document: Mapping[str, Any] | None) -> tuple[float | None, float | None]:
    """Give the test MSE of PCA and of the model that is exported."""
    if not document:
        return None, None
    pca = (document.get("pca") or {}).get("mse")
    overall = ((document.get("metrics") or {}).get("overall") or {}).get("mse") or {}
    return pca, overall.get("mean")
