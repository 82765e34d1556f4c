"""ONNX and ``torch.export`` files: they compute what the model computes, or are not written."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import aesearch
from aesearch.artifacts import export_formats as exporting
from aesearch.artifacts import model_file
from aesearch.artifacts.export_formats import FormatError, export_formats
from aesearch.cli import app
from aesearch.models.autoencoder import build_autoencoder
from aesearch.studies.errors import RunFailedError

# Another library's kernels: sums in another order.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}
MODELS = {
    "dense": {"architecture": "dense", "image_shape": (1, 9, 8), "hidden": (12,), "dropout": 0.5},
    "conv": {"architecture": "conv", "image_shape": (3, 9, 8), "channels": (3, 4)},
    "pca": {
        "architecture": "conv",
        "image_shape": (3, 9, 8),
        "channels": (3, 4),
        "activation": "gelu",
        "shortcut": "pca",
        "output": "clamp",
    },
}
PARTS = ("model", "encoder", "decoder")
# An ONNX export takes seconds; the convolutional network with a shortcut has every kind of layer.
CASES = [
    ("dense", "pt2"),
    ("conv", "pt2"),
    ("pca", "pt2"),
    ("pca", "onnx"),
    pytest.param(("dense", "onnx"), marks=pytest.mark.slow),
    pytest.param(("conv", "onnx"), marks=pytest.mark.slow),
]


def build(name):
    return build_autoencoder(encoding_dim=4, conv_hidden=10, seed=2, **MODELS[name])


def load_pt2(path):
    module = torch.export.load(path).module()
    return lambda batch: module(torch.from_numpy(batch)).detach().numpy()


def load_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    (given,) = session.get_inputs()
    return lambda batch: session.run(None, {given.name: batch})[0]


LOADERS = {"onnx": load_onnx, "pt2": load_pt2}


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def each(request, tmp_path_factory):
    """One network in one format: model, folder, what was said, and its parts, loaded."""
    name, kind = request.param
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp(f"{name}-{kind}")
    model = build(name).train()
    done = export_formats(model, folder, [kind])
    return model, folder, done, {part: LOADERS[kind](folder / f"{part}.{kind}") for part in PARTS}


@pytest.mark.parametrize("n_samples", [1, 2, 20])
def test_the_files_compute_what_the_model_computes(each, n_samples):
    """For batches of any size, dropout off; encoder and decoder together are the model."""
    model, folder, done, run = each
    assert [item.path.stem for item in done] == list(PARTS)
    assert {item.path.parent for item in done} == {folder}
    rng = np.random.default_rng(0)
    images = rng.random((n_samples, *model.image_shape), dtype=np.float32)
    codes = run["encoder"](images)
    np.testing.assert_allclose(codes, aesearch.encode(model, images), **ROUNDING)
    expected = aesearch.reconstruct(model, images)
    np.testing.assert_allclose(run["model"](images), expected, **ROUNDING)
    np.testing.assert_allclose(run["decoder"](codes), expected, **ROUNDING)


def test_the_model_goes_on_training_and_what_is_said_is_true(each):
    """Its mode is what it was; the difference that is told is a rounding."""
    model, folder, done, _ = each
    assert model.training
    assert all(0 <= item.largest_difference < 1e-5 for item in done)
    assert len(list(folder.iterdir())) == 3


def test_the_files_name_no_folder_of_this_machine(each):
    """Exporters record stack traces; those are taken out."""
    _, folder, done, _ = each
    for item in done:
        content = item.path.read_bytes()
        assert b"autoencoder.py" not in content
        assert b"site-packages" not in content
        assert str(folder).encode() not in content


def test_the_same_model_gives_the_same_bytes(each, tmp_path):
    """Nothing of the time or of chance is in a file."""
    model, _, done, _ = each
    again = export_formats(model, tmp_path, [done[0].path.suffix[1:]])
    assert [i.path.read_bytes() for i in again] == [i.path.read_bytes() for i in done]


@pytest.mark.parametrize("each", [("pca", "onnx")], indirect=True)
def test_onnx_tells_its_names_its_free_axis_and_its_configuration(each):
    """What someone who has only the file can read in it."""
    import onnxruntime

    model, folder, _, _ = each
    session = onnxruntime.InferenceSession(folder / "encoder.onnx")
    (given,), (found,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape) == ("images", ["batch", 3, 9, 8])
    assert (found.name, found.shape) == ("codes", ["batch", 4])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["aesearch"]) == model.configuration


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda found: found + np.float32(0.001), "got a difference of 0.001"),
        (lambda found: found * np.float32(np.nan), "got a difference of nan"),
        (lambda found: found[:1], r"must give \(7, 1, 9, 8\) for 7 samples, got \(1, 1, 9, 8\)"),
    ],
)
def test_a_file_that_computes_something_else_is_not_written(wrong, message, tmp_path, monkeypatch):
    """Also none of those that were right; an older file stays."""

    def faulty(part, configuration):
        content, load = exporting._pt2(part, configuration)
        if part.name != "decoder":
            return content, load
        return content, lambda path: lambda batch: wrong(load(path)(batch))

    monkeypatch.setitem(exporting._FORMATS, "pt2", faulty)
    (tmp_path / "model.pt2").write_text("older")
    with pytest.raises(RunFailedError, match=message):
        export_formats(build("dense"), tmp_path, ["pt2"])
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_text() == "older"


def test_missing_packages_are_named_with_what_installs_them(tmp_path, monkeypatch):
    """Before anything is written."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    with pytest.raises(FormatError, match=r"got no onnxruntime; .* pip install 'aesearch\[onnx\]'"):
        export_formats(build("dense"), tmp_path / "new", ["pt2", "onnx"])
    assert not list(tmp_path.iterdir())


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Go to a folder with a model in ``run``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AESEARCH_STORAGE", raising=False)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(model_file.to_bytes(build("dense")))
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("path", ["run/model.safetensors", "./run"])
def test_a_model_file_is_enough(path, here):
    """No store is needed; the files lie beside the model, and what was checked is said."""
    done = invoke("export", path, "--format", "pt2")
    assert done.exit_code == 0, done.output
    assert {file.name for file in (here / "run").glob("*.pt2")} == {f"{p}.pt2" for p in PARTS}
    assert done.stdout.splitlines()[0].startswith("run/model.pt2: checked on 1 and 7 random images")


