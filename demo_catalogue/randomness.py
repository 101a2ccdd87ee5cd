"""Random numbers that depend on a name only, so that no drawing ever changes another."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(*name: str | int) -> np.random.Generator:
    """Open the random stream that belongs to a name.

    The stream is seeded by the name alone (not by what was drawn before, nor by Python's salted hash), so a
    picture is the same whether it is drawn first, last or alone.

    Args:
        name: Whatever tells one drawing from another, for example ("scene", 7, "light").
    Returns:
        A generator at the start of its stream.
    """
    digest = hashlib.sha256(repr(name).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
