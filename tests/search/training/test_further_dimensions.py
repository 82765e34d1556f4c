"""What else can be searched: each trial is that of a study where its value is fixed."""

import pytest

from aesearch.studies.errors import SpecError
from aesearch.studies.results.best_result import chosen_spec
from aesearch.studies.spec.load import load_spec
from aesearch.studies.store import study_rows

FIXED = (
    *("data.limit=90", "training.epochs=3", "model.dense.hidden=[12]", "search.sampler=grid"),
    *("model.conv.channels=[3,4,5]", "model.conv.hidden=12", "training.batch_size=16"),
    *("search.unstable_loss=10", "retrain.seeds=1", "retrain.max_epochs=2", "compute.device=cpu"),
    "compute.population=3",  # one trial each: populations of other sizes round otherwise
    *("search.trials=2", "search.generation_size=2", "search.lookahead=1", "space.defaults=false"),
)


def trials(create_study, work, path, *overrides):
    engine = create_study(path, load_spec(overrides=[*FIXED, *overrides]))
    work(engine)
    snapshot = study_rows.snapshot(engine, "digits")
    assert snapshot.retrains
    return snapshot


@pytest.mark.parametrize(
    ("dimension", "first", "second"),
    [
        ("training.batch_size", 16, 30),
        ("training.schedule", "none", "cosine"),
        ("training.optimizer", "adam", "sgd"),
        ("model.activation", "gelu", "relu"),
        ("model.conv.channels", "3-4-5", "2-4-3"),
        ("model.shortcut", "pca", "none"),
    ],
)
def test_a_trial_is_that_of_a_study_with_its_value(
    tmp_path, create_study, work, dimension, first, second
):
    """Searched in one generation, the second trial is what it is where nothing else is tried."""
    name = dimension.rpartition(".")[2]
    architecture = "conv" if name == "channels" else "dense"
    base = [f"model.architecture={architecture}", "model.dropout=0.1"]
    base += ["training.optimizer=adam"] if name == "optimizer" else []
    base += ["model.output=clamp"] if name == "shortcut" else []
    both = trials(
        *(create_study, work, tmp_path / "both.db", *base),
        f"space.{name}.choices=[{first}, {second}]",
    )
    fixed = f"[{second.replace('-', ',')}]" if name == "channels" else second
    alone = trials(
        *(create_study, work, tmp_path / "alone.db", *base, f"{dimension}={fixed}"),
        "space.dropout.choices=[0.2, 0.1]",
    )
    assert both.trials[1].params == {name: second}
    assert both.trials[1].fold_scores == alone.trials[1].fold_scores
    assert both.trials[0].fold_scores != both.trials[1].fold_scores


def test_channels_are_of_convolutions_only():
    """A dense network has none, and a trial of one no such parameter."""
    spec = load_spec(
        overrides=["space.architecture.choices=[dense, conv]", "space.channels.choices=[3-4-5]"]
    )
    assert "channels" not in spec.space.active("dense")
    assert "channels" in spec.space.active("conv")
    with pytest.raises(SpecError, match="three channels >= 1 such as 16-32-64, got '3-4'"):
        load_spec(overrides=["space.channels.choices=[3-4]"])


def test_optimizers_whose_decay_differs_are_not_searched_together():
    """AdamW's weight decay of 0.3 would be that of SGD."""
    with pytest.raises(SpecError, match="adamw alone or of adam and sgd"):
        load_spec(overrides=["space.optimizer.choices=[adamw, sgd]"])


@pytest.mark.parametrize(
    ("name", "setting"),
    [("momentum", "training.momentum"), ("averaging", "training.averaging")],
)
def test_what_cannot_be_searched_says_so(name, setting):
    """With the setting that fixes it."""
    with pytest.raises(SpecError, match=f"space.{name}: must not be searched; set {setting}"):
        load_spec(overrides=[f"space.{name}.choices=[a]"])


def test_a_searched_shortcut_is_clamped_and_goes_to_its_own_setting(tmp_path, create_study, work):
    """Both starts in one study, the winner's in its specification; a relu code has none."""
    found = trials(
        *(create_study, work, tmp_path / "both.db", "space.shortcut.choices=[pca, none]"),
        *("training.epochs=auto", "retrain.max_epochs=2", "search.pruner=none"),
        "compute.population=64",
    )
    assert found.spec.model.output == "clamp"
    assert [trial.params["shortcut"] for trial in found.trials] == ["pca", "none"]
    assert all(trial.state == "complete" for trial in found.trials)
    # They are no members of one population: after two epochs a random start is far behind PCA.
    assert found.trials[0].value < 0.5 * found.trials[1].value
    for start in ("pca", "none"):
        configuration = found.spec.configuration({"shortcut": start})
        assert configuration.shortcut == start
        assert chosen_spec(found.spec, configuration).model.shortcut == start
    with pytest.raises(SpecError, match=r"space\.shortcut: must be none or auto for a relu code"):
        load_spec(overrides=["space.shortcut.choices=[pca, none]", "model.code_activation=relu"])
    with pytest.raises(SpecError, match=r"space\.shortcut: must be none or auto for model\.output"):
        load_spec(overrides=["space.shortcut.choices=[pca, none]", "model.output=sigmoid"])
