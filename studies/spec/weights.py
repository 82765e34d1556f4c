"""How many weights a network has, and what of a space stays within a limit; nothing is built.

| symbol | meaning |
|---|---|
| P | values of one image |
| w | widths of linear layers from first to last, mirrored behind the code |
| d | channels: of the image, then of each convolution |
| z | size of the code |

    linear layers        2 sum(w_i w_(i+1)) + (sum(w) - w_0) + (sum(w) - w_last)
    3 x 3 convolutions   sum(2 * 9 d_i d_(i+1) + d_i + d_(i+1))
    shortcut             2 P z + P
"""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise, product
from math import prod
from typing import Any

from aesearch.studies.errors import SpecError
from aesearch.studies.spec.dimensions import Choices, Params, Range, hidden_name
from aesearch.studies.spec.space import SpaceSpec
from aesearch.studies.spec.study import Configuration, StudySpec

ImageShape = tuple[int, int, int]

_CODE = "encoding_dim"
# What else decides the number of weights.
_NETWORK = ("architecture", "hidden", "code_activation", "channels", "shortcut")
DECIDE_WEIGHTS = (_CODE, *_NETWORK)


def linear_weights(widths: Sequence[int]) -> int:
    """Count weights and biases of linear layers of these widths and of their mirror image."""
    weights = sum(one * other for one, other in pairwise(widths))
    return 2 * weights + sum(widths[1:]) + sum(widths[:-1])


def n_parameters(configuration: Configuration, image_shape: ImageShape) -> int:
    """Count the weights and biases of the network that a configuration makes.

    Parameters
    ----------
    configuration : Configuration
    image_shape : (channel, height, width)
    """
    pixels, code = prod(image_shape), configuration.encoding_dim
    shortcut = pixels * (2 * code + 1) if configuration.shortcut == "pca" else 0
    if configuration.architecture == "dense":
        return linear_weights((pixels, *configuration.hidden, code)) + shortcut
    channels, height, width = image_shape
    depths = (channels, *configuration.channels)
    kernels = sum(18 * one * other + one + other for one, other in pairwise(depths))
    for _ in configuration.channels:
        height, width = (height + 1) // 2, (width + 1) // 2
    n_features = depths[-1] * height * width
    return kernels + linear_weights((n_features, configuration.conv_hidden, code)) + shortcut


def fits(spec: StudySpec, params: Params, image_shape: ImageShape | None) -> bool:
    """Whether a configuration has no more weights than ``search.max_parameters``.

    Parameters
    ----------
    spec : StudySpec
        Resolved.
    params : dict
        By the names of the space; what is absent is as the specification has it.
    image_shape : (channel, height, width) or None
        None where there is no limit.
    """
    limit = spec.search.max_parameters
    if limit is None:
        return True
    assert image_shape is not None, "a limit of weights needs the shape of the images"
    return n_parameters(spec.configuration(params), image_shape) <= limit


def fitted(
    spec: StudySpec, params: Params, image_shape: ImageShape | None, *, keep: Collection[str] = ()
) -> Params | None:
    """Give a configuration as it is where it fits, else the nearest one that does.

    That has the same size of the code and the fewest changes of architecture, widths, channels
    and activation of the code; among several the most weights. It is drawn from no random
    numbers.

    Parameters
    ----------
    spec : StudySpec
        Resolved, with a space of which each value fits somewhere.
    params : dict
        A value for each dimension that its architecture has.
    image_shape : (channel, height, width) or None
        None where there is no limit.
    keep : collection of str
        What must not change.

    Returns
    -------
    dict or None
        None where nothing fits without changing what is kept; never where nothing is.
    """
    if fits(spec, params, image_shape):
        return params
    assert image_shape is not None, "what does not fit has a limit"
    found: list[tuple[int, int, Params]] = []
    for chosen in _combinations(spec, _NETWORK):
        architecture = chosen.get("architecture", spec.model.architecture)
        model = spec.model.model_copy(update={"architecture": architecture})
        default = spec.model_copy(update={"model": model}).default_configuration_params()
        own = {name: chosen.get(name, params.get(name, value)) for name, value in default.items()}
        changed = [name for name in _NETWORK if own.get(name) != params.get(name)]
        if fits(spec, own, image_shape) and not set(changed) & set(keep):
            n_weights = n_parameters(spec.configuration(own), image_shape)
            found.append((len(changed), -n_weights, own))
    return min(found, key=lambda each: each[:2])[2] if found else None


def grid_within(spec: StudySpec, image_shape: ImageShape | None) -> list[Params]:
    """List the configurations of the grid that fit, in its order; see :func:`fits`."""
    grid = spec.space.grid_configurations()
    if spec.search.max_parameters is None:
        return grid
    known: dict[tuple[Any, ...], bool] = {}  # of what decides it: a grid may have 100,000 cells
    found = []
    for params in grid:
        key = tuple(params.get(name) for name in DECIDE_WEIGHTS)
        if key not in known:
            known[key] = fits(spec, params, image_shape)
        if known[key]:
            found.append(params)
    return found


