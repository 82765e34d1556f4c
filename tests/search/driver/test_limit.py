"""A study with a limit of weights, from its first message to the trials of its table."""

from types import SimpleNamespace

import pytest
from chaos import create

from aesearch.data.study_data import load_problem
from aesearch.driver.create import create_or_resume
from aesearch.sampling.wanted import WishError
from aesearch.studies.errors import StudyMismatchError
from aesearch.studies.spec.weights import n_parameters
from aesearch.studies.store import search_results, study_rows
from aesearch.workers.schedule import suggest_up_to

LIMIT = 14_000
LIMITED = (
    "space.architecture=null",
    "space.encoding_dim.choices=[4, 32, 80]",
    "space.hidden.choices=[16, 48, 96, 512]",
    f"search.max_parameters={LIMIT}",
    "search.trials=8",
)


@pytest.fixture
def begin(tmp_path, tiny_spec):
    """Create a study, or go on with it; what was said."""

    def call(*overrides, enqueue=()):
        problem = load_problem(tiny_spec(*overrides), device="cpu")
        said = []
        engine = study_rows.open_store(str(tmp_path / "s.db"))
        try:
            create_or_resume(engine, problem, SimpleNamespace(message=said.append), enqueue=enqueue)
        finally:
            engine.dispose()
        return said

    return call


def test_what_is_left_out_is_said(begin):
    """Once, when the study is created."""
    said = begin(*LIMITED)
    assert said[0] == "at most 14,000 weights; left out: encoding_dim 80, hidden 512"
    assert not any("weights" in line for line in begin(*LIMITED))


def test_narrower_widths_are_said(begin):
    """Those that nobody chose; an architecture that goes is named, too."""
    both = ("space.architecture.choices=[dense, conv]", "model.conv.channels=[16, 32, 64]")
    both += ("model.dense.hidden=auto",)
    said = begin(*both, "space.encoding_dim.choices=[4, 8]", "search.max_parameters=9000")
    assert said[0] == "at most 9,000 weights; hidden 43-21; left out: architecture conv"


def test_another_limit_is_another_study(begin):
    """Its trials are others; other objectives choose among the same ones."""
    begin(*LIMITED)
    begin(*LIMITED, "search.objectives=[mse, n_parameters]", "search.select=knee")
    with pytest.raises(StudyMismatchError, match=r"search\.max_parameters: 14000 -> 13999"):
        begin(*LIMITED, "search.max_parameters=13999")


def test_an_enqueued_configuration_that_is_too_large_is_refused(begin):
    """Nothing is made; a value that the limit took out of the space is said to be."""
    with pytest.raises(WishError, match="got 22880 with dense, hidden 96, encoding_dim 32"):
        begin(*LIMITED, enqueue=[{"hidden": 96, "encoding_dim": 32}])
    said = r"one of 16, 48, 96 \(more than search.max_parameters, 14000, is left out\), got '512'"
    with pytest.raises(WishError, match=said):
        begin(*LIMITED, enqueue=[{"hidden": 512}])
    assert begin(*LIMITED)[0].startswith("at most 14,000 weights")


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_no_trial_of_the_table_has_more(tmp_path, tiny_spec, sampler):
    """Of all that is suggested in a store."""
    engine = create(str(tmp_path / "s.db"), tiny_spec(*LIMITED, f"search.sampler={sampler}"))
    study = study_rows.find_study(engine, "digits")
    spec = study_rows.stored_spec(study)
    assert suggest_up_to(engine, study, spec, 0)
    trials, _ = search_results.history(engine, study)
    params = [trial.params for trial in trials if trial.params]
    engine.dispose()
    assert params
    assert all(n_parameters(spec.configuration(own), (1, 8, 8)) <= LIMIT for own in params)
