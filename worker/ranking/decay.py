"""What its age does to the weight of an order: half of it is left after each half-life."""

import numpy as np
from numpy.typing import NDArray

SECONDS_PER_DAY = 86_400

FAINTEST = 64.0
"""Half-lives after which a weight falls no further: an old history still ranks above none."""


def decay(
    age_days: NDArray[np.floating | np.integer], *, half_life_days: float
) -> NDArray[np.float32]:
    """2^(-age / half-life), in [2^-64, 1], the shape of `age_days`, unitless.

    Ages below zero (a clock in the future) count as zero. A half-life of infinity gives 1.
    """
    assert half_life_days > 0
    halvings = age_days.astype(np.float32)
    halvings /= np.float32(half_life_days)
    np.maximum(halvings, 0, out=halvings)
    np.minimum(halvings, np.float32(FAINTEST), out=halvings)
    np.negative(halvings, out=halvings)
    return np.exp2(halvings, out=halvings)
