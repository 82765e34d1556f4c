"""What a retraining depends on, and how its seeds are divided; nothing trains here."""

import json
from dataclasses import asdict
from hashlib import sha256

from aesearch.studies.spec.former import MEANT
from aesearch.studies.spec.resolved import ResolvedSpec
from aesearch.studies.spec.study import Configuration


def retrain_key(spec: ResolvedSpec, configuration: Configuration) -> str:
    """Name everything a retraining depends on besides the data: equal keys, equal weights."""
    chosen = asdict(configuration)
    training = spec.training.model_dump(mode="json", exclude={"epochs"})
    for name in ("optimizer", "schedule", "batch_size"):  # as the trial has them
        training[name] = chosen.pop(name)
    if spec.training.corruption == "none":
        # A key from before there were corruptions still names the same weights.
        chosen = {name: value for name, value in chosen.items() if "corruption" not in name}
        training = {name: value for name, value in training.items() if "corruption" not in name}
    # Keys from before there were these settings still name the same weights.
    for name, former in MEANT["model"].items():
        if chosen[name] == former:
            del chosen[name]
    if spec.training.averaging == "none":
        training = {name: v for name, v in training.items() if not name.startswith("averaging")}
    how = spec.retrain.model_dump(mode="json")
    if spec.retrain.min_delta_mode == "absolute":
        del how["min_delta_mode"]
    parts = {
        "seed": spec.seed,
        "configuration": chosen,
        "training": training,
        "retrain": how,
        "compute": spec.compute.model_dump(mode="json"),
        "limit": spec.data.limit,
    }
    # The same settings, but other weights since then; all others keep their keys.
    if configuration.code_activation == "relu" and configuration.dropout and _hides(configuration):
        parts["dropout"] = "behind the code too"
    in_bfloat16 = (spec.compute.device, spec.compute.precision) == ("cpu", "bfloat16")
    if configuration.architecture == "conv" and in_bfloat16:
        parts["convolutions"] = "in bfloat16"
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _hides(configuration: Configuration) -> bool:
    return configuration.architecture == "conv" or bool(configuration.hidden)


def seed_chunks(spec: ResolvedSpec) -> list[range]:
    """Split the seeds into populations by the same rule as the search: never by the workers."""
    step, n_seeds = spec.compute.population, spec.retrain.seeds
    return [range(start, min(start + step, n_seeds)) for start in range(0, n_seeds, step)]
