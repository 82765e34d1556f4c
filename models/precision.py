"""In which types a population computes."""

import torch

# Type of the weights, and of the activations and gradients.
PRECISIONS = {
    "float32": (torch.float32, torch.float32),
    "float64": (torch.float64, torch.float64),
    "bfloat16": (torch.float32, torch.bfloat16),
}


def sum_dtype(device: torch.device) -> torch.dtype:
    """Type in which losses are added up: float64, which Apple's GPUs do not have."""
    return torch.float32 if device.type == "mps" else torch.float64
