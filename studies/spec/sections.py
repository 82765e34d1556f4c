"""The sections of a specification but the space: every setting with its default and meaning."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from aesearch.studies.spec.dimensions import (
    Activation,
    Architecture,
    CodeActivation,
    Corruption,
    CorruptionLevel,
    Dropout,
    EncodingDim,
    LearningRate,
    Optimizer,
    Schedule,
    Section,
    Shortcut,
    WeightDecay,
    hidden_widths,
)
from aesearch.studies.spec.problems import broken, must

Auto = Literal["auto"]
# Far above any real study: a slip of the keyboard must not create a billion rows.
LARGEST_COUNT = 1_000_000
PositiveCount = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]


def _count_or_auto(least: int) -> BeforeValidator:
    def check(value: Any) -> Any:
        if value == "auto" or (type(value) is int and value >= least):
            return value
        raise broken(must(f"be a whole number >= {least} or auto", value))

    return BeforeValidator(check)


AutoCount = Annotated[Annotated[int, Field(ge=1)] | Auto, _count_or_auto(1)]
AutoPositiveCount = Annotated[PositiveCount | Auto, _count_or_auto(1)]
AutoCountFromZero = Annotated[Annotated[int, Field(ge=0)] | Auto, _count_or_auto(0)]


def _widths_or_auto(value: Any) -> Any:
    if value == "auto":
        return value
    try:
        return hidden_widths(value)
    except ValueError:
        rule = "be widths >= 1 such as 256-128, [256, 128] or none, or auto"
        raise broken(must(rule, value)) from None


HiddenWidths = Annotated[
    tuple[int, ...] | Auto,
    BeforeValidator(_widths_or_auto, json_schema_input_type=list[int] | int | str),
]


class ResizeSpec(Section):
    """The size that every image is brought to: a square."""

    side: Annotated[int, Field(ge=8, le=4096)] = Field(description="Pixels a side; >= 8.")
    how: Literal["crop", "fit", "stretch"] = Field(
        default="crop",
        description="crop: the largest square in the middle; fit: the whole image on a square of "
        "data.background; stretch: the whole image, its sides changed.",
    )


def _resize(value: Any) -> Any:
    """Take ``64``, ``"64"`` or ``"64-fit"`` for a section."""
    if type(value) is int:
        return {"side": value}
    if not isinstance(value, str):
        return value
    side, _, how = value.strip().partition("-")
    if not side.isdecimal() or how not in ("", "crop", "fit", "stretch"):
        raise broken(must("be a side such as 64, or 64-crop, 64-fit or 64-stretch", value))
    return {"side": int(side), **({"how": how} if how else {})}


def _image_shape(value: Any) -> Any:
    if value is None:
        return value
    sizes = value.split("x") if isinstance(value, str) else value
    if isinstance(sizes, list | tuple) and len(sizes) in (2, 3):
        found = tuple(int(size) if str(size).isdecimal() else 0 for size in sizes)
        if min(found) > 0:
            return found
    rule = "be height and width, with the channels before or behind them, such as 28x28, 32x32x3"
    raise broken(must(rule, value))


ImageShape = Annotated[
    tuple[int, ...], BeforeValidator(_image_shape, json_schema_input_type=list[int] | str)
]


class DataSpec(Section):
    """Which images, which of them, and how they are read."""

    dataset: str = Field(
        default="digits",
        min_length=1,
        description="Name of a data set, or path of a .npz, .npy, .h5 or .csv file or a folder.",
    )
    data_dir: str | None = Field(
        default=None,
        description="Where named data sets are kept; null for the user's cache folder.",
    )
    test_fraction: OpenFraction = Field(
        default=0.2,
        description="Share of the images set aside for the test, in (0, 1); used only where the "
        "data set has no test set of its own.",
    )
    limit: int | None = Field(
        default=None,
        ge=20,
        description="Use only the first so many training images, or where they lie class by class "
        "so many of all; null for all.",
    )
    test: str | None = Field(
        default=None,
        min_length=1,
        description="File or folder with the test set; null for the data set's own or a drawn one.",
    )
    noisy: str | None = Field(
        default=None,
        min_length=1,
        description="File or folder with a noisy image for each of data.dataset, which the network "
        "learns to clean: in a folder by the same name, in a file (or an array of the archive) at "
        "the same place; null for none.",
    )
    noisy_test: str | None = Field(
        default=None,
        min_length=1,
        description="The same for data.test, or for the test set of an archive; null for none.",
    )
    labels: str | None = Field(
        default=None,
        min_length=1,
        description="Table (CSV) beside a folder: in each row the name of an image file and its "
        "label; null for folders as classes.",
    )
    groups: str | None = Field(
        default=None,
        min_length=1,
        description="Images that belong together (a patient, a film) and are never on both sides "
        "of a fold, of the test set or of what stops the training: folder for those of one folder, "
        "a column of data.labels or of the table, an array of the archive, or a CSV of files and "
        "groups; null for none.",
    )
    stratify: bool = Field(
        default=False,
        description="Whether folds, and a test set that is drawn, have the classes in the same "
        "shares as all images.",
    )
    resize: Annotated[
        ResizeSpec | None,
        BeforeValidator(_resize, json_schema_input_type=ResizeSpec | int | str | None),
    ] = Field(
        default=None,
        description="Size that every image is brought to: a side, such as 64, or 64-crop, 64-fit, "
        "64-stretch, where they are not of one size; null for images as they are.",
    )
    colour: Literal["auto", "grey", "rgb"] = Field(
        default="auto",
        description="grey: one channel; rgb: three; auto: three where any image has colours.",
    )
    background: Literal["white", "black"] = Field(
        default="white",
        description="What lies behind transparent pixels, and beside an image that is made to fit.",
    )
    white: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="Value of a white pixel, where black is 0 and white is neither 255 in integers "
        "nor 1 in floats: 4095 for 12 bits, 65535 for 16; null for the usual one.",
    )
    pages: Literal["first", "images", "channels"] = Field(
        default="first",
        description="Of image files with several pages (TIFF stacks, animations): first reads the "
        "first, images each as an image, channels all as the channels of one image.",
    )
    bad_files: Literal["stop", "skip"] = Field(
        default="stop",
        description="Image files that cannot be read: stop and list them, or skip and list them.",
    )
    delimiter: Literal["auto", ",", ";", "|", "tab", "space"] = Field(
        default="auto", description="What stands between the cells of a table."
    )
    image_shape: ImageShape | None = Field(
        default=None,
        description="Axes in which the rows of a table, or of any (sample, pixel), are unrolled: "
        "28x28, 32x32x3 (a pixel's colours are neighbours), 3x32x32 (one colour after the other); "
        "null for squares, in colours as 32x32x3.",
    )


class DenseSpec(Section):
    """Dense networks."""

    hidden: HiddenWidths = Field(
        default="auto",
        description="Widths of the encoder's hidden layers, mirrored in the decoder: a list, "
        "words such as 256-128 or none, or auto for two layers: half the values of an "
        "image (at least 128, at most 2048, and no more than 20 million weights take), "
        "and half of that.",
    )


class ConvSpec(Section):
    """Convolutional networks."""

    channels: Annotated[
        tuple[PositiveCount, ...], Field(strict=False, min_length=3, max_length=3)
    ] = Field(default=(16, 32, 64), description="Channels of the three convolutions.")
    hidden: PositiveCount = Field(
        default=128,
        description="Width of the linear layer between the convolutions and the code.",
    )


class ModelSpec(Section):
    """The network where the space does not vary it."""

    architecture: Architecture = Field(default="dense", description="Kind of network.")
    encoding_dim: EncodingDim = Field(default=16, description="Size of the code; >= 1.")
    dropout: Dropout = Field(
        default=0.0,
        description="Probability in [0, 1) of dropping a unit of a hidden layer or of a relu code.",
    )
    code_activation: CodeActivation = Field(
        default="linear", description="Activation of the code; relu kills some of its units."
    )
    activation: Activation = Field(
        default="gelu", description="Activation of the layers before and behind the code."
    )
    shortcut: Auto | Shortcut = Field(
        default="auto",
        description="pca: linear maps to the code and back beside the layers, which start as the "
        "principal components of the training images, so that the network starts as PCA; needs a "
        "linear code and output clamp. auto is pca for such networks, unless an image has more "
        "than 65,536 values. A relu code that is searched beside a linear one has none.",
    )
    output: Auto | Literal["clamp", "sigmoid"] = Field(
        default="auto",
        description="How a reconstruction gets into [0, 1]: clamp cuts it off, sigmoid bends it; "
        "auto is clamp where there is a shortcut, else sigmoid.",
    )
    initialization: Literal["by-architecture", "torch", "he"] = Field(
        default="by-architecture",
        description="Of the weights of the layers: torch's default, or he: normal with variance "
        "2 / fan-in; by-architecture is torch for dense networks, he for convolutional ones.",
    )
    dense: DenseSpec = Field(default=DenseSpec(), description="Dense networks only.")
    conv: ConvSpec = Field(default=ConvSpec(), description="Convolutional networks only.")


class TrainingSpec(Section):
    """How a network trains where the space does not vary it."""

    optimizer: Optimizer = Field(
        default="adamw",
        description="adam adds weight decay to the gradient (L2), adamw decouples.",
    )
    learning_rate: LearningRate = Field(default=3e-3, description="Learning rate; > 0.")
    weight_decay: WeightDecay = Field(
        default=0.3,
        description="Weight decay; >= 0. Of adam and sgd, which add it to the gradient, 1e-5 where "
        "nothing is said, and from 1e-7 to 1e-3 in the space.",
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.9, description="Momentum in [0, 1); sgd only."
    )
    schedule: Schedule = Field(
        default="none", description="How the learning rate changes over the epochs."
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.95, description="Factor per epoch in (0, 1]; exponential schedule only."
    )
    factor: OpenFraction = Field(
        default=0.1, description="Factor in (0, 1) at a plateau; plateau schedule only."
    )
    patience: PositiveCount = Field(
        default=10, description="Epochs without progress that make a plateau; plateau only."
    )
    averaging: Literal["ema", "none"] = Field(
        default="ema",
        description="ema: an exponential moving average of the weights is what is validated, "
        "stopped by, scored and delivered.",
    )
    averaging_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.998,
        description="Decay per step of that average, in [0, 1); at step t it is at most "
        "(1 + t) / (10 + t).",
    )
    batch_size: AutoCount = Field(
        default="auto",
        description="Images per gradient step, or auto. auto goes by the number of training "
        "images: a 240th of them within 32 to 256, or a 60th within 32 to 1000 where epochs is a "
        "number.",
    )
    epochs: AutoPositiveCount = Field(
        default="auto",
        description="auto scores a trial as it would be delivered, stopped early; a number "
        "trains every trial so long. auto: a trial's score on a fold is the error of the network "
        "that the retraining would deliver there (stopped early by an inner held-out share, "
        "measured once on the fold), fold 0 comes first, and only trials that do well there train "
        "on the others. A number: so many epochs on all folds, scored by the last score_epochs of "
        "them.",
    )
    corruption: Corruption = Field(
        default="none",
        description="Train to denoise: inputs are corrupted like this, targets are the clean "
        "images. Validation images are corrupted too, always in the same way.",
    )
    corruption_level: CorruptionLevel = Field(
        default=0.3,
        description="How strongly training images are corrupted. Standard deviation (gaussian), "
        "width of the interval that is added from zero on (uniform), share of the pixels that "
        "turn black or white (salt-and-pepper), side of the black square as a share of the "
        "image's shorter side (occlusion). Intensities are in [0, 1].",
    )
    corruption_clamp: bool = Field(
        default=True, description="Cut corrupted intensities to [0, 1]; gaussian and uniform only."
    )
    validation_corruption_level: CorruptionLevel | None = Field(
        default=None,
        description="Level of the validation images, one for all trials; null takes "
        "corruption_level.",
    )


class StopSpec(Section):
    """When a search ends before all of its trials; either of them is enough."""

    no_improvement: PositiveCount | None = Field(
        default=None,
        description="No further trial starts once so many in a row were no better than the best.",
    )
    target: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="No further trial starts once the best has a score of at most this.",
    )

    @model_validator(mode="after")
    def _has_a_rule(self) -> "StopSpec":
        if self.no_improvement is None and self.target is None:
            raise broken(must("have no_improvement, target or both", "neither"))
        return self


Objective = Literal["mse", "encoding_dim", "n_parameters"]


def _objectives(value: Any) -> Any:
    """Take ``mse,encoding_dim`` for a list."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Objectives = Annotated[
    tuple[Objective, ...],
    Field(strict=False),
    BeforeValidator(_objectives, json_schema_input_type=list[Objective] | str),
]


