"""Data sets by name: layout on disk, orientation, damage, and being offline."""

import bz2
import gzip
import hashlib
import http.server
import pickle
import sys
import threading
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from sklearn.datasets import load_digits

from aesearch.data.cache import CACHE_VARIABLE, cache_folder
from aesearch.data.known import published as published_files
from aesearch.data.load import default_data_dir, fetch_named, load
from aesearch.studies.errors import DataError, DataMissingError


def known_sets():
    """What torchvision knows; its import takes seconds."""
    import torchvision.datasets

    return torchvision.datasets


RNG = np.random.default_rng(0)
TRAIN = RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8)
TEST = RNG.integers(0, 256, (5, 28, 28), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
LABELS, TEST_LABELS = np.arange(12) % 10, np.arange(5)[::-1]


def idx_bytes(values: np.ndarray, kind: int = 8) -> bytes:
    shape = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, kind, values.ndim]) + shape + values.tobytes()


def mnist_files() -> dict[str, bytes]:
    return {
        "train-images-idx3-ubyte": idx_bytes(TRAIN),
        "train-labels-idx1-ubyte": idx_bytes(LABELS.astype(np.uint8)),
        "t10k-images-idx3-ubyte": idx_bytes(TEST),
        "t10k-labels-idx1-ubyte": idx_bytes(TEST_LABELS.astype(np.uint8)),
    }


