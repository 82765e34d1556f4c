"""``aesearch.search`` on arrays: what it returns, what it keeps, and what it refuses."""

import pickle
import threading

import numpy as np
import pytest
import torch

import aesearch
from aesearch.api import keep_images
from aesearch.data.arrays.images import as_image_set
from aesearch.data.load import load
from aesearch.studies.errors import AesearchError, StudyMismatchError
from aesearch.studies.spec.study import StudySpec

SETTINGS = {
    "trials": 3,
    "epochs": 2,
    "folds": 2,
    "architecture": "dense",
    "workers": 1,
    "quiet": True,
    "pruner": "none",
    "set": ["search.score_epochs=1", "search.unstable_loss=1", "retrain.max_epochs=3"],
    "spec": {"retrain": {"seeds": 2}, "training": {"weight_decay": 1e-05}},
}


def pictures(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Squares at random places, and which half they are in."""
    rng = np.random.default_rng(seed)
    images = np.zeros((60, 9, 8), np.uint8)
    rows = rng.integers(0, 6, 60)
    texture = rng.integers(100, 256, (60, 3, 3))  # else a few components are all there is
    images[np.arange(60)[:, None], rows[:, None] + np.arange(3), 2:5] = texture
    return images, rows // 3


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Run a small study of arrays."""
    folder = tmp_path_factory.mktemp("arrays")
    images, labels = pictures()
    return aesearch.search(
        images, labels, storage=str(folder / "a.db"), out=folder / "out", **SETTINGS
    )


def test_the_tables_have_a_row_for_everything(result):
    """Trials; trials x folds x epochs; trials x folds."""
    assert list(result.trials["number"]) == [0, 1, 2]
    assert len(result.curves) == 3 * 2 * 2
    assert len(result.scores) == 3 * 2


def test_the_winner_is_the_lowest_mean_of_its_folds(result):
    """Value, parameters and specification are those of one trial."""
    best = result.trials.loc[result.trials["value"].idxmin()]
    assert result.value == best["value"]
    folds = result.scores.query(f"number == {best['number']}")["score"]
    assert result.value == pytest.approx(folds.mean())
    assert result.best_params["encoding_dim"] == best["encoding_dim"]
    assert isinstance(result.spec, StudySpec)
    assert result.spec.model.encoding_dim == best["encoding_dim"]
    assert result.spec.training.learning_rate == best["learning_rate"]
    assert result.spec.retrain.seeds == 2


def test_the_model_encodes_and_decodes(result):
    """A plain module with the winner's code size; its test error is the one that is told."""
    batch = torch.rand(5, 1, 9, 8)
    codes = result.model.encode(batch)
    assert codes.shape == (5, result.best_params["encoding_dim"])
    assert result.model.decode(codes).shape == batch.shape
    assert 0 < result.test_mse < 1
    assert result.model is result.model
    loaded = aesearch.load(result.folder / "model.safetensors")
    torch.testing.assert_close(loaded(batch), result.model(batch), rtol=0, atol=0)


def test_the_images_are_kept_for_the_workers_and_for_later(result):
    """The run folder holds them, the study is named after them."""
    images, labels = pictures()
    with np.load(result.folder / "images.npz") as kept:
        np.testing.assert_array_equal(kept["images"][:, 0], images)
        np.testing.assert_array_equal(kept["labels"], labels)
    assert result.spec.name.startswith("images-")
    assert result.spec.data.dataset == str(result.folder / "images.npz")


def test_names_of_classes_are_kept_with_the_images(tmp_path):
    """Texts become numbers; what they stand for lies beside them."""
    images, labels = pictures()
    path = keep_images(as_image_set(images, np.array(["ant", "bee"])[labels]), tmp_path)
    assert load(str(path)).class_names == ("ant", "bee")


def test_it_reads_well(result):
    """What a notebook shows names the winner, its error and the folder."""
    assert "Winner: trial" in repr(result)
    assert repr(result).endswith(f"Folder: {result.folder}")


def test_the_same_call_in_a_thread_finds_the_study_finished(result):
    """No signal handler, nothing trained again, the same tables."""
    again = []
    images, labels = pictures()
    thread = threading.Thread(
        target=lambda: again.append(
            aesearch.search(images, labels, storage=result.storage, out=result.folder, **SETTINGS)
        )
    )
    thread.start()
    thread.join()
    assert again[0].summary == result.summary
    assert again[0].trials.equals(result.trials)


def test_a_result_and_its_specification_pass_through_pickle(result):
    """Another process gets them whole: values, tables, model."""
    again = pickle.loads(pickle.dumps(result))
    assert again.spec == result.spec
    assert (again.value, again.best_params) == (result.value, result.best_params)
    assert again.trials.equals(result.trials)
    images = torch.from_numpy(pictures()[0][:2])
    assert torch.equal(again.model.encode(images), result.model.encode(images))
    assert again.study.best == result.study.best
    assert pickle.loads(pickle.dumps(StudySpec())) == StudySpec()
    study = pickle.loads(pickle.dumps(result.study))
    assert study.summary() == result.summary


def test_images_of_a_search_that_cannot_begin_are_not_kept(tmp_path, monkeypatch):
    """The next call may come with others under the same name."""
    monkeypatch.chdir(tmp_path)
    images, _ = pictures()
    with pytest.raises(AesearchError, match="folds"):
        aesearch.search(images, study="mine", **SETTINGS | {"folds": 500})
    assert not (tmp_path / "runs/mine").exists()


def test_other_images_never_replace_those_of_a_study(result):
    """The file that the study trains on stays as it is."""
    before = (result.folder / "images.npz").read_bytes()
    with pytest.raises(StudyMismatchError, match=r"images.npz must hold the images of this study"):
        aesearch.search(pictures(1)[0], storage=result.storage, out=result.folder, **SETTINGS)
    assert (result.folder / "images.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": pictures()[0], "dataset": "digits"}, "dataset must not be given beside images"),
        ({"labels": [1, 2]}, "labels must be given beside images"),
        ({"workers": 0}, "workers must be >= 1, got 0"),
        ({"images": np.zeros((3, 9))}, "images must"),
        ({"folds": 1}, "search.folds: must be >= 2, got 1"),
        ({"preset": "mnist", "spec": {}}, "PRESET must not be given beside --spec"),
    ],
)
def test_bad_arguments_are_named(arguments, message, tmp_path, monkeypatch):
    """As AesearchError and as the ValueError that a caller would catch; nothing is made."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(aesearch.AesearchError, match=message) as caught:
        aesearch.search(**arguments)
    assert isinstance(caught.value, ValueError)
    assert list(tmp_path.iterdir()) == []
