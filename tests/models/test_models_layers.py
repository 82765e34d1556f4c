"""The first rungs of the ladder: a population's layer is the nn layer, its loss nn's loss."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from aesearch.models.layers import (
    FeaturesToMaps,
    MapsToFeatures,
    PopulationConvolution,
    PopulationDropout,
    PopulationLinear,
    PopulationReLU,
)
from aesearch.models.training.losses import squared_errors
from aesearch.models.training.randomness import step_keys

MEMBERS = pytest.mark.parametrize("n_members", [1, 2, 7])


@pytest.fixture
def draw(device):
    """Draw float64 normals on the device, the same in every run."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device)

    return draw


@MEMBERS
def test_linear_is_nn_linear_for_each_member(n_members, draw, device):
    """Outputs and the gradients of inputs, weights and biases."""
    modules = [nn.Linear(5, 3, dtype=torch.float64, device=device) for _ in range(n_members)]
    weight = torch.stack([module.weight.detach() for module in modules])
    bias = torch.stack([module.bias.detach() for module in modules])
    layer = PopulationLinear(weight, bias, torch.empty_like(weight), torch.empty_like(bias))
    inputs, gradient = draw(n_members, 4, 5).requires_grad_(), draw(n_members, 4, 3)
    outputs = layer.forward(inputs.detach(), None)
    of_inputs = layer.backward(gradient, needs_input=True)
    expected = torch.stack([module(x) for module, x in zip(modules, inputs, strict=True)])
    expected.backward(gradient)
    torch.testing.assert_close(outputs, expected.detach())
    torch.testing.assert_close(of_inputs, inputs.grad)
    torch.testing.assert_close(layer.weight_gradient, torch.stack([m.weight.grad for m in modules]))
    torch.testing.assert_close(layer.bias_gradient, torch.stack([m.bias.grad for m in modules]))


@MEMBERS
@pytest.mark.parametrize("channel", [1, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolution_is_the_nn_layer_for_each_member(n_members, channel, transposed, draw, device):
    """Outputs and the gradients of inputs, weights and biases; odd sizes, output padding."""
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    extra = {"output_padding": (1, 0)} if transposed else {}
    modules = [
        kind(channel, 2, 3, stride=2, padding=1, dtype=torch.float64, device=device, **extra)
        for _ in range(n_members)
    ]
    weight = torch.stack([module.weight.detach() for module in modules])
    bias = torch.stack([module.bias.detach() for module in modules])
    layer = PopulationConvolution(
        weight,
        bias,
        torch.empty_like(weight),
        torch.empty_like(bias),
        stride=(2, 2),
        padding=(1, 1),
        output_padding=extra.get("output_padding", (0, 0)),
        transposed=transposed,
    )
    inputs = draw(4, n_members * channel, 9, 11).requires_grad_()
    expected = torch.cat(
        [module(x) for module, x in zip(modules, inputs.chunk(n_members, 1), strict=True)], 1
    )
    gradient = draw(*expected.shape)
    outputs = layer.forward(inputs.detach(), None)
    of_inputs = layer.backward(gradient, needs_input=True)
    expected.backward(gradient)
    torch.testing.assert_close(outputs, expected.detach())
    torch.testing.assert_close(of_inputs, inputs.grad)
    torch.testing.assert_close(layer.weight_gradient, torch.stack([m.weight.grad for m in modules]))
    torch.testing.assert_close(layer.bias_gradient, torch.stack([m.bias.grad for m in modules]))


def test_relu_is_nn_relu(draw):
    """Outputs and gradient, zero at zero."""
    inputs = draw(2, 3, 4)
    inputs[0, 0, 0] = 0
    inputs.requires_grad_()
    gradient = draw(2, 3, 4)
    F.relu(inputs).backward(gradient)
    layer = PopulationReLU(keeps=True)
    assert torch.equal(layer.forward(inputs.detach().clone(), None), F.relu(inputs.detach()))
    assert torch.equal(layer.backward(gradient.clone(), needs_input=True), inputs.grad)


@MEMBERS
def test_flatten_and_unflatten_are_nn_flatten_per_member(n_members, draw):
    """A member's features are its own maps flattened; the way back is exact both ways."""
    maps = draw(5, n_members * 2, 3, 4)
    flatten, unflatten = MapsToFeatures(n_members), FeaturesToMaps((2, 3, 4))
    features = flatten.forward(maps, None)
    expected = torch.stack([own.flatten(1) for own in maps.chunk(n_members, 1)])
    assert torch.equal(features, expected)
    assert torch.equal(unflatten.forward(features, None), maps)
    assert torch.equal(flatten.backward(features, needs_input=True), maps)
    assert torch.equal(unflatten.backward(maps, needs_input=True), features)


@MEMBERS
@pytest.mark.parametrize("sample_first", [False, True])
def test_loss_is_mse_of_the_sigmoid_for_each_member(n_members, sample_first, draw):
    """Sums over samples, and the gradient of each member's mean, padding left out."""
    counts = torch.tensor([4 - member % 3 for member in range(n_members)])
    logits, targets = draw(n_members, 4, 6), draw(n_members, 4, 6).sigmoid()
    is_sample = (torch.arange(4) < counts[:, None]).to(logits)
    leaf = logits.clone().requires_grad_()
    means = torch.stack(
        [
            F.mse_loss(z[:n].sigmoid(), x[:n])
            for z, x, n in zip(leaf, targets, counts.tolist(), strict=True)
        ]
    )
    means.sum().backward()
    swap = (lambda tensor: tensor.transpose(0, 1).contiguous()) if sample_first else torch.clone
    sums, gradient = squared_errors(
        swap(logits),
        swap(targets),
        output="sigmoid",
        sample_first=sample_first,
        counts=counts.to(logits),
        is_sample=is_sample,
    )
    torch.testing.assert_close(sums, (means * counts.to(means)).detach())
    torch.testing.assert_close(gradient, swap(leaf.grad))


@pytest.mark.parametrize("sample_first", [False, True])
@pytest.mark.parametrize("n_members", [1, 3])
def test_a_loss_of_many_large_images_is_exact_in_float32(n_members, sample_first):
    """No term is lost, whoever trains beside: as a sum in float64."""
    shape = (400, n_members, 3 * 64 * 64) if sample_first else (n_members, 400, 3 * 64 * 64)
    logits, targets = torch.zeros(shape), torch.rand(shape, generator=generator_of(0))
    sums, _ = squared_errors(
        logits, targets, output="sigmoid", sample_first=sample_first, counts=None
    )
    exact = (targets.double() - 0.5).square().mean(-1).sum(0 if sample_first else 1)
    torch.testing.assert_close(sums, exact, rtol=1e-6, atol=0.0)


def test_a_loss_of_one_huge_image_is_exact_in_float32():
    """A constant error over 3 x 512 x 512 values: naive sums lose half a thousandth of it."""
    logits, targets = torch.zeros(1, 2, 3 * 512 * 512), torch.full((1, 2, 3 * 512 * 512), 0.13)
    exact = (targets.double() - 0.5).square().mean(-1).sum(1)
    sums, gradient = squared_errors(logits, targets, output="sigmoid", sample_first=False, counts=2)
    torch.testing.assert_close(sums, exact, rtol=1e-6, atol=0.0)
    assert gradient.dtype == torch.float32


def generator_of(seed):
    return torch.Generator().manual_seed(seed)


def dropped(seed_or_seeds, rates, *, step=0, layer=0, n_samples=40, n_units=50, device="cpu"):
    """The outputs of a dropout layer for inputs of one: (member, sample, unit)."""
    keys = step_keys(seed_or_seeds, torch.tensor([[step] * len(seed_or_seeds)]))[0].to(device)
    rates = torch.tensor(rates, dtype=torch.float64)
    inputs = torch.ones(len(seed_or_seeds), n_samples, n_units, dtype=torch.float64, device=device)
    return PopulationDropout(rates, layer, inputs).forward(inputs, keys)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 0.9])