class SearchSpec(Section):
    """How the search goes through the space and what it makes of the folds."""

    folds: Annotated[int, Field(ge=2)] = Field(
        default=3, description="Parts of the cross-validation; >= 2."
    )
    trials: PositiveCount = Field(default=50, description="Trials of the whole study.")
    sampler: Literal["auto", "gp", "tpe", "random", "grid", "qmc"] = Field(
        default="auto",
        description="How the next configurations are suggested: gp (a Gaussian process) and tpe "
        "learn from results; auto is gp, and tpe for more than 500 trials.",
    )
    pruner: Literal["none", "median", "halving", "hyperband"] = Field(
        default="halving",
        description="How hopeless trials are stopped early, on their mean over the folds. Where it "
        "is not given, a grid has none, so that every cell has its score.",
    )
    warmup_epochs: AutoCountFromZero = Field(
        default="auto",
        description="No trial is pruned before so many epochs; auto is a twentieth of the epochs, "
        "or as many as take 150 steps where training.epochs is auto.",
    )
    reduction_factor: Annotated[int, Field(ge=2)] = Field(
        default=4, description="One in so many trials survives a rung; halving and hyperband only."
    )
    startup_trials: AutoCountFromZero = Field(
        default="auto",
        description="The first so many trials are suggested at random by samplers that learn (gp, "
        "tpe), and never pruned where the number of epochs is fixed; median prunes once so many "
        "are complete. auto is 5 for gp, else 10, and one more for each size of a list that is "
        "searched with epochs of auto.",
    )
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Seconds after which no new trial starts; null for no limit."
    )
    stop: StopSpec | None = Field(
        default=None,
        description="When the search ends before all of its trials; null for not at all.",
    )
    objectives: Objectives = Field(
        default=("mse",),
        description="Of what a good trial has little: mse, its score, and beside it encoding_dim, "
        "n_parameters (weights and biases of its network) or both. With several, the summary has "
        "the Pareto front: trials than which no other is smaller in one and no larger in the rest. "
        "The search itself goes by the mse.",
    )
    select: Literal["best", "one-se", "knee"] = Field(
        default="best",
        description="best: lowest mean; one-se: smallest code within one standard error of it; "
        "knee: where the Pareto front of search.objectives bends most. With objectives beside mse, "
        "one-se takes the smallest by them, in their order.",
    )
    max_parameters: PositiveCount | None = Field(
        default=None,
        description="Weights and biases that a network may have at most; null for no limit. No "
        "configuration with more is tried, what never fits is left out of the space, and hidden "
        "widths that are auto get narrower.",
    )
    score_epochs: AutoCount = Field(
        default="auto",
        description="A fold's score is its mean validation loss over so many last epochs; auto "
        "takes 3, or all there are. Only where training.epochs is a number.",
    )
    unstable_loss: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=0.1,
        description="A trial is never chosen if on any fold the last validation loss (mean squared "
        "error per pixel) is above this.",
    )
    unstable_oscillation: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=0.5,
        description="A trial is never chosen if a fold's validation loss climbs, at the end of "
        "training, above an earlier low by more than this share of its median.",
    )
    generation_size: AutoCount = Field(
        default="auto",
        description="Trials that are suggested and trained together; auto goes by device and size.",
    )
    lookahead: AutoCount = Field(
        default="auto",
        description="Generation j starts when all up to j - lookahead are finished; auto goes by "
        "device and size.",
    )

    @field_validator("objectives")
    @classmethod
    def _of_the_mse(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        if "mse" not in objectives or len(set(objectives)) < len(objectives):
            raise broken(must("name mse, and each objective once", list(objectives)))
        return objectives

    @model_validator(mode="before")
    @classmethod
    def _whole_grid(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or raw.get("sampler") != "grid":
            return raw
        return {"pruner": "none", **raw}


class RetrainSpec(Section):
    """How the chosen configuration is trained for good."""

    seeds: PositiveCount = Field(default=3, description="Networks trained, each from its own seed.")
    max_epochs: AutoPositiveCount = Field(
        default="auto",
        description="Epochs at most; auto is 200, or as many as take 5,000 steps, within 20 to "
        "500, where training.epochs is auto.",
    )
    patience: PositiveCount = Field(
        default=20, description="Stop after so many epochs without progress on the held-out part."
    )
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=1e-3, description="Smallest fall of the loss that counts as progress."
    )
    min_delta_mode: Literal["relative", "absolute"] = Field(
        default="relative",
        description="Whether min_delta is a share of the loss, or a mean squared error per pixel.",
    )
    holdout: OpenFraction = Field(
        default=0.1,
        description="Share of the training images held out for early stopping, in (0, 1).",
    )


def _levels(default: tuple[float, ...], description: str) -> Any:
    return Field(default=default, strict=False, max_length=50, description=description)


_Level = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(gt=0, le=1)]


