"""Studies in experiment trackers: MLflow and Weights & Biases, each an extra."""

from aesearch.trackers import mlflow, wandb

__all__ = ["mlflow", "wandb"]
