"""The fast ways to multiply and to convolve give what the plain ways give."""

import pytest
import torch
from torch.nn import functional as F

from aesearch.models.products import LARGE_PRODUCT, _fast_linear, member_products
from aesearch.models.runtime import pick_device, prepare_process, present_kinds
from aesearch.models.upsampling import upsampled

# (row, inner, column): below and above the size from which each member is a call of its own.
SIZES = pytest.mark.parametrize("size", [(5, 4, 3), (250, 200, 90)], ids=["small", "large"])


def normals(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@SIZES
@pytest.mark.parametrize("n_members", [1, 2, 7])
@pytest.mark.parametrize("transposed", [False, True])
def test_products_are_those_of_float64(size, n_members, transposed):
    """Each member's product and bias; from transposed views too, as the backward pass has them."""
    n_rows, n_inner, n_columns = size
    left, right = normals(n_members, n_rows, n_inner), normals(n_members, n_inner, n_columns)
    bias = normals(n_members, n_columns)
    expected = (left.double() @ right.double() + bias.double()[:, None]).float()
    if transposed:
        left, right = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (left, right))
    # Sums of 200 float32 products of either order.
    tolerance = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(member_products(left, right, bias=bias), expected, **tolerance)
    rows = torch.zeros(n_members, 3 + n_rows * n_columns)
    out = rows[:, 3:].unflatten(1, (n_rows, n_columns))
    member_products(left, right, out=out)
    torch.testing.assert_close(out + bias[:, None], expected, **tolerance)
    assert not rows[:, :3].any()


@SIZES
def test_a_poisoned_member_changes_no_product_of_another(size):
    """Bit for bit, on either side of the size from which the way of computing changes."""
    n_rows, n_inner, n_columns = size
    left, right = normals(3, n_rows, n_inner), normals(3, n_inner, n_columns)
    clean = member_products(left, right)
    left[1] = torch.nan
    poisoned = member_products(left, right)
    assert torch.equal(poisoned[[0, 2]], clean[[0, 2]])
    assert poisoned[1].isnan().all()


def test_large_products_take_the_fast_way_where_there_is_one(monkeypatch):
    """The way depends on the size of one member's product alone, never on how many members."""
    used = []

    def linear(inputs, weight, bias):
        used.append(tuple(inputs.shape))
        return F.linear(inputs, weight, bias)

    monkeypatch.setattr("aesearch.models.products._fast_linear", lambda: linear)
    n_rows = LARGE_PRODUCT // 10_000
    member_products(normals(9, n_rows - 1, 100), normals(9, 100, 100))
    assert used == []
    member_products(normals(2, n_rows, 100), normals(2, 100, 100))
    assert used == [(n_rows, 100), (n_rows, 100)]


def test_without_the_fast_way_the_plain_one_is_taken(monkeypatch):
    """A processor without AVX-512 has none."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert _fast_linear.__wrapped__() is None


@pytest.mark.parametrize("n_members", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1), (4, 5)])
@pytest.mark.parametrize("missing", [(0, 0), (1, 0), (1, 1)])
def test_upsampling_is_the_transposed_convolution(n_members, shape, missing):
    """Convolution and pixel shuffle against torch's own, odd and even output sizes."""
    inputs = normals(2, n_members * 3, *shape).double()
    weight, bias = normals(n_members, 3, 2, 3, 3).double(), normals(n_members, 2).double()
    expected = F.conv_transpose2d(
        inputs,
        weight.flatten(0, 1),
        bias.flatten(),
        stride=2,
        padding=1,
        output_padding=missing,
        groups=n_members,
    )
    outputs = upsampled(inputs, weight, bias, tuple(expected.shape[2:]))
    torch.testing.assert_close(outputs, expected)


def test_a_training_process_flushes_denormals():
    """What a trained network is full of costs nothing then."""
    threads = torch.get_num_threads()
    try:
        prepare_process(1)
        assert torch.get_num_threads() == 1
        assert float(torch.full((64,), 1e-39).mul(0.5).max()) == 0.0
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


def test_devices_by_name(monkeypatch):
    """Auto takes CUDA where there is one; a device that is not there is refused by name."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_device("auto") == "cpu"
    assert pick_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="device must be present, got 'cuda' with 0 CUDA"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto") == "cuda"
    assert pick_device("cuda:1") == "cuda:1"
    with pytest.raises(ValueError, match="got 'cuda:2' with 2 CUDA"):
        pick_device("cuda:2")


def test_an_apple_gpu_is_taken_by_name_only(monkeypatch):
    """Nobody has run one yet, so that auto leaves it alone; a worker takes its studies."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device must be present, got 'mps'"):
        pick_device("mps")
    assert present_kinds() == ("cpu",)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps") == "mps"
    assert pick_device("auto") == "cpu"
    assert present_kinds() == ("mps", "cpu")


@pytest.mark.parametrize("name", ["tpu", "", "cuda:x", "cpu:0", "mps:1"])
def test_unknown_devices_are_refused(name):
    """The message names the choices."""
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda"):
        pick_device(name)
