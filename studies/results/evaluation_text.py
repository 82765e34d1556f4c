"""The main numbers of an evaluation, and how they are told in plain words."""

from collections.abc import Mapping
from typing import Any

METRICS = ("mse", "psnr", "binary_accuracy", "ssim")


def evaluation_numbers(document: Mapping[str, Any]) -> dict[str, Any]:
    """Give what of an evaluation belongs in a summary.

    Returns
    -------
    dict
        ``seed_index, n_test, encoding_dim, n_live_units``; the four metrics over all test images
        (``mean, low, high``, or None); ``pca``: its ``encoding_dim`` and metrics.
    """
    overall, pca = document["metrics"]["overall"], document["pca"]
    names = ("seed_index", "n_test", "encoding_dim", "n_live_units")
    return {
        **{name: document[name] for name in names},
        **{name: overall[name] for name in METRICS},
        "pca": {name: pca[name] for name in ("encoding_dim", *METRICS)},
    }


def own_corruption(
    document: Mapping[str, Any] | None, training: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """Find the row of the robustness that is the corruption which the study trained against.

    Parameters
    ----------
    training : mapping
        Of the resolved specification.
    """
    kind, level = training.get("corruption"), training.get("validation_corruption_level")
    # The other kinds have no values outside [0, 1] to cut off.
    clamped = training.get("corruption_clamp", True) or kind not in ("gaussian", "uniform")
    for row in (document or {}).get("robustness") or ():
        if (row["corruption"], row["level"], row["clamped"]) == (kind, level, clamped):
            return dict(row)
    return None


def evaluation_lines(found: Mapping[str, Any] | None) -> list[str]:
    """Tell ``evaluation_numbers`` in a few lines; none of nothing."""
    if found is None:
        return []
    n_live, n_units = found["n_live_units"], found["encoding_dim"]
    live = "all units in use" if n_live == n_units else f"{n_live} of {n_units} units in use"
    model = f"seed {found['seed_index']}; encoding dimension {n_units}, {live}"
    parts = [f"PSNR {interval_text(found['psnr'], '.2f')} dB"]
    if found["ssim"] is not None:
        parts.append(f"SSIM {interval_text(found['ssim'], '.3f')}")
    parts.append(f"binary accuracy {interval_text(found['binary_accuracy'], '.4f')}")
    return [
        f"The exported model ({model}) on the test set, with 95% bootstrap intervals:",
        f"  MSE {interval_text(found['mse'], '#.4g')}, {', '.join(parts)}",
        f"  {baseline_text(found)}",
        *_denoised_lines(found.get("denoised")),
    ]


def _denoised_lines(row: Mapping[str, Any] | None) -> list[str]:
    if row is None:
        return []
    noise = f"{row['corruption']} {row['level']:g}"
    given = f"MSE {row['input_mse']:#.4g}, PSNR {row['input_psnr']:.2f} dB"
    made = f"MSE {row['mse']:#.4g}, PSNR {row['psnr']:.2f} dB"
    return [f"  of images corrupted by {noise} ({given}) it makes: {made}"]


def interval_text(value: Mapping[str, float], digits: str) -> str:
    """Write a mean with its interval, each in the given format: ``0.012 [0.011, 0.013]``."""
    return f"{value['mean']:{digits}} [{value['low']:{digits}}, {value['high']:{digits}}]"


def baseline_text(found: Mapping[str, Any]) -> str:
    """Say what principal components reach, and how the model's error compares with theirs."""
    pca, mse = found["pca"], found["mse"]["mean"]
    ssim = "" if pca["ssim"] is None else f", SSIM {pca['ssim']:.3f}"
    same = "the same dimension" if pca["encoding_dim"] == found["encoding_dim"] else "dimension"
    text = (
        f"PCA of {same} ({pca['encoding_dim']}): MSE {pca['mse']:#.4g}, PSNR {pca['psnr']:.2f} dB"
    )
    if pca["mse"] <= 0.0:
        return text + ssim
    return f"{text}{ssim}; the model's MSE is {against(mse, pca['mse'])}"


# Below it there is nothing but rounding in a mean squared error of intensities in [0, 1].
_EXACT = 1e-12


def against(mse: float, pca: float) -> str:
    """Say how an error compares with that of principal components, which is above 0.

    Examples
    --------
    >>> against(0.01, 0.02), against(0.03, 0.02), against(1e-8, 1e-16)
    ('50% lower', '50% higher', 'higher: they reconstruct the images exactly')
    """
    if pca < _EXACT < mse:
        return "higher: they reconstruct the images exactly"
    change = 100 * (1 - mse / pca)
    return f"{abs(change):.0f}% {'lower' if change >= 0 else 'higher'}"
