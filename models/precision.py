"""In which types a population computes."""

import torch

# Type of the weights, and of the activations and gradients.
PRECISIONS = {
    "float32": (torch.float32, torch.float32),
    "float64": (torch.float64, torch.float64),
    "bfloat16": (torch.float32, torch.bfloat16),
}


def compute_types(
    precision: str, *, architecture: str, device: str
) -> tuple[torch.dtype, torch.dtype]:
    """Types of the weights, and of the activations and gradients.

    Grouped bfloat16 convolutions of torch's CPU library mix neighbouring members where a
    member's channels are odd in number (a NaN of one reaches the next), and gain little.

    Parameters
    ----------
    precision : {"float32", "float64", "bfloat16"}
    architecture : {"dense", "conv"}
    device : {"cpu", "cuda"}
    """
    weights, compute = PRECISIONS[precision]
    if architecture == "conv" and device == "cpu":
        compute = weights
    return weights, compute
