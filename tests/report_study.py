"""A finished study as the report takes it, made of plain records; no store, no training."""

import io
import json
from typing import Any

import numpy as np
from PIL import Image

from aesearch.studies.results import frames
from aesearch.studies.results.evaluation import Evaluation
from aesearch.studies.results.records import (
    Picture,
    RetrainPoint,
    RetrainRecord,
    StudySnapshot,
    TrialRecord,
)
from aesearch.studies.spec.load import load_spec
from aesearch.studies.spec.resolved import resolve

# What the records below are drawn from, whatever the defaults are.
SPACE = (
    "space.architecture.choices=[dense, conv]",
    "space.learning_rate={low: 1.0e-04, high: 1.0e-02, log: true}",
    "space.weight_decay={low: 1.0e-07, high: 1.0e-03, log: true}",
    "space.dropout={low: 0.0, high: 0.5}",
    "training.epochs=20",
    "retrain.max_epochs=200",
)


def report_arguments(n_trials: int = 30, text: str = "pens") -> dict[str, Any]:
    """Make the arguments of ``report_page``; ``text`` stands for every name in the study."""
    rng = np.random.default_rng(5)
    spec = load_spec(overrides=[*SPACE, f"search.trials={n_trials}"])
    spec = spec.model_copy(update={"name": text})
    spec = resolve(spec, image_shape=(1, 8, 8), n_train=1438, device="cpu")
    trials, losses = [], []
    for number in range(n_trials):
        params = {
            "architecture": ("dense", "conv")[number % 2],
            "encoding_dim": (4, 8, 16, 32)[number % 4],
            "learning_rate": float(10 ** rng.uniform(-4, -2)),
            "weight_decay": float(10 ** rng.uniform(-7, -3)),
            "dropout": float(rng.uniform(0, 0.5)),
        }
        value = 0.2 / params["encoding_dim"] + 0.01 * params["dropout"]
        scores = tuple(value + 0.001 * rng.normal(size=3))
        common: dict[str, Any] = {"params": params, "epochs": 20}
        if number % 3 == 1:
            reason = f"pruned at epoch 2 {text}"
            trials.append(TrialRecord(number, "pruned", params, value * 3, reason=reason, epochs=2))
        elif number == 3:
            trials.append(TrialRecord(number, "failed", params, reason=f"loss nan {text}"))
        else:
            unstable = f"the loss oscillates {text}" if number == 5 else None
            common |= {"value": value, "standard_error": 0.0006, "fold_scores": scores}
            trials.append(TrialRecord(number, "complete", unstable=unstable, **common))
        for fold in range(3):
            losses += [
                (number, fold, epoch, value * 1.1, value * (1 + 3 / epoch))
                for epoch in range(1, trials[-1].epochs + 1)
            ]
    evaluation = _evaluation(rng, text)
    image = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 300), dtype=np.uint8)).save(image, format="PNG")
    return {
        "snapshot": StudySnapshot(
            name=text,
            spec=spec,
            n_trials=n_trials,
            trials=tuple(trials),
            retrains=tuple(
                RetrainRecord(seed, 70 + seed, 12, 9, 0.011, "ab" * 32, 0.0101 + seed / 1000)
                for seed in range(2)
            ),
            chosen=min((t for t in trials if t.eligible), key=lambda t: t.value).number,
            test_looks=1,
            facts={
                "dataset": text,
                "image_shape": [1, 8, 8],
                "n_images": 1438,
                "n_test": 359,
                "test_set": f"359 images {text}",
                "n_train_per_fold": 958,
                "n_validation_per_fold": 480,
                "fingerprint": "cd" * 32,
                "split_sha256": "ef" * 32,
                "versions": {"aesearch": "0.1.0", "torch": text},
            },
        ),
        "curves": frames.curves(losses),
        "retrain_curves": [
            RetrainPoint(seed, epoch, 0.05 / epoch, 0.06 / epoch, 1 - 0.06 / epoch)
            for seed in range(2)
            for epoch in range(1, 13)
        ],
        "evaluation": evaluation,
        "pictures": [Picture("samples", f"ten images {text}", image.getvalue())],
    }


def _evaluation(rng: np.random.Generator, text: str) -> Evaluation:
    names = [f"{index} {text}" for index in range(3)]
    interval = {"mean": 0.0101, "low": 0.0099, "high": 0.0104}
    metrics = {"n": 359, "mse": interval, "psnr": interval, "binary_accuracy": interval}
    metrics["ssim"] = None
    baseline = {"encoding_dim": 32, "mse": 0.02, "psnr": 17.0, "binary_accuracy": 0.9, "ssim": None}
    curve = [{"encoding_dim": dim, "mse": 0.2 / dim**0.5} for dim in (1, 2, 4, 8, 16, 32)]
    document = {
        "n_test": 359,
        "encoding_dim": 32,
        "n_live_units": 31,
        "image_shape": [1, 8, 8],
        "seed_index": 0,
        "metrics": {
            "overall": metrics,
            "per_class": [{"label": name, **metrics} for name in names],
        },
        "pca": baseline | {"clipped": True, "n_train": 1438, "curve": curve},
        "robustness": [
            {"corruption": kind, "level": level, "clamped": clamped, "mse": 0.02 + level / 10}
            | {"input_mse": 0.01 + level / 5, "psnr": 17.0, "input_psnr": 15.0}
            for kind, clamped in (("gaussian", True), ("gaussian", False), ("occlusion", True))
            for level in (0.1, 0.5)
        ],
        "latent": {
            "explained_variance": [0.3, 0.2],
            "points": rng.normal(size=(60, 2)).round(3).tolist(),
            "labels": [index % 3 for index in range(60)],
            "class_names": names,
            "silhouette": 0.12,
            "knn_accuracy": 0.93,
            "k": 5,
        },
        "pictures": [{"name": "samples", "alt": f"ten images {text}"}],
        "bootstrap": 100,
        "omitted": [f"SSIM: too small {text}"],
    }
    return Evaluation.from_json(json.dumps(document))
