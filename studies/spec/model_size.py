"""How large the weights of a study's dense networks become, and how large a store takes them."""

from itertools import pairwise

from aesearch.studies.errors import SpecError
from aesearch.studies.spec.dimensions import hidden_name, hidden_widths
from aesearch.studies.spec.resolved import ResolvedSpec

# PostgreSQL gives bytes back as twice as many hexadecimal digits, in at most 2^30 bytes; SQLite
# takes 10^9 bytes. Something is left for what stands beside the weights.
LARGEST_WEIGHTS = {"postgresql": 500_000_000, "sqlite": 950_000_000}

_WEIGHT_BYTES = 4  # float32
_BEYOND_ALL = 1 << 53


def check_weights(spec: ResolvedSpec, pixels: int, backend: str) -> None:
    """Refuse networks whose weights the store could not keep, or not give back.

    Convolutional networks need no such limit: none that trains at all comes near it.

    Parameters
    ----------
    spec : ResolvedSpec
        Resolved.
    pixels : int
        Values of one image.
    backend : {"sqlite", "postgresql"}
        What the store is.

    Raises
    ------
    SpecError
        With the setting that makes them so large.
    """
    architecture = spec.space.architecture_dimension
    hidden, code = spec.space.hidden, spec.space.encoding_dim
    kinds = (spec.model.architecture,) if architecture is None else architecture.choices
    if "dense" not in kinds:
        return
    candidates = [spec.model.dense.hidden]
    if hidden is not None:
        candidates = [hidden_widths(name) for name in hidden.choices]
    encoding_dim = spec.model.encoding_dim if code is None else int(code.nearest(_BEYOND_ALL))
    sizes = {widths: _dense_bytes((pixels, *widths, encoding_dim)) for widths in candidates}
    widths = max(sizes, key=lambda key: sizes[key])
    limit = LARGEST_WEIGHTS[backend]
    if sizes[widths] <= limit:
        return
    path = "model.dense.hidden" if hidden is None else "space.hidden"
    kind = {"postgresql": "a PostgreSQL database", "sqlite": "an SQLite file"}[backend]
    rule = f"make networks of at most {limit // 10**6} MB, which is what {kind} keeps"
    got = f"{sizes[widths] // 10**6} MB with {hidden_name(widths)} units on {pixels:,} values"
    remedy = "give fewer units, smaller images, or --architecture conv"
    raise SpecError("study", [f"{path}: must {rule}, got {got} of an image; {remedy}"])


def _dense_bytes(widths: tuple[int, ...]) -> int:
    """Size of the encoder with these widths, and of its mirror image: weights and biases."""
    weights = sum(one * other for one, other in pairwise(widths))
    biases = sum(widths[1:]) + sum(widths[:-1])
    return _WEIGHT_BYTES * (2 * weights + biases)
