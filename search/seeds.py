"""Every random number's seed, derived from the study's one seed and a written purpose."""

import hashlib

import numpy as np


def derive_seed(seed: int, purpose: str, *indices: int) -> int:
    """Give a seed of 63 bits for one purpose, independent of all others.

    Parameters
    ----------
    seed : int
        Seed of the study.
    purpose : str
        A constant word: "member", "retrain", "suggest".
    indices : int
        What tells two uses of one purpose apart: trial and fold, seed index, generation.
    """
    word = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], "big")
    state = np.random.SeedSequence([seed, word, *indices]).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))
