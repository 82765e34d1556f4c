"""Training of a generation of trials, and of the winner; what is trained on is in ``data``."""
