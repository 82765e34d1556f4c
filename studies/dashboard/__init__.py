"""What Optuna's dashboard shows of a study besides Optuna's own plots; nothing is served here."""
