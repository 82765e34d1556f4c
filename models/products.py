"""Matrix products of a population: one batched product, or the fastest that this CPU has."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

# Multiplications per member, at the width of the widest, from which one call per member pays for
# its overhead.
LARGE_PRODUCT = 4_000_000


def member_products(
    left: Tensor, right: Tensor, *, bias: Tensor | None = None, out: Tensor | None = None
) -> Tensor:
    """Each member's matrix product, plus a bias per column.

    Parameters
    ----------
    left : Tensor, (member, row, inner)
    right : Tensor, (member, inner, column)
    bias : Tensor, (member, column), optional
    out : Tensor, (member, row, column), optional
        Where the result is written.

    Returns
    -------
    Tensor, (member, row, column)
    """
    n_members, n_rows, n_inner = left.shape
    n_columns = right.shape[2]
    linear = _fast_linear()
    if (
        linear is not None
        and left.dtype == torch.float32
        and left.device.type == "cpu"
        and n_rows * n_inner * n_columns >= LARGE_PRODUCT
    ):
        if n_members == 1 and out is None:
            return linear(left[0], right[0].t(), None if bias is None else bias[0]).unsqueeze(0)
        if out is None:
            out = left.new_empty(n_members, n_rows, n_columns)
        for member in range(n_members):
            own_bias = None if bias is None else bias[member]
            out[member].copy_(linear(left[member], right[member].t(), own_bias))
        return out
    if bias is None:
        return torch.bmm(left, right) if out is None else torch.bmm(left, right, out=out)
    return torch.baddbmm(bias.unsqueeze(1), left, right)


@cache
def _fast_linear() -> Callable[[Tensor, Tensor, Tensor | None], Tensor] | None:
    """Return oneDNN's ``inputs @ weight.T + bias``, where this processor and this torch have it.

    With AVX-512 on processors that are not Intel's it is twice as fast as the library
    behind ``torch.bmm``, and nowhere slower on large products. Torch exports it for its
    compiler only, so it is tried on a small product first and left alone if it is missing
    or means something else.
    """
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return None
    try:
        pointwise = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001

        def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            outputs: Tensor = pointwise(inputs, weight, bias, "none", [], "")
            return outputs

        inputs = torch.arange(6.0).view(2, 3)
        weight, bias = torch.arange(12.0).view(4, 3), torch.arange(4.0)
        works = torch.equal(linear(inputs, weight, bias), inputs @ weight.t() + bias)
    except (AttributeError, RuntimeError, TypeError):
        return None
    return linear if works else None