def write(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Write files; return their checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [hashlib.md5(content).hexdigest() for content in files.values()]


def write_mnist(folder: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root / folder / "raw", mnist_files())


def write_emnist(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = {
        name.replace("t10k", "test").replace("train-", "emnist-letters-train-"): content
        for name, content in mnist_files().items()
    }
    renamed = {
        name if name.startswith("emnist") else f"emnist-letters-{name}": content
        for name, content in renamed.items()
    }
    renamed["emnist-letters-train-images-idx3-ubyte"] = idx_bytes(TRAIN.transpose(0, 2, 1))
    renamed["emnist-letters-test-images-idx3-ubyte"] = idx_bytes(TEST.transpose(0, 2, 1))
    write(root / "EMNIST" / "raw", renamed)


def write_qmnist(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def table(labels: np.ndarray) -> np.ndarray:
        return np.column_stack([labels, *[np.full(len(labels), 77)] * 7]).astype(">i4")

    files = {
        "qmnist-train-images-idx3-ubyte": idx_bytes(TRAIN),
        "qmnist-train-labels-idx2-int": idx_bytes(table(LABELS), kind=12),
        "qmnist-test-images-idx3-ubyte": idx_bytes(TEST),
        "qmnist-test-labels-idx2-int": idx_bytes(table(TEST_LABELS), kind=12),
    }
    write(root / "QMNIST" / "raw", files)


def write_usps(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def text(images: np.ndarray, labels: np.ndarray) -> bytes:
        rows = (images[:, :16, :16].reshape(len(images), -1) + 0.25) / 127.5 - 1
        lines = [
            f"{label + 1} " + " ".join(f"{i + 1}:{value:.6f}" for i, value in enumerate(row))
            for label, row in zip(labels, rows, strict=True)
        ]
        return bz2.compress("\n".join(lines).encode())

    files = {"usps.bz2": text(TRAIN, LABELS), "usps.t.bz2": text(TEST, TEST_LABELS)}
    parts = zip(("train", "test"), files, write(root, files), strict=True)
    split_list = {part: ["http://nowhere.invalid/", name, md5] for part, name, md5 in parts}
    monkeypatch.setattr(known_sets().USPS, "split_list", split_list)


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = known_sets().CIFAR10
    names = [name for name, _ in [*known.train_list, *known.test_list]]
    pieces = [*np.split(COLOUR[:10], 5), COLOUR[:5]]
    labels = [*np.split(LABELS[:10], 5), TEST_LABELS]
    files = {
        name: pickle.dumps({"data": part.reshape(len(part), -1), "labels": list(numbers)})
        for name, part, numbers in zip(names, pieces, labels, strict=True)
    }
    files["batches.meta"] = pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})
    *md5s, meta_md5 = write(root / known.base_folder, files)
    listed = [list(pair) for pair in zip(names, md5s, strict=True)]
    monkeypatch.setattr(known, "train_list", listed[:5])
    monkeypatch.setattr(known, "test_list", listed[5:])
    monkeypatch.setattr(known, "meta", known.meta | {"md5": meta_md5})


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(path: Path, images: np.ndarray, labels: np.ndarray) -> str:
        column = np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)
        scipy.io.savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": column})
        return hashlib.md5(path.read_bytes()).hexdigest()

    train, test = root / "train_32x32.mat", root / "test_32x32.mat"
    split_list = {
        "train": ["http://nowhere.invalid/", train.name, save(train, COLOUR, LABELS)],
        "test": ["http://nowhere.invalid/", test.name, save(test, COLOUR[:5], TEST_LABELS)],
    }
    monkeypatch.setattr(known_sets().SVHN, "split_list", split_list)


FAMILIES = pytest.mark.parametrize(
    ("name", "write_files", "images", "test_images", "first_class"),
    [
        ("mnist", partial(write_mnist, "MNIST"), TRAIN, TEST, "0 - zero"),
        ("fashion-mnist", partial(write_mnist, "FashionMNIST"), TRAIN, TEST, "T-shirt/top"),
        ("kmnist", partial(write_mnist, "KMNIST"), TRAIN, TEST, "o"),
        ("emnist-letters", write_emnist, TRAIN, TEST, "N/A"),
        ("qmnist", write_qmnist, TRAIN, TEST, "0 - zero"),
        ("usps", write_usps, TRAIN[:, :16, :16], TEST[:, :16, :16], "0"),
        ("cifar10", write_cifar10, COLOUR[:10], COLOUR[:5], "class 0"),
        ("svhn", write_svhn, COLOUR, COLOUR[:5], "0"),
    ],
)


@FAMILIES
def test_every_family_is_read_upright_from_torchvisions_layout(
    *, tmp_path, monkeypatch, name, write_files, images, test_images, first_class
):
    """Small files in the published formats come back as the images and labels put in."""
    write_files(tmp_path, monkeypatch)
    image_set = load(name, tmp_path, download=False)
    expected = images if images.ndim == 4 else images[:, None]
    expected_test = test_images if test_images.ndim == 4 else test_images[:, None]
    np.testing.assert_array_equal(image_set.images, expected)
    np.testing.assert_array_equal(image_set.test_images, expected_test)
    np.testing.assert_array_equal(image_set.labels, LABELS[: len(expected)])
    np.testing.assert_array_equal(image_set.test_labels, TEST_LABELS)
    assert image_set.name == name
    assert image_set.class_names[0] == first_class


@pytest.mark.parametrize(
    ("name", "write_files", "file_name"),
    [
        ("mnist", partial(write_mnist, "MNIST"), "MNIST/raw/t10k-images-idx3-ubyte"),
        ("usps", write_usps, "usps.t.bz2"),
        ("cifar10", write_cifar10, "cifar-10-batches-py/data_batch_3"),
        ("svhn", write_svhn, "train_32x32.mat"),
    ],
)
def test_a_truncated_file_of_a_known_set_is_named(
    tmp_path, monkeypatch, name, write_files, file_name
):
    """The damaged file, of several, is the one in the message, with its size."""
    write_files(tmp_path, monkeypatch)
    path = tmp_path / file_name
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError) as raised:
        load(name, tmp_path, download=False)
    message = str(raised.value)
    assert message.startswith(f"{path} must be")
    assert str(path.stat().st_size) in message
    assert "delete it" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "got 0 bytes that start with nothing"),
        (b"<html>404</html>", "got 16 bytes that start with 3c68746d"),
        (idx_bytes(TRAIN)[:9], "must start with an idx header"),
        (idx_bytes(TRAIN) + b"\0", "must be 9424 bytes long, as its header of shape (12, 28, 28)"),
        (idx_bytes(TRAIN)[:-1], "got 9423"),
    ],
)
def test_a_damaged_idx_file_says_what_was_expected_and_found(tmp_path, monkeypatch, content, words):
    """Left alone, torchvision would answer with a bare AssertionError, or take a longer file."""
    write_mnist("MNIST", tmp_path, monkeypatch)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        load("mnist", tmp_path)
    assert words in str(raised.value)
    assert str(path) in str(raised.value)


