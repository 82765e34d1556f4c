"""What a model reached on the test set, as the store and ``evaluation.json`` hold it."""

import json
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Self

from pydantic import TypeAdapter

from aesearch.studies.results.records import Document
from aesearch.studies.spec.sections import TrainingSpec

METRICS = ("mse", "psnr", "binary_accuracy", "ssim")


@dataclass(frozen=True)
class Interval(Document):
    """A mean over images with its 95% bootstrap interval."""

    mean: float
    low: float
    high: float

    def text(self, digits: str) -> str:
        """Write each in the given format: ``0.012 [0.011, 0.013]``."""
        return f"{self.mean:{digits}} [{self.low:{digits}}, {self.high:{digits}}]"


@dataclass(frozen=True)
class Metrics(Document):
    """The metrics over ``n`` images.

    Attributes
    ----------
    mse : Interval
        Mean squared error per pixel.
    psnr : Interval
        In dB.
    binary_accuracy : Interval
        Share of the values that round to the right 0 or 1.
    ssim : Interval or None
        Structural similarity; None where images are too small for it.
    """

    n: int
    mse: Interval
    psnr: Interval
    binary_accuracy: Interval
    ssim: Interval | None


@dataclass(frozen=True)
class ClassMetrics(Document):
    """The metrics over the ``n`` images of one class; see ``Metrics``."""

    label: str
    n: int
    mse: Interval
    psnr: Interval
    binary_accuracy: Interval
    ssim: Interval | None


@dataclass(frozen=True)
class TestMetrics(Document):
    """The metrics over all test images, and over those of each class.

    Attributes
    ----------
    per_class : list of ClassMetrics or None
        None where the images have no labels, or too many.
    """

    __test__ = False  # nothing that pytest should collect

    overall: Metrics
    per_class: list[ClassMetrics] | None


@dataclass(frozen=True)
class PcaPoint(Document):
    """Mean squared error per pixel of as many principal components."""

    encoding_dim: int
    mse: float


@dataclass(frozen=True)
class PcaBaseline(Document):
    """What principal components of the training images reach on the same images.

    Attributes
    ----------
    encoding_dim : int
        Components: as many as the code has numbers, as far as there are.
    mse, psnr, binary_accuracy, ssim : float
        Means over images; None where undefined.
    clipped : bool
        Whether reconstructions are clipped to [0, 1], which only helps them.
    n_train : int
        Images that they were fitted on.
    curve : list of PcaPoint
        Of other numbers of components, ascending.
    """

    encoding_dim: int
    mse: float
    psnr: float
    binary_accuracy: float
    ssim: float | None
    clipped: bool
    n_train: int
    curve: list[PcaPoint]


@dataclass(frozen=True)
class Corrupted(Document):
    """How well the model gives clean images back from corrupted ones; means over images.

    Attributes
    ----------
    clamped : bool
        Whether corrupted intensities were cut to [0, 1].
    mse, psnr : float
        Of the reconstruction against the clean image.
    input_mse, input_psnr : float
        Of the corrupted input against the clean image.
    """

    corruption: str
    level: float
    clamped: bool
    mse: float
    psnr: float
    input_mse: float
    input_psnr: float


@dataclass(frozen=True)
class Latent(Document):
    """How the codes of the test images lie.

    Attributes
    ----------
    explained_variance : list of float
        Shares that the two main directions hold.
    points : list of [float, float]
        At most 2,000 codes in the plane of these directions.
    labels : list of int or None
        Their classes.
    class_names : list of str or None
        What label 0, 1, … is called.
    silhouette : float or None
        Of the same codes in all dimensions, in [-1, 1].
    knn_accuracy : float or None
        Share of the test codes whose ``k`` nearest training codes vote for their class.
    """

    explained_variance: list[float]
    points: list[list[float]]
    labels: list[int] | None
    class_names: list[str] | None
    silhouette: float | None
    knn_accuracy: float | None
    k: int


@dataclass(frozen=True)
class PictureWords(Document):
    """One picture by the name of its file, and in words what it shows."""

    name: str
    alt: str


@dataclass(frozen=True)
class ShareBelow(Document):
    """Which share of the test images has at most this p-value."""

    p_value: float
    share: float


@dataclass(frozen=True)
class StoredCalibration(Document):
    """Errors of ordinary images that the model did not train on, which p-values are counted by.

    Attributes
    ----------
    source : str
        ``held-out`` or ``out-of-fold``.
    weights_sha256 : str
        Of the model.
    oddest : list of int
        Numbers of the training images with the largest errors, these first.
    errors : list of float
        Ascending; empty where they are left out.
    images : list of int
        Fingerprints of the images that these are of.
    test : list of ShareBelow
    """

    source: str
    weights_sha256: str
    oddest: list[int]
    errors: list[float]
    images: list[int]
    test: list[ShareBelow]


