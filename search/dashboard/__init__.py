"""Optuna's dashboard behind a guard; what it shows is written by ``studies.dashboard``."""