def test_dropout_keeps_its_share_and_its_mean(rate, device):
    """The number kept lies within five standard deviations of the binomial's mean."""
    outputs = dropped([3, 4], [rate, 0.3], n_samples=300, n_units=200, device=device)[0]
    n_kept = int((outputs > 0).sum())
    n = outputs.numel()
    assert abs(n_kept - n * (1 - rate)) <= 5 * (n * rate * (1 - rate)) ** 0.5
    torch.testing.assert_close(outputs.max().cpu(), torch.tensor(1 / (1 - rate)).double())


def test_dropout_has_no_favourite_unit_or_sample(device):
    """Rows and columns are kept equally often: the chi-square of either stays in its bulk."""
    kept = dropped([7], [0.5], n_samples=500, n_units=400, device=device)[0] > 0
    for axis, n in ((0, 500), (1, 400)):
        counts = kept.sum(axis).double()
        chi_square = float(((counts - n / 2) ** 2 / (n / 4)).sum())
        freedom = len(counts)
        assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


def test_dropout_of_a_member_ignores_its_neighbours(device):
    """Alone, in company, or in a wider layer: the same units are dropped."""
    alone = dropped([5], [0.4], n_units=30, device=device)[0]
    assert torch.equal(dropped([9, 5, 2], [0.1, 0.4, 0.9], n_units=30, device=device)[1], alone)
    assert torch.equal(dropped([5], [0.4], n_units=50, device=device)[0, :, :30], alone)
    assert torch.equal(dropped([5], [0.4], n_units=30, n_samples=70, device=device)[0, :40], alone)


@pytest.mark.parametrize("change", [{"step": 1}, {"layer": 1}, {"seed_or_seeds": [6]}])
def test_dropout_differs_by_step_layer_and_member(change, device):
    """Two masks that should be independent agree in about half of their places."""
    arguments = {"seed_or_seeds": [5], "rates": [0.5], "n_samples": 200, "device": device}
    agree = (dropped(**arguments) > 0) == (dropped(**arguments | change) > 0)
    n = agree.numel()
    assert abs(int(agree.sum()) - n / 2) < 5 * (n / 4) ** 0.5


def test_dropout_on_cuda_drops_what_the_cpu_drops(device):
    """One stream of random numbers for every device."""
    here = dropped([5, 6], [0.4, 0.1], device=device)
    assert torch.equal(here.cpu(), dropped([5, 6], [0.4, 0.1], device="cpu"))


def test_dropout_gradient_passes_where_units_were_kept(draw):
    """The gradient takes the same factors as the activations; in evaluation, none."""
    rates = torch.tensor([0.5, 0.2], dtype=torch.float64)
    keys = step_keys([1, 2], torch.tensor([[0, 0]]))[0].to(draw(1).device)
    layer = PopulationDropout(rates, 0, draw(1))
    inputs, gradient = draw(2, 3, 4).abs(), draw(2, 3, 4)
    factors = layer.forward(inputs.clone(), keys) / inputs
    torch.testing.assert_close(
        layer.backward(gradient.clone(), needs_input=True), gradient * factors
    )
    assert torch.equal(layer.forward(inputs.clone(), None), inputs)
    assert torch.equal(layer.backward(gradient.clone(), needs_input=True), gradient)
