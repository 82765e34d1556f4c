"""Whether a model was trained to denoise, as far as the best.yaml beside it tells."""

from typing import Literal

from aesearch.artifacts.model_path import find_model
from aesearch.studies.errors import SpecError
from aesearch.studies.spec.strict_yaml import parse, read_text

Answer = Literal["yes", "no", "unknown"]


def trained_to_denoise(model: str) -> tuple[Answer, str]:
    """Tell whether a model learned to remove a corruption, and what to say about it.

    Parameters
    ----------
    model : str
        A model file, its run folder or its best.yaml. Weights cannot tell; the specification in
        the best.yaml beside them says which corruption they were trained on.

    Returns
    -------
    answer : {"yes", "no", "unknown"}
    sentence : str
        For the user.
    """
    path = find_model(model)
    best = path.with_name("best.yaml")
    try:
        document, _ = parse(read_text(best), str(best))
        training, noisy = document["training"], document.get("data", {}).get("noisy")
        corruption = str(training.get("corruption", "none"))
    except (SpecError, OSError, KeyError, TypeError, AttributeError):
        return "unknown", (
            f"no readable best.yaml lies beside {path}: whether this model was trained to denoise "
            "is not known"
        )
    if noisy is not None:
        return "yes", "trained on noisy images beside their clean ones"
    if corruption == "none":
        return "no", (
            f"this model was not trained to denoise (training.corruption is none in {best}): "
            "it reconstructs, noise included as far as its code can hold it; "
            "'aesearch run --corruption gaussian' trains a denoiser, --noisy FOLDER one of noise "
            "that you have"
        )
    level = training.get("corruption_level")
    how_much = "" if level is None else f" of level {level:g}"
    return "yes", f"trained to remove {corruption} corruption{how_much}"
