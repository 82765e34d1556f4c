"""In which types a population computes."""

import torch

# Type of the weights, and of the activations and gradients.
PRECISIONS = {
    "float32": (torch.float32, torch.float32),
    "float64": (torch.float64, torch.float64),
    "bfloat16": (torch.float32, torch.bfloat16),
}
