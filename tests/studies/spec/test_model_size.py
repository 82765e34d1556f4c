"""Networks that no store could keep are refused before anything is trained."""

import pytest

from aesearch.driver.create import leave_study
from aesearch.models.autoencoder import build_autoencoder
from aesearch.studies.errors import SpecError
from aesearch.studies.spec import model_size
from aesearch.studies.spec.load import load_spec
from aesearch.studies.spec.model_size import check_weights
from aesearch.studies.spec.resolved import resolve
from aesearch.studies.store import study_rows
from aesearch.terminal.display import make_display

SHAPE = (1, 8, 8)


def study(*overrides):
    """Give a resolved specification for images of 8 x 8."""
    rate = "space={defaults: false, learning_rate: {low: 0.001, high: 0.01}}"
    spec = load_spec(overrides=[rate, *overrides])
    return resolve(spec, image_shape=SHAPE, n_train=100, device="cpu")


@pytest.mark.parametrize(
    ("overrides", "encoding_dim", "hidden"),
    [
        (["model.encoding_dim=5", "model.dense.hidden=[24, 12]"], 5, (24, 12)),
        (["model.encoding_dim=5", "model.dense.hidden=[]"], 5, ()),
        (["space.encoding_dim={low: 2, high: 9}", "model.dense.hidden=[24]"], 9, (24,)),
        (["space.encoding_dim.choices=[7, 3]", "space.hidden.choices=[8, 24-12, 16]"], 7, (24, 12)),
        (["space.architecture.choices=[conv, dense]", "model.dense.hidden=[24]"], 16, (24,)),
    ],
)
def test_the_limit_is_that_of_the_largest_network(monkeypatch, overrides, encoding_dim, hidden):
    """As many bytes as the real network has are let through, and one less is refused."""
    model = build_autoencoder(
        architecture="dense", image_shape=SHAPE, encoding_dim=encoding_dim, hidden=hidden
    )
    n_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    spec = study(*overrides)
    monkeypatch.setitem(model_size.LARGEST_WEIGHTS, "sqlite", n_bytes)
    check_weights(spec, 64, "sqlite")
    monkeypatch.setitem(model_size.LARGEST_WEIGHTS, "sqlite", n_bytes - 1)
    with pytest.raises(SpecError, match=r"hidden: must make networks of at most \d+ MB"):
        check_weights(spec, 64, "sqlite")


def test_convolutions_have_no_limit(monkeypatch):
    """Their weights do not grow with the image."""
    monkeypatch.setitem(model_size.LARGEST_WEIGHTS, "sqlite", 1)
    check_weights(study("model.architecture=conv"), 64, "sqlite")


@pytest.mark.parametrize(
    ("backend", "kept"), [("postgresql", "500 MB, which is what a Post"), ("sqlite", "950 MB, wh")]
)
def test_every_store_has_its_limit(backend, kept):
    """What PostgreSQL gives back as text is about half of what an SQLite file takes."""
    spec = study("model.dense.hidden=[2560]")
    check_weights(spec, 3 * 64 * 64, backend)
    with pytest.raises(SpecError) as caught:
        check_weights(spec, 3 * 128 * 128, backend)
    (problem,) = caught.value.problems
    assert problem.startswith(f"model.dense.hidden: must make networks of at most {kept}")
    assert "got 1007 MB with 2560 units on 49,152 values" in problem


def test_a_study_that_is_too_large_is_not_made(tmp_path, tiny_spec, monkeypatch):
    """The store stays as it was; a study that is there goes on."""

    def give(name):
        with make_display(quiet=True) as display:
            leave_study(tiny_spec(f"name={name}"), storage=str(tmp_path / "s.db"), display=display)

    give("before")
    monkeypatch.setitem(model_size.LARGEST_WEIGHTS, "sqlite", 1)
    with pytest.raises(SpecError, match="fewer units"):
        give("after")
    give("before")
    engine = study_rows.open_store(str(tmp_path / "s.db"))
    assert study_rows.study_names(engine) == ["before"]
    engine.dispose()
