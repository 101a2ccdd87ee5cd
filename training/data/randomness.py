"""Random numbers that depend on what they are for, and on nothing that was drawn before.

A stream is named by the run's seed and the place in the run where it is used. So a resumed run draws what the
uninterrupted one would have drawn, and neither the number of loader processes nor their order changes a pixel.
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a stream is for, so that two uses at one place in the run share no numbers."""

    ORDER = 0
    BATCH = 1
    AUGMENTATION = 2
    BATCH_SIZE = 3
    HELD_OUT = 4


def generator(seed: int, stream: Stream, *place: int) -> np.random.Generator:
    """Open the stream of a place in the run.

    Args:
        seed: of the run, at least 0.
        stream: what it is for.
        place: numbers that name the place, each at least 0: epoch, batch, position.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, stream, *place))))
