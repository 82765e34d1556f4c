"""The main numbers of an evaluation told in plain words."""

from aesearch.studies.results.evaluation import (
    Corrupted,
    EvaluationSummary,
    PcaBaseline,
    PcaSummary,
)


def evaluation_lines(found: EvaluationSummary | None) -> list[str]:
    """Tell the main numbers in a few lines; none of nothing."""
    if found is None:
        return []
    n_live, n_units = found.n_live_units, found.encoding_dim
    live = "all units in use" if n_live == n_units else f"{n_live} of {n_units} units in use"
    model = f"seed {found.seed_index}; encoding dimension {n_units}, {live}"
    parts = [f"PSNR {found.psnr.text('.2f')} dB"]
    if found.ssim is not None:
        parts.append(f"SSIM {found.ssim.text('.3f')}")
    parts.append(f"binary accuracy {found.binary_accuracy.text('.4f')}")
    return [
        f"The exported model ({model}) on the test set, with 95% bootstrap intervals:",
        f"  MSE {found.mse.text('#.4g')}, {', '.join(parts)}",
        f"  {baseline_text(found.pca, mse=found.mse.mean, encoding_dim=n_units)}",
        *_denoised_lines(found.denoised),
        *_noisy_lines(found),
    ]


def _denoised_lines(row: Corrupted | None) -> list[str]:
    if row is None:
        return []
    noise = f"{row.corruption} {row.level:g}"
    given = f"MSE {row.input_mse:#.4g}, PSNR {row.input_psnr:.2f} dB"
    made = f"MSE {row.mse:#.4g}, PSNR {row.psnr:.2f} dB"
    return [f"  of images corrupted by {noise} ({given}) it makes: {made}"]


def _noisy_lines(found: EvaluationSummary) -> list[str]:
    if found.noisy is None:
        return []
    given = f"MSE {found.noisy.mse:#.4g}, PSNR {found.noisy.psnr:.2f} dB"
    return [f"  all of the noisy test images, held against the clean ones; as given: {given}"]


def baseline_text(pca: PcaBaseline | PcaSummary, *, mse: float, encoding_dim: int) -> str:
    """Say what principal components reach, and how the model's error compares with theirs."""
    ssim = "" if pca.ssim is None else f", SSIM {pca.ssim:.3f}"
    same = "the same dimension" if pca.encoding_dim == encoding_dim else "dimension"
    text = f"PCA of {same} ({pca.encoding_dim}): MSE {pca.mse:#.4g}, PSNR {pca.psnr:.2f} dB"
    if pca.mse <= 0.0:
        return text + ssim
    return f"{text}{ssim}; the model's MSE is {against(mse, pca.mse)}"


# Below it there is nothing but rounding in a mean squared error of intensities in [0, 1].
_EXACT = 1e-12
# A network that is delivered as PCA differs from it by rounding.
_ALIKE = 1e-4


def against(mse: float, pca: float) -> str:
    """Say how an error compares with that of principal components, which is above 0.

    Examples
    --------
    >>> against(0.01, 0.02), against(0.03, 0.02), against(0.02, 0.02)
    ('50% lower', '50% higher', 'the same')
    >>> against(1e-8, 1e-16)
    'higher: they reconstruct the images exactly'
    """
    if pca < _EXACT < mse:
        return "higher: they reconstruct the images exactly"
    change = 1 - mse / pca
    if abs(change) < _ALIKE:
        return "the same"
    percent = 100 * abs(change)
    return f"{percent:{'.0f' if percent >= 1 else '.1g'}}% {'lower' if change > 0 else 'higher'}"