def space_within(spec: StudySpec, image_shape: ImageShape) -> SpaceSpec:
    """Give the space without what fits in no combination: choices, and the end of a range.

    Parameters
    ----------
    spec : StudySpec
        Resolved but for that.

    Raises
    ------
    SpecError
        Nothing fits; says how many weights the smallest network has.
    """
    fitting = [
        params for params in _combinations(spec, DECIDE_WEIGHTS) if fits(spec, params, image_shape)
    ]
    if not fitting:
        raise SpecError("study", [_nothing_fits(spec, image_shape)])
    space = spec.space
    changes: dict[str, Any] = {}
    for name in (_CODE, *_NETWORK[1:]):
        dimension = getattr(space, name)
        if isinstance(dimension, Range):
            high = max(_largest_code(spec, p, image_shape, dimension) for p in fitting if name in p)
            changes[name] = dimension.model_copy(update={"high": high})
        elif dimension is not None:
            kept = tuple(c for c in dimension.choices if any(p.get(name) == c for p in fitting))
            # What none of them has belongs to an architecture that goes.
            changes[name] = dimension.model_copy(update={"choices": kept}) if kept else dimension
    space = space.model_copy(update=changes)
    searched, fixed = space.architecture_dimension, spec.model.architecture
    if searched is None:
        return space
    left = tuple(a for a in searched.choices if any(p["architecture"] == a for p in fitting))
    if left == searched.choices:
        return space
    alone = searched.model_copy(update={"choices": left})
    return space.with_architecture(None if left == (fixed,) else alone, fixed)


def left_out(whole: SpaceSpec, spec: StudySpec) -> list[str]:
    """Name what a specification within a limit no longer has of the whole space.

    Examples
    --------
    ``["architecture conv", "encoding_dim 32", "encoding_dim 64"]``, or ``encoding_dim above 20``
    of a range.
    """
    gone = []
    for name, before in whole.dimensions().items():
        now = spec.space.dimensions().get(name)
        if isinstance(before, Choices):
            kept = now.choices if isinstance(now, Choices) else ()
            if name == "architecture" and now is None:  # one is left, and is searched no more
                kept = (spec.model.architecture,)
            gone += [f"{name} {choice}" for choice in before.choices if choice not in kept]
        elif isinstance(now, Range) and now.high != before.high:
            gone.append(f"{name} above {now.high}")
    return gone


def widths_within(spec: StudySpec, image_shape: ImageShape) -> tuple[int, ...]:
    """Give two hidden widths, the second half the first, with which large codes fit.

    They are the widest that fit around the largest code that fits at all behind layers no
    narrower than itself, and no wider than those of the specification. Where none fits, they are
    the narrowest.

    Parameters
    ----------
    spec : StudySpec
        Resolved, with the widths that it has without a limit.
    """
    widths: tuple[int, ...] = spec.model.dense.hidden  # type: ignore[assignment] # resolved
    limit = spec.search.max_parameters
    assert limit is not None, "there is a limit"
    sizes = spec.space.encoding_dim
    codes: Sequence[int] = (spec.model.encoding_dim,)
    if isinstance(sizes, Range):
        codes = range(sizes.low, sizes.high + 1, sizes.step or 1)
    elif sizes is not None:
        codes = sorted(sizes.choices)

    # A linear code is the one that may have a shortcut beside it.
    dense: Params = {"architecture": "dense", "code_activation": "linear"}

    def weights(first: int, code: int) -> int:
        params = {**dense, "hidden": hidden_name((first, first // 2)), _CODE: code}
        return n_parameters(spec.configuration(params), image_shape)

    n_codes = bisect_right(codes, limit, key=lambda code: weights(min(2 * code, widths[0]), code))
    code = codes[max(n_codes - 1, 0)]
    firsts = range(min(2 * code, widths[0]), widths[0] + 1)
    n_firsts = bisect_right(firsts, limit, key=lambda first: weights(first, code))
    first = firsts[max(n_firsts - 1, 0)]
    return first, first // 2


def _combinations(spec: StudySpec, names: Collection[str]) -> Iterator[Params]:
    """Yield each combination of these names that a trial may have; of a range the least value."""
    searched = spec.space.architecture_dimension
    for architecture in (spec.model.architecture,) if searched is None else searched.choices:
        active = {n: d for n, d in spec.space.active(architecture).items() if n in names}
        if searched is not None:
            active["architecture"] = Choices[Any].model_construct(choices=(architecture,))
        values = [d.choices if isinstance(d, Choices) else (d.low,) for d in active.values()]
        for combination in product(*values):
            yield dict(zip(active, combination, strict=True))


def _largest_code(
    spec: StudySpec, params: Params, image_shape: ImageShape, sizes: Range[Any]
) -> int:
    """Give the largest code of a range that fits in a combination in which the least one does."""
    limit = spec.search.max_parameters
    assert limit is not None, "there is a limit"
    least, next_to_it = (
        n_parameters(spec.configuration({**params, _CODE: size}), image_shape)
        for size in (sizes.low, sizes.low + 1)
    )
    step = sizes.step or 1
    largest = min(sizes.high, sizes.low + (limit - least) // (next_to_it - least))
    return int(sizes.low + (largest - sizes.low) // step * step)


def _nothing_fits(spec: StudySpec, image_shape: ImageShape) -> str:
    sizes = [
        (n_parameters(spec.configuration(params), image_shape), spec.configuration(params))
        for params in _combinations(spec, DECIDE_WEIGHTS)
    ]
    least, smallest = min(sizes, key=lambda each: each[0])
    return (
        f"search.max_parameters: must be >= {least}, the weights of the smallest network that is "
        f"searched ({described(smallest)}), got {spec.search.max_parameters}; give a larger limit, "
        "a smaller code, or fewer units"
    )


def described(configuration: Configuration) -> str:
    """Name what decides how many weights a network has: ``dense, hidden 128-64, ...``."""
    layers = f"hidden {hidden_name(configuration.hidden)}"
    if configuration.architecture == "conv":
        layers = f"channels {hidden_name(configuration.channels)}"
    return f"{configuration.architecture}, {layers}, encoding_dim {configuration.encoding_dim}"
