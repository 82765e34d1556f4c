"""What the retrained model is worth on the test set: numbers and pictures; no store, no files."""
