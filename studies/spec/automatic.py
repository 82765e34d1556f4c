"""How much trains together, by device and problem size; never by how many workers there are."""

from dataclasses import dataclass

# Sample-pixels below which a member is too small to fill a core alone. Digits has about 0.09
# million, MNIST 47 million; where exactly the change lies between them matters little.
SMALL_PROBLEM = 2_000_000
# Values of one image beyond which the members of a generation, all in memory at once, could
# fill it: with a layer of 2,048 units each takes 64 bytes for every one of them and unit.
SMALL_IMAGE = 4096


@dataclass(frozen=True)
class Placement:
    """What of a study is fixed by the device and the size of its data.

    Attributes
    ----------
    population : int
        Members that train as one batched computation, at most.
    generation_size : int
        Consecutive trials that are suggested, leased and trained together.
    lookahead : int
        Generation j may start when all generations <= j - lookahead are finished.
    threads : int
        Threads of each worker on a CPU.
    precision : str
        Type of the arithmetic.
    """

    population: int
    generation_size: int
    lookahead: int
    threads: int
    precision: str = "float32"


def placement(*, device: str, n_train: int, pixels: int, fast_bfloat16: bool = False) -> Placement:
    """Choose what trains together; equal arguments give an equal study on any machine.

    Parameters
    ----------
    device : {"cpu", "cuda", "mps"}
    n_train : int
        Training samples, all folds together; >= 1.
    pixels : int
        Values of one sample (channels x height x width); >= 1.
    fast_bfloat16 : bool
        Whether this CPU has bfloat16 products of its own.

    Notes
    -----
    ======  ==================  ==========  ===============  =========  =======
    device  n_train x pixels    population  generation_size  lookahead  threads
    ======  ==================  ==========  ===============  =========  =======
    cpu     below 2,000,000 *   64          5                2          1
    cpu     2,000,000 and more  1           1                4          1
    GPU     any *               256         10               2          1
    GPU     larger images       256         2                4          1
    ======  ==================  ==========  ===============  =========  =======

    A GPU whose memory is too small for so many trains fewer at a time: which is a matter of the
    worker, and changes the last bits of a result only.

    * and at most 4,096 pixels; larger images go to the row below.

    Large problems compute in bfloat16 on a CPU that is fast at it: measured, that moves fold
    scores by a small part of what another seed does (docs/decisions.md, 19).

    The number of workers is no argument on purpose: a study must end with the same table
    whether one worker or eight did it.

    Raises
    ------
    ValueError
        If the device is none of them.
    """
    if device in ("cuda", "mps") and pixels > SMALL_IMAGE:
        return Placement(population=256, generation_size=2, lookahead=4, threads=1)
    if device in ("cuda", "mps"):
        return Placement(population=256, generation_size=10, lookahead=2, threads=1)
    if device != "cpu":
        raise ValueError(f"device must be 'cpu', 'cuda' or 'mps', got {device!r}")
    if n_train * pixels < SMALL_PROBLEM and pixels <= SMALL_IMAGE:
        return Placement(population=64, generation_size=5, lookahead=2, threads=1)
    precision = "bfloat16" if fast_bfloat16 else "float32"
    return Placement(population=1, generation_size=1, lookahead=4, threads=1, precision=precision)
