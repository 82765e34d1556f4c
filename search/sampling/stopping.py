"""When a search ends before all of its trials: a pure function of finished results."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from aesearch.studies.spec.sections import StopSpec


def stop_reason(rule: StopSpec | None, finished: Sequence[FrozenTrial]) -> str | None:
    """Say why no further generation is begun; None where the search goes on.

    Parameters
    ----------
    rule : StopSpec or None
    finished : sequence of FrozenTrial
        In number order: those whose results the next generation may know. So it does not matter
        how many workers there are, and when they come.
    """
    if rule is None:
        return None
    best, since = None, 0
    for trial in finished:
        since += 1
        chosen = trial.state == TrialState.COMPLETE and "unstable" not in trial.user_attrs
        if chosen and (best is None or float(trial.value or 0.0) < best):
            best, since = float(trial.value or 0.0), 0
    if best is None:
        return None
    if rule.target is not None and best <= rule.target:
        return f"the target {rule.target:g} is reached with {best:.4g}"
    if rule.no_improvement is not None and since >= rule.no_improvement:
        return f"no trial of the last {since} was better than {best:.4g}"
    return None