@dataclass(frozen=True)
class PcaSummary(Document):
    """What principal components of that number reach, as means over test images."""

    encoding_dim: int
    mse: float
    psnr: float
    binary_accuracy: float
    ssim: float | None


@dataclass(frozen=True)
class NoisyInputs(Document):
    """How far the noisy test images that a model was given are from their clean ones; means."""

    mse: float
    psnr: float


@dataclass(frozen=True)
class EvaluationSummary(Document):
    """The main numbers of an evaluation.

    Attributes
    ----------
    mse, psnr, binary_accuracy, ssim : Interval
        Over all test images; see ``Metrics``.
    denoised : Corrupted or None
        Under the corruption that the study trained against.
    noisy : NoisyInputs or None
        What the model was given, where the images have noisy ones beside them.
    """

    seed_index: int
    n_test: int
    encoding_dim: int
    n_live_units: int
    mse: Interval
    psnr: Interval
    binary_accuracy: Interval
    ssim: Interval | None
    pca: PcaSummary
    denoised: Corrupted | None
    noisy: NoisyInputs | None = None


@dataclass(frozen=True)
class Evaluation(Document):
    """What a model reached on a test set.

    Attributes
    ----------
    n_test : int
        Images.
    encoding_dim, n_live_units : int
        Numbers of the code, and how many of them vary.
    image_shape : list of int
        Channel, height, width.
    seed_index : int
        Which of the retrained seeds the model is.
    metrics : TestMetrics
    pca : PcaBaseline
    robustness : list of Corrupted
        A row for each corruption and level; noise that may leave [0, 1] has two, clamped first.
    latent : Latent
    bootstrap : int
        Resamples behind every interval.
    pictures : list of PictureWords
    omitted : list of str
        What is left out, and why.
    calibration : StoredCalibration or None
        None where nothing calibrated it; then there is no such key.
    noisy : NoisyInputs or None
        What the model was given, where the images have noisy ones beside them; else there is no
        such key.
    """

    n_test: int
    encoding_dim: int
    n_live_units: int
    image_shape: list[int]
    seed_index: int
    metrics: TestMetrics
    pca: PcaBaseline
    robustness: list[Corrupted]
    latent: Latent
    bootstrap: int
    pictures: list[PictureWords]
    omitted: list[str]
    calibration: StoredCalibration | None = field(default=None, kw_only=True)
    noisy: NoisyInputs | None = field(default=None, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """Give it in plain values, as ``--json`` prints it and files hold it."""
        values = super().to_dict()
        optional = {name: values.pop(name) for name in ("calibration", "noisy")}
        return values | {name: value for name, value in optional.items() if value is not None}

    def without_errors(self) -> Self:
        """Leave out the thousands of errors of the calibration, which only scores are made of."""
        if self.calibration is None:
            return self
        return replace(self, calibration=replace(self.calibration, errors=[], images=[]))

    @classmethod
    def from_json(cls, text: str) -> "Evaluation":
        """Read what ``to_json`` wrote."""
        return _adapter().validate_json(text)

    def to_json(self, indent: int | None = None) -> str:
        """Write it; equal evaluations give equal text.

        Raises
        ------
        ValueError
            A number is not finite.
        """
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def under_own_corruption(self, training: TrainingSpec) -> Corrupted | None:
        """Give the row of the corruption that a study trained against, of its resolved settings."""
        kind, level = training.corruption, training.validation_corruption_level
        # The other kinds have no values outside [0, 1] to cut off.
        clamped = training.corruption_clamp or kind not in ("gaussian", "uniform")
        wanted = (kind, level, clamped)
        found = (r for r in self.robustness if (r.corruption, r.level, r.clamped) == wanted)
        return next(found, None)

    def summary(self, training: TrainingSpec) -> EvaluationSummary:
        """Give the main numbers, of a study with these resolved settings."""
        overall, pca = self.metrics.overall, self.pca
        return EvaluationSummary(
            seed_index=self.seed_index,
            n_test=self.n_test,
            encoding_dim=self.encoding_dim,
            n_live_units=self.n_live_units,
            mse=overall.mse,
            psnr=overall.psnr,
            binary_accuracy=overall.binary_accuracy,
            ssim=overall.ssim,
            pca=PcaSummary(pca.encoding_dim, pca.mse, pca.psnr, pca.binary_accuracy, pca.ssim),
            denoised=self.under_own_corruption(training),
            noisy=self.noisy,
        )


@cache
def _adapter() -> TypeAdapter[Evaluation]:
    return TypeAdapter(Evaluation)
