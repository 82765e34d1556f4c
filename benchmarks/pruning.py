"""What pruning saves and what it costs: each pruner replayed on recorded full studies.

Runs studies without pruning (one per seed, in parallel processes), then lets each pruner
watch the recorded curves in the order and with the knowledge it would have had: its own
generation, and results of generations at least ``lookahead`` before it. What the sampler would
have suggested instead is not replayed; ``--live`` runs whole studies with each pruner instead,
and holds what they found against the studies without pruning.

    python benchmarks/pruning.py                                        # digits, 4 seeds
    python benchmarks/pruning.py --live --seeds 6
    python benchmarks/pruning.py --dataset mnist --data-dir DIR --limit 6000 --batch-size 200

Prints one JSON line per pruner: epochs saved, and regret (the value of the trial that would
have been chosen minus that of the best, in standard errors of the best over its folds).
"""

import argparse
import json
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from optuna.trial import TrialState, create_trial

from aesearch.data.study_data import load_problem
from aesearch.models.runtime import prepare_process
from aesearch.sampling.suggest import Pruner, rungs
from aesearch.studies.spec.load import load_spec
from aesearch.studies.store import search_results, study_rows
from aesearch.workers.schedule import known_results
from aesearch.workers.worker import Worker

PRUNERS = [
    ("none", ()),
    *(("median", (f"search.warmup_epochs={w}",)) for w in (1, 2, 5)),
    *(("median", (f"search.warmup_epochs={w}", "search.startup_trials=5")) for w in (1, 2, 5)),
    *(
        ("halving", (f"search.warmup_epochs={w}", f"search.reduction_factor={r}"))
        for w in (1, 2, 4)
        for r in (2, 3, 4)
    ),
    *(("hyperband", (f"search.warmup_epochs={w}",)) for w in (1, 2)),
]


_TPE, _GP = "search.sampler=tpe", "search.sampler=gp"
_HALVING = ("halving", "search.warmup_epochs=1", "search.reduction_factor=4")
LIVE = [  # each sampler's studies without pruning come first: what the others are held against
    ("none", _GP),
    (*_HALVING, _GP),
    (*_HALVING, _GP, "search.startup_trials=10"),
    ("none", _TPE),
    (*_HALVING, _TPE),
    (*_HALVING, _TPE, "search.startup_trials=0"),
    (*_HALVING, _TPE, "search.startup_trials=5"),
    ("halving", "search.warmup_epochs=2", "search.reduction_factor=3", _TPE),
    ("hyperband", "search.warmup_epochs=1", "search.reduction_factor=3", _TPE),
    ("median", "search.warmup_epochs=1", "search.startup_trials=5", _TPE),
]