class RobustnessSpec(Section):
    """How strongly the test images are corrupted, each kind at several levels; [] for none."""

    gaussian: tuple[_Level, ...] = _levels(
        (0.1, 0.3, 0.5, 1.0, 2.0), "Standard deviations of added noise; intensities are in [0, 1]."
    )
    uniform: tuple[_Level, ...] = _levels(
        (1.0,), "Noise between zero and this is added to every pixel."
    )
    salt_and_pepper: tuple[_Share, ...] = _levels(
        (0.1, 0.2, 0.3, 0.4, 0.5), "Shares of the pixels, in (0, 1], that turn black or white."
    )
    occlusion: tuple[_Share, ...] = _levels(
        (0.5,), "Sides of a black square, as shares in (0, 1] of the image's shorter side."
    )


class EvaluationSpec(Section):
    """How the retrained model is measured on the test set."""

    bootstrap: PositiveCount = Field(
        default=1000, description="Resamples of the test images behind every interval."
    )
    robustness: RobustnessSpec = Field(
        default=RobustnessSpec(), description="Corrupted inputs, held against the clean originals."
    )


class ComputeSpec(Section):
    """Where and how it is computed."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto",
        description="What it trains on; auto is cuda where there is such a GPU, else cpu; mps is a "
        "GPU of Apple.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Type of the arithmetic; auto is bfloat16 for large problems on a CPU "
        "that is fast at it, else float32.",
    )
    population: AutoCount = Field(
        default="auto",
        description="Members trained as one batch, at most; auto goes by device and size.",
    )
    threads: AutoCount = Field(
        default="auto", description="Threads of each worker on a CPU; auto is 1."
    )
