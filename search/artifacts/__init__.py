"""The files that a study leaves: model, ``best.yaml``, run folder, exported formats."""