def record(arguments, seed, pruner="none", settings=()):
    """Run one study; return its trials and the first number of each generation."""
    prepare_process(1)
    overrides = [f"seed={seed}", f"data.dataset={arguments.dataset}", f"search.pruner={pruner}"]
    overrides += settings
    overrides += [f"search.trials={arguments.trials}"]
    if arguments.data_dir:
        overrides.append(f"data.data_dir={arguments.data_dir}")
    if arguments.limit:
        overrides.append(f"data.limit={arguments.limit}")
    if arguments.batch_size:
        overrides.append(f"training.batch_size={arguments.batch_size}")
    problem = load_problem(load_spec(overrides=overrides), device="cpu")
    spec = problem.spec
    with tempfile.TemporaryDirectory() as temporary:
        # A kept study goes on where it stopped, and is read when it is finished.
        keep = arguments.keep if pruner == "none" else None
        folder = Path(keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        engine = study_rows.open_store(str(folder / f"{arguments.dataset}-{seed}.db"))
        study_rows.create_study(
            engine,
            spec.name,
            spec=spec,
            facts=problem.facts(),
            n_trials=spec.search.trials,
            generation_size=spec.search.generation_size,
            version="benchmark",
        )
        Worker(engine, spec.name, kinds=("search",), stop=threading.Event()).run()
        return search_results.history(engine, study_rows.find_study(engine, spec.name))


def replay(arguments, seed, trials, firsts, *, pruner, overrides):
    """Let a pruner watch a recorded study: (epochs trained, epochs in full, regret)."""
    asked = load_spec(
        overrides=[
            *(f"seed={seed}", f"search.pruner={pruner}", "search.lookahead=2"),
            *("search.sampler=tpe", "search.startup_trials=10", *overrides),
        ]
    )
    spec = asked.model_copy(
        update={
            "search": asked.search.model_copy(
                update={
                    "lookahead": arguments.lookahead,
                    "warmup_epochs": asked.search.warmup_epochs
                    if asked.search.warmup_epochs != "auto"
                    else 5,
                }
            )
        }
    )
    n_epochs = spec.training.epochs
    seen, trained = [], 0
    for position, first in enumerate(firsts):
        last = firsts[position + 1] if position + 1 < len(firsts) else len(trials)
        own = {n: trials[n] for n in range(first, last)}
        alive = [n for n in own if trials[n].state == TrialState.COMPLETE]
        watcher = Pruner(spec, known_results(spec, seen, firsts, position), own)
        ended = {}
        before = 0
        for rung in rungs(spec)[:-1]:
            reports = {
                n: {e: trials[n].intermediate_values[e] for e in range(before + 1, rung + 1)}
                for n in alive
            }
            for loser in watcher.losers(alive, reports):
                ended[loser] = rung
                alive.remove(loser)
            before = rung
        for n, trial in own.items():
            epochs = ended.get(n, n_epochs)
            trained += epochs
            reached = {e: v for e, v in trial.intermediate_values.items() if e <= epochs}
            pruned = n in ended or trial.state != TrialState.COMPLETE
            seen.append(
                create_trial(
                    state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
                    value=reached[max(reached)] if pruned else trial.value,
                    params=trial.params,
                    distributions=trial.distributions,
                    intermediate_values=reached,
                    user_attrs=trial.user_attrs,
                    system_attrs=watcher.memory(n),
                )
            )

    best = min(t.value for t in eligible(trials))
    error = next(t.user_attrs["standard_error"] for t in trials if t.value == best)
    return trained, n_epochs * len(trials), (min(t.value for t in eligible(seen)) - best) / error


def eligible(trials):
    """Complete and stable trials."""
    return [t for t in trials if t.state == TrialState.COMPLETE and "unstable" not in t.user_attrs]


def live(arguments, pool):
    """Run whole studies with each pruner and print what they found beside those without."""
    n_epochs = 0
    found = {}
    for pruner, *settings in LIVE:
        runs = pool.map(
            record,
            *zip(
                *[(arguments, seed, pruner, settings) for seed in range(arguments.seeds)],
                strict=True,
            ),
        )
        studies = [trials for trials, _ in runs]
        best = np.array([min(t.value for t in eligible(trials)) for trials in studies])
        used = [sum(max(t.intermediate_values, default=0) for t in trials) for trials in studies]
        if pruner == "none":
            n_epochs = max(used)
            error = [min(eligible(t), key=lambda x: x.value) for t in studies]
            found = {
                "best": best,
                "error": np.array([t.user_attrs["standard_error"] for t in error]),
            }
        regret = (best - found["best"]) / found["error"]
        print(
            json.dumps(
                {
                    "pruner": pruner,
                    "settings": [text.removeprefix("search.") for text in settings],
                    "epochs_saved": round(1 - float(np.mean(used)) / n_epochs, 3),
                    "best": [round(float(b), 5) for b in best],
                    "mean_best": round(float(best.mean()), 5),
                    "mean_regret_standard_errors": round(float(regret.mean()), 2),
                    "dataset": arguments.dataset,
                    "limit": arguments.limit,
                    "trials": arguments.trials,
                }
            ),
            flush=True,
        )


def main():
    """Record, replay, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--keep", help="folder for the recorded studies, to replay them again")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--lookahead", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--live", action="store_true", help="run the studies with each pruner")
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.processes) as pool:
        if arguments.live:
            live(arguments, pool)
            return
        studies = list(pool.map(record, [arguments] * arguments.seeds, range(arguments.seeds)))
    for pruner, overrides in PRUNERS:
        rows = np.array(
            [
                replay(arguments, seed, trials, firsts, pruner=pruner, overrides=overrides)
                for seed, (trials, firsts) in enumerate(studies)
            ]
        )
        print(
            json.dumps(
                {
                    "pruner": pruner,
                    "settings": [text.removeprefix("search.") for text in overrides],
                    "epochs_saved": round(float(1 - rows[:, 0].sum() / rows[:, 1].sum()), 3),
                    "regret_standard_errors": [round(float(r), 2) for r in rows[:, 2]],
                    "dataset": arguments.dataset,
                    "limit": arguments.limit,
                    "trials": arguments.trials,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
