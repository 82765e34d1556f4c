"""A search that ends early ends at the same trial, whoever searches, killed or not."""

import os

import pytest
from chaos import bury, check_whole, create, forked_worker, killer, table_of
from optuna.trial import TrialState, create_trial

import aesearch
from aesearch.driver.create import leave_study
from aesearch.sampling.stopping import stop_reason
from aesearch.studies.errors import SpecError
from aesearch.studies.spec.sections import StopSpec
from aesearch.studies.store import study_rows
from aesearch.terminal.display import make_display

STOPPING = (
    *("search.trials=9", "search.pruner=none", "retrain.seeds=1", "search.sampler=random"),
    "search.stop={target: 1.0}",
)


def trials(*values):
    """Finished trials in order: None for a pruned one, a text for an unstable one."""
    return [
        create_trial(state=TrialState.PRUNED)
        if value is None
        else create_trial(
            value=float(value),
            user_attrs={"unstable": "high"} if isinstance(value, str) else {},
        )
        for value in values
    ]


@pytest.mark.parametrize(
    ("rule", "finished", "said"),
    [
        (None, trials(1, 1, 1), None),
        (StopSpec(no_improvement=2), trials(), None),
        (StopSpec(no_improvement=2), trials(None, None, None), None),
        (StopSpec(no_improvement=2), trials(3, 2, 1), None),
        (
            StopSpec(no_improvement=2),
            trials(1, 2, None),
            "no trial of the last 2 was better",
        ),
        (StopSpec(no_improvement=2), trials(1, 1, "0.5"), "no trial of the last 2"),
        (StopSpec(no_improvement=3), trials(1, 1, 1), None),
        (StopSpec(target=0.5), trials(1, "0.4"), None),
        (StopSpec(target=0.5), trials(1, 0.5, 2), "the target 0.5 is reached with 0.5"),
    ],
)
def test_the_rules(rule, finished, said):
    """Pruned and unstable trials are no better than any; a tie is no improvement."""
    found = stop_reason(rule, finished)
    assert found is None if said is None else found.startswith(said)


def test_a_rule_that_says_nothing_is_refused(tiny_spec):
    """Neither of the two."""
    with pytest.raises(SpecError, match="must have no_improvement, target or both"):
        tiny_spec("search.stop={}")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_spec):
    """What one worker makes of it: the table."""
    path = tmp_path_factory.mktemp("alone") / "s.db"
    engine = create(path, tiny_spec(*STOPPING))
    assert os.waitpid(forked_worker(path), 0)[1] == 0
    yield table_of(engine)
    engine.dispose()


def test_it_ends_where_the_third_generation_would_begin(alone):
    """That one may know the first one's results: four trials, the last of them trained too."""
    assert [trial[:2] for trial in alone[0]] == [(n, "complete") for n in range(4)]


@pytest.mark.parametrize(
    "commit", [7, 8, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5, 6, 9))]
)
def test_killed_around_the_end_of_the_search(new_store, tiny_spec, alone, commit):
    """By one, two or three workers, on both databases: the same trials, and none is left over."""
    storage = new_store("killed")
    engine = create(storage, tiny_spec(*STOPPING))
    child = forked_worker(storage, killer(commit, after=commit % 2 == 0))
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    bury(engine, child)
    children = [forked_worker(storage) for _ in range(1 + commit % 3)]
    assert {os.waitpid(child, 0)[1] for child in children} == {0}
    assert table_of(engine) == alone
    check_whole(engine)
    assert study_rows.find_study(engine, "digits").stopped.startswith("the target 1 is reached")
    engine.dispose()


def test_the_same_command_adds_nothing_and_another_rule_goes_on(tmp_path, tiny_spec, alone):
    """Resumed, it is finished; without the rule it has all of its trials, the first the same."""
    path = str(tmp_path / "s.db")

    def ask(*overrides):
        with make_display(quiet=True) as display:
            left = leave_study(tiny_spec(*STOPPING, *overrides), storage=path, display=display)
        assert os.waitpid(forked_worker(path), 0)[1] == 0
        return left

    ask()
    assert (ask().trials, ask("search.trials=8").trials) == (4, 4)
    assert ask("search.stop=null").trials == 9
    engine = study_rows.open_store(path)
    assert table_of(engine)[0][:4] == alone[0]
    assert len(table_of(engine)[0]) == 9
    engine.dispose()


def test_a_callback_is_told_of_each_trial_and_may_stop(tmp_path, monkeypatch, tiny_spec):
    """What it raises ends the call; the same call goes on, and tells of the others only."""
    monkeypatch.chdir(tmp_path)
    spec = tiny_spec("search.trials=4", "retrain.seeds=1", "search.pruner=none")
    told = []

    def stop(trial):
        told.append(trial.number)
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        aesearch.search(spec=spec, workers=1, quiet=True, on_trial=stop)
    result = aesearch.search(
        spec=spec, workers=1, quiet=True, on_trial=lambda trial: told.append(trial.number)
    )
    assert len(told) == len(set(told))
    assert set(told) <= set(result.trials["number"])
