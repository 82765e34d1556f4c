"""Plain autoencoders: shapes, sizes, counts, initialisation."""

import json

import pytest
import torch
from torch import nn

from aesearch.models.autoencoder import build_autoencoder


def n_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("hidden", "encoding_dim", "expected"),
    [((392,), 8, 622_504), ((256, 128), 8, 470_552), ((512, 256, 128, 64), 16, 1_151_648),
     ((), 64, 101_200)],
)  # fmt: skip
def test_report_nets_have_their_parameter_counts(hidden, encoding_dim, expected):
    """The nets of the reports are the ones that were published."""
    network = build_autoencoder(
        architecture="dense", image_shape=(1, 28, 28), encoding_dim=encoding_dim, hidden=hidden
    )
    assert n_parameters(network) == expected


@pytest.mark.parametrize("channel", [1, 3])
@pytest.mark.parametrize("height", range(8, 34))
def test_conv_output_has_exactly_the_input_size(height, channel):
    """Even and odd sizes come back as they went in, whatever the other side is."""
    width = 41 - height
    network = build_autoencoder(
        architecture="conv",
        image_shape=(channel, height, width),
        encoding_dim=3,
        channels=(2, 3, 4),
        conv_hidden=5,
    )
    images = torch.rand(2, channel, height, width)
    codes = network.encode(images)
    reconstructions = network.decode(codes)
    assert codes.shape == (2, 3)
    assert reconstructions.shape == images.shape
    assert reconstructions.min() >= 0
    assert reconstructions.max() <= 1
    assert torch.equal(network(images), reconstructions)


@pytest.mark.parametrize("hidden", [(), (7,), (9, 7, 5)])
def test_dense_decoder_mirrors_the_encoder(hidden):
    """The decoder has the encoder's widths in reverse and gives images of the same shape."""
    network = build_autoencoder(
        architecture="dense", image_shape=(3, 9, 11), encoding_dim=4, hidden=hidden
    )
    widths = [
        (layer.in_features, layer.out_features)
        for layer in [*network.encoder, *network.decoder]
        if isinstance(layer, nn.Linear)
    ]
    assert widths == [(b, a) for a, b in reversed(widths)]
    assert network(torch.rand(2, 3, 9, 11)).shape == (2, 3, 9, 11)


@pytest.mark.parametrize(
    ("architecture", "hidden", "code_activation", "expected"),
    [
        ("dense", (9, 7), "linear", 4),
        ("dense", (9, 7), "relu", 5),
        ("dense", (), "linear", 0),
        ("dense", (), "relu", 1),
        ("conv", (), "linear", 2),
        ("conv", (), "relu", 3),
    ],
)
def test_dropout_follows_each_relu_but_those_of_convolutions(
    architecture, hidden, code_activation, expected
):
    """Dropout follows the ReLU of each linear layer, the code's too; a linear code has none."""
    network = build_autoencoder(
        architecture=architecture,
        image_shape=(1, 8, 8),
        encoding_dim=3,
        hidden=hidden,
        code_activation=code_activation,
        dropout=0.25,
    )
    layers = [*network.encoder, *network.decoder]
    positions = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Dropout)]
    assert len(positions) == expected
    assert all(isinstance(layers[i - 1], nn.ReLU) for i in positions)
    assert all(layers[i].p == 0.25 for i in positions)


@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_initialisation_is_what_torch_draws_after_the_seed(architecture):
    """The weights are torch's defaults, from the seed alone, the same in every dtype."""
    arguments = {"architecture": architecture, "image_shape": (1, 9, 9), "encoding_dim": 3}
    network = build_autoencoder(**arguments, seed=5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for layer in network.modules():
            if hasattr(layer, "reset_parameters"):
                expected = {name: value.clone() for name, value in layer.state_dict().items()}
                layer.reset_parameters()
                assert all(
                    torch.equal(value, expected[name]) for name, value in layer.state_dict().items()
                )
    double = build_autoencoder(**arguments, seed=5, dtype=torch.float64)
    other = build_autoencoder(**arguments, seed=6)
    for name, value in build_autoencoder(**arguments, seed=5).state_dict().items():
        assert torch.equal(double.state_dict()[name], value.double())
        assert not torch.equal(other.state_dict()[name], value)


def test_building_leaves_the_global_random_state_alone():
    """Neither used nor changed."""
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    build_autoencoder(architecture="dense", image_shape=(1, 8, 8), encoding_dim=2, seed=9)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_configuration_rebuilds_the_network(architecture):
    """The configuration survives JSON and builds a network that takes the same weights."""
    network = build_autoencoder(
        architecture=architecture,
        image_shape=(3, 9, 11),
        encoding_dim=3,
        hidden=(12, 7),
        channels=(2, 3),
        conv_hidden=6,
        dropout=0.1,
        code_activation="relu",
        seed=3,
    )
    configuration = json.loads(json.dumps(network.configuration))
    rebuilt = build_autoencoder(**configuration, seed=4)
    rebuilt.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, 9, 11)
    assert torch.equal(rebuilt.eval()(images), network.eval()(images))
    assert rebuilt.configuration == network.configuration
    assert (rebuilt.architecture, rebuilt.image_shape, rebuilt.encoding_dim) == (
        architecture,
        (3, 9, 11),
        3,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "transformer"}, "architecture must be one of dense, conv"),
        ({"code_activation": "tanh"}, "code_activation must be one of linear, relu"),
        ({"encoding_dim": 0}, "encoding_dim must be >= 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"image_shape": (8, 8)}, r"image_shape must be .* got \(8, 8\)"),
        ({"hidden": (4, 0)}, "hidden must be >= 1, got 0"),
        ({"architecture": "conv", "channels": ()}, "channels must name at least one"),
        ({"architecture": "conv", "conv_hidden": 0}, "conv_hidden must be >= 1"),
    ],
)
def test_impossible_networks_are_refused_by_name(change, message):
    """The message names the argument, the rule and the value."""
    arguments = {"architecture": "dense", "image_shape": (1, 8, 8), "encoding_dim": 3} | change
    with pytest.raises(ValueError, match=message):
        build_autoencoder(**arguments)