def test_a_study_gets_its_run_folder_and_the_formats(here, tiny_spec, create_study, work):
    """The model that is exported is that of the run folder."""
    create = create_study(here / "aesearch.db", tiny_spec("model.architecture=dense"))
    work(create)
    create.dispose()
    done = invoke("export", "digits", "--out", "found", "--format", "pt2")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == "found"
    images = np.random.default_rng(1).random((3, 1, 8, 8), dtype=np.float32)
    np.testing.assert_allclose(
        load_pt2(here / "found" / "model.pt2")(images),
        aesearch.reconstruct("found", images),
        **ROUNDING,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run/model.safetensors", "--format", "tflite"], "format must be one of onnx, pt2"),
        (["run", "--format", "pt2"], "storage must be an existing store"),
        (["run/model.safetensors"], "storage must be an existing store"),
        (["run/other.safetensors", "--format", "pt2"], "storage must be an existing store"),
        (["./bad.safetensors", "--format", "pt2"], "must be a safetensors file"),
        (["./run", "--format", "pt2", "--out", "bad.safetensors"], "out must be a folder"),
    ],
)
def test_bad_input_is_named_and_nothing_is_made(arguments, message, here):
    """Exit 2, one message, no file more; a bare word is always a study."""
    (here / "bad.safetensors").write_bytes(b"no model")
    before = sorted(here.rglob("*"))
    done = invoke("export", *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert sorted(here.rglob("*")) == before
