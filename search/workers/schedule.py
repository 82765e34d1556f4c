"""What is decided between pieces of work: what to try next, whom to choose; nothing trains here."""

import logging
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial
from sqlalchemy.engine import Engine

from aesearch.sampling.stopping import stop_reason
from aesearch.sampling.suggest import FINISHED, distributions, suggest
from aesearch.sampling.wanted import WishError, completed
from aesearch.studies.errors import ChoiceReopenedError
from aesearch.studies.results.selection import choose, selection_sizes
from aesearch.studies.spec.resolved import ResolvedSpec
from aesearch.studies.spec.study import Configuration
from aesearch.studies.store import ledger, retrain_results, search_results, status, study_rows
from aesearch.training.retrain_key import retrain_key, seed_chunks

log = logging.getLogger("aesearch.worker")


def known_results(
    spec: ResolvedSpec, trials: Sequence[FrozenTrial], firsts: Sequence[int], position: int
) -> list[FrozenTrial]:
    """Trials of the generations whose results generation ``position`` may use."""
    horizon = position - spec.search.lookahead + 1
    return list(trials[: firsts[horizon]]) if horizon > 0 else []


def suggest_up_to(
    engine: Engine,
    study: study_rows.StudyRow,
    spec: ResolvedSpec,
    position: int,
    finished: dict[int, FrozenTrial] | None = None,
) -> bool:
    """Make sure that every generation up to ``position`` has its parameters.

    Whoever comes first computes them; the result is the same. ``finished`` is as for
    ``search_results.history``.

    Returns
    -------
    bool
        False where the search ends before that generation.
    """
    for generation in search_results.unsuggested(engine, study, position):
        if not ledger.is_there(engine, study, generation.position):
            return False  # the search has just ended before it
        while not _suggest_one(engine, study, spec, generation, finished):
            pass  # somebody enqueued a trial in this moment
    return ledger.is_there(engine, study, position)


def _suggest_one(
    engine: Engine,
    study: study_rows.StudyRow,
    spec: ResolvedSpec,
    generation: ledger.Lease,
    finished: dict[int, FrozenTrial] | None,
) -> bool:
    """Give one generation its parameters: what was enqueued first; False if that changed."""
    channel, height, width = study.facts["image_shape"]
    image_shape = (channel, height, width)
    seen = search_results.pending_wishes(engine, study)
    wanted: list[dict[str, Any]] = []
    refused: dict[int, str] = {}
    for count, wish in enumerate(seen):
        if len(wanted) == generation.size:
            seen = seen[:count]
            break
        try:
            wanted.append(completed(spec, wish.params, image_shape))
        except WishError as error:
            refused[wish.trial_id] = str(error)
    trials, firsts = search_results.history(engine, study, finished)
    known = known_results(spec, trials, firsts, generation.position)
    assert all(trial.state in FINISHED for trial in known), "the lookahead was not kept"
    reason = stop_reason(spec.search.stop, known)
    if reason is not None:
        search_results.stop_search(engine, generation, reason)
        return True
    window = trials[len(known) : generation.first]
    found = suggest(
        spec, generation.position, generation.members, known, window, wanted, image_shape
    )
    return search_results.write_suggestions(
        engine, generation, found, distributions(spec), seen=seen, refused=refused
    )


def suggest_ahead(
    engine: Engine, study: study_rows.StudyRow, spec: ResolvedSpec, position: int
) -> None:
    """Suggest the generations up to ``position`` if all that they may know is known by now.

    Whoever comes to them later does it otherwise, with the same result: so nothing that goes
    wrong here matters.
    """
    try:
        trials, firsts = search_results.history(engine, study)
        last = min(position, len(firsts) - 1)
        if all(trial.state in FINISHED for trial in known_results(spec, trials, firsts, last)):
            suggest_up_to(engine, study, spec, last)
    except Exception as error:  # noqa: BLE001 - of the store as of the sampler
        log.info("study %r: nothing was suggested ahead (%s)", study.name, error)


def chosen_configuration(
    engine: Engine, study: study_rows.StudyRow, spec: ResolvedSpec
) -> Configuration:
    """Give the configuration of the trial that was chosen; ChoiceReopenedError without one."""
    snapshot = study_rows.snapshot(engine, study.name)
    if snapshot.chosen is None:
        raise ChoiceReopenedError.of(study.name)
    return spec.configuration(snapshot.trials[snapshot.chosen].params)


def settle(engine: Engine, name: str) -> bool:
    """Choose the winner and lay out its retraining once the search is over.

    It is over when every trial is finished, or at the time limit those that were begun.

    Returns
    -------
    bool
        Whether the choice stands; False also where what it was made from has changed meanwhile.

    Raises
    ------
    RunFailedError
        No trial may be chosen.
    """
    study = study_rows.find_study(engine, name)
    if not ledger.search_is_over(engine, study):
        return False
    spec = study_rows.stored_spec(study)
    snapshot = study_rows.snapshot(engine, name)
    sizes = selection_sizes(spec, snapshot.image_shape)
    winner = choose(snapshot.trials, spec.search.select, sizes)
    key = retrain_key(spec, spec.configuration(winner.params))
    return retrain_results.begin_retraining(
        engine,
        study,
        number=winner.number,
        retrain_key=key,
        chunks=seed_chunks(spec),
        n_finished=sum(trial.state in status.FINISHED for trial in snapshot.trials),
    )
