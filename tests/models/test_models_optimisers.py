"""The optimisers of a population against ``torch.optim``, one member at a time."""

import pytest
import torch

from aesearch.models.training.optimisers import OPTIMISERS

RATES = [1e-2, 3e-3, 1e-3]
N_PARAMETERS, N_STEPS = 11, 50


def reference(name, start, gradients, rate, decay):
    """The member alone, by ``torch.optim``."""
    parameter = torch.nn.Parameter(start.clone())
    optimiser = {
        "adam": lambda: torch.optim.Adam([parameter], lr=rate, weight_decay=decay),
        "adamw": lambda: torch.optim.AdamW([parameter], lr=rate, weight_decay=decay),
        "sgd": lambda: torch.optim.SGD([parameter], lr=rate, weight_decay=decay, momentum=0.9),
    }[name]()
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimiser.step()
    return parameter.detach()


@pytest.mark.parametrize("by_member", [True, False])
@pytest.mark.parametrize("decays", [(0.0, 0.0, 0.0), (0.0, 1e-2, 1e-1)])
@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_fifty_steps_are_those_of_torch_optim(name, decays, by_member, device):
    """Each member's own rate and decay, by the fused kernel and by passes over all members."""
    if by_member and device != "cpu":
        pytest.skip("members go one by one on a CPU only")
    generator = torch.Generator().manual_seed(5)
    draw = {"generator": generator, "dtype": torch.float64}
    start = torch.randn(3, N_PARAMETERS, **draw)
    gradients = torch.randn(N_STEPS, 3, N_PARAMETERS, **draw)
    weights = start.clone().to(device)
    decay = torch.tensor(decays, dtype=torch.float64)
    optimiser = OPTIMISERS[name](weights, decay, 0.9)
    optimiser._by_member = by_member
    steps = torch.arange(1, N_STEPS + 1)[:, None].expand(-1, 3)
    tables = optimiser.tables(torch.tensor(RATES, dtype=torch.float64), steps)
    for step, gradient in enumerate(gradients):
        row = {name: table[step].to(device) for name, table in tables.items()}
        optimiser.update(row, weights, gradient.clone().to(device))
    expected = [
        reference(name, start[m], gradients[:, m], RATES[m], decays[m]) for m in range(len(RATES))
    ]
    torch.testing.assert_close(weights.cpu(), torch.stack(expected))
