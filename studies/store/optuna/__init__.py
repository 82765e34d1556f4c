"""What is Optuna's in the store: its tables in bulk, which of its trials are ours, and wishes."""