def test_labels_in_the_place_of_images_are_refused(tmp_path, monkeypatch):
    """A well-formed file of another kind is still an error of ours."""
    write_mnist("MNIST", tmp_path, monkeypatch)
    raw = tmp_path / "MNIST" / "raw"
    (raw / "train-images-idx3-ubyte").write_bytes((raw / "train-labels-idx1-ubyte").read_bytes())
    with pytest.raises(DataError, match="mnist must be readable by torchvision, got ValueError"):
        load("mnist", tmp_path)


def test_a_changed_cifar10_pickle_is_not_opened(tmp_path, monkeypatch):
    """A pickle that is not as published is refused before it can run anything."""
    write_cifar10(tmp_path, monkeypatch)
    made = tmp_path / "made"
    evil = b"cos\nmkdir\n(V" + str(made).encode() + b"\ntR."
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(evil)
    with pytest.raises(DataError, match="data_batch_1 must be the published file"):
        load("cifar10", tmp_path)
    assert not made.exists()


def test_files_of_old_torchvision_versions_are_left_alone(tmp_path, monkeypatch):
    """processed/*.pt, which torchvision would torch.load, is not read."""
    write_mnist("MNIST", tmp_path, monkeypatch)
    write(tmp_path / "MNIST" / "processed", {"training.pt": b"no", "test.pt": b"no"})
    np.testing.assert_array_equal(load("mnist", tmp_path).images[:, 0], TRAIN)


def test_digits_are_scikit_learns_scaled_to_bytes():
    """0..16 becomes 0..255; there is no test set."""
    image_set = load("digits")
    expected = np.rint(load_digits().images / 16 * 255)
    np.testing.assert_array_equal(image_set.images[:, 0], expected)
    assert image_set.image_shape == (1, 8, 8)
    assert image_set.test_images is None
    assert fetch_named("digits") == []


def test_the_real_mnist(mnist_dir):
    """60,000 + 10,000 images; the first ones are the 5, 0, 4, 1, 9 that everybody knows."""
    image_set = load("mnist", mnist_dir, download=False)
    assert image_set.images.shape == (60_000, 1, 28, 28)
    assert image_set.test_images.shape == (10_000, 1, 28, 28)
    assert image_set.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert image_set.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert image_set.images.mean() / 255 == pytest.approx(0.1306604762738429)


def test_the_real_fashion_mnist(mnist_dir):
    """Ten classes of 6,000 images each."""
    if not (mnist_dir / "FashionMNIST").exists():
        pytest.skip("the real Fashion-MNIST is not beside the project (../shared/data)")
    image_set = load("fashion-mnist", mnist_dir, download=False)
    assert np.bincount(image_set.labels).tolist() == [6000] * 10
    assert image_set.images.mean() / 255 == pytest.approx(0.2860405969887955)


def test_loading_mnist_takes_little_memory(mnist_dir):
    """No float copy of the images is made: the peak stays under 150 MB above the start."""
    tracemalloc.start()
    try:
        load("mnist", mnist_dir)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 50e6 < peak_bytes < 150e6


def test_the_data_folder_follows_the_environment(tmp_path, monkeypatch):
    """AESEARCH_DATA_DIR replaces the user's cache folder; who has no home has one all the same."""
    monkeypatch.delenv("AESEARCH_DATA_DIR", raising=False)
    assert default_data_dir().parts[-2:] == ("aesearch", "data")
    with monkeypatch.context() as homeless:  # a user of a container that has no entry
        homeless.delenv("HOME", raising=False)
        homeless.delenv("XDG_CACHE_HOME", raising=False)
        homeless.setattr("os.path.expanduser", lambda path: path)
        homeless.delenv(CACHE_VARIABLE, raising=False)
        for folder, name in ((default_data_dir(), "data"), (cache_folder(), "images")):
            assert folder.name == name
            assert folder.is_absolute()
    monkeypatch.setenv("AESEARCH_DATA_DIR", str(tmp_path))
    write_mnist("MNIST", tmp_path, monkeypatch)
    assert load("mnist", download=False).source == f"mnist in {tmp_path}"


