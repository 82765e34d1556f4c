"""Training of many networks of one architecture as one batched computation."""
