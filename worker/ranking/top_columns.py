"""The best entries of a dense row, exactly."""

import numpy as np
from numpy.typing import NDArray

SAMPLED_FROM = 1 << 13
SAMPLE_STRIDE = 16


def best_columns(choice: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    """The k largest entries above zero, ascending; of equal ones the first."""
    if k >= len(choice) or len(choice) < SAMPLED_FROM:
        return _best_of(choice, np.flatnonzero(choice > 0), k)
    # What a sample says is about the k-th leaves few entries to look at; where it says too much,
    # all are looked at.
    sample = choice[::SAMPLE_STRIDE].copy()
    rank = min(k * 5 // (4 * SAMPLE_STRIDE) + 8, len(sample))
    guess = np.partition(sample, len(sample) - rank)[len(sample) - rank]
    columns = np.flatnonzero(choice >= guess) if guess > 0 else _NONE
    if len(columns) < k:
        columns = np.flatnonzero(choice > 0)
    return _best_of(choice, columns, k)


_NONE = np.empty(0, np.int64)


def _best_of(choice: NDArray[np.float32], columns: NDArray[np.int64], k: int) -> NDArray[np.int32]:
    if len(columns) > k:
        values = choice[columns]
        least = np.partition(values, len(values) - k)[len(values) - k]
        equal = np.flatnonzero(values == least)
        is_kept = values >= least
        is_kept[equal[k - np.count_nonzero(is_kept) + len(equal) :]] = False
        columns = columns[is_kept]
    return columns.astype(np.int32)