def published(known: type, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish small files as a torchvision class's resources."""
    packed = {f"{name}.gz": gzip.compress(content) for name, content in mnist_files().items()}
    resources = list(zip(packed, write(folder, packed), strict=True))
    monkeypatch.setattr(known, "resources", resources)


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], str]:
    """Serve a folder on this machine until the test ends."""
    monkeypatch.setenv("no_proxy", "*")
    serving: list[tuple[http.server.ThreadingHTTPServer, threading.Thread]] = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Keep the test output clean."""

    def start(folder: Path) -> str:
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
        )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        serving.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server, thread in serving:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_missing_set_is_fetched_into_torchvisions_layout(tmp_path, monkeypatch, serve):
    """From the first mirror that has it, with progress; the second load needs no network."""
    known = known_sets().KMNIST
    published(known, tmp_path / "web", monkeypatch)
    address = serve(tmp_path / "web")
    monkeypatch.setattr(known, "mirrors", [f"{address}absent/", address])
    seen = []
    image_set = load("kmnist", tmp_path / "data", progress=lambda *step: seen.append(step))
    np.testing.assert_array_equal(image_set.images[:, 0], TRAIN)
    raw = tmp_path / "data" / "KMNIST" / "raw"
    assert sorted(file.name for file in raw.iterdir()) == sorted(mnist_files())
    assert {name for name, _, _ in seen} == {f"{name}.gz" for name in mnist_files()}
    assert all(n_bytes <= total for _, n_bytes, total in seen)
    assert load("kmnist", tmp_path / "data", download=False).fingerprint == image_set.fingerprint
    assert fetch_named("kmnist", tmp_path / "data") == [raw / name for name in mnist_files()]


def test_archives_that_were_copied_by_hand_need_no_network(tmp_path, monkeypatch):
    """The published .gz files in raw/ are enough, and stay: somebody else may read them."""
    known = known_sets().KMNIST
    published(known, tmp_path / "KMNIST" / "raw", monkeypatch)
    image_set = load("kmnist", tmp_path, download=False)
    np.testing.assert_array_equal(image_set.test_images[:, 0], TEST)
    archives = {f"{name}.gz" for name in mnist_files()}
    assert archives <= {file.name for file in (tmp_path / "KMNIST" / "raw").iterdir()}


def test_offline_the_error_says_where_it_looked_and_what_to_do(tmp_path, monkeypatch):
    """Every path, every address that failed, and the two ways out."""
    mirrors = ["http://nowhere.invalid/a/", "http://nowhere.invalid/b/"]
    monkeypatch.setattr(known_sets().MNIST, "mirrors", mirrors)
    with pytest.raises(DataMissingError) as raised:
        load("mnist", tmp_path, timeout_s=2)
    message = str(raised.value)
    raw = tmp_path / "MNIST" / "raw"
    expected = [
        *(str(raw / name) for name in mnist_files()),
        *(f"{mirror}train-images-idx3-ubyte.gz: " for mirror in mirrors),
        "aesearch data fetch mnist --data-dir DIR",
        "give it with --data-dir",
    ]
    assert [words for words in expected if words not in message] == []
    assert isinstance(raised.value, LookupError)


def test_nothing_is_fetched_when_that_is_not_allowed(tmp_path, monkeypatch):
    """download=False touches neither network nor disk."""
    monkeypatch.setattr(
        published_files, "download", lambda *_, **__: pytest.fail("went to the network")
    )
    with pytest.raises(DataMissingError, match="it was not allowed"):
        load("svhn", tmp_path / "data", download=False)
    assert not (tmp_path / "data").exists()


def test_a_torchvision_that_does_not_fit_torch_says_how_to_repair_it(tmp_path, monkeypatch):
    """The usual mismatch raises a RuntimeError about torchvision::nms at import."""

    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "torchvision.datasets":
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, "torchvision.datasets", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(DataError, match="nms does not exist; reinstall both"):
        load("mnist", tmp_path)
