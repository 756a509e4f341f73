"""The terms of the item filter (`item_filter.py`): parameters, scores of pairs, their scales."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from worker.ranking import cooccurrence
from worker.ranking.blocks import cut_blocks
from worker.ranking.cooccurrence import SharedUsers
from worker.ranking.ragged import pick_rows
from worker.ranking.spectrum import Spectrum, column_slices

SAMPLE_USERS = 256
SAMPLE_ENTRIES = 1 << 23
SAMPLE_ROWS = 128
BLOCK_ENTRIES = 1 << 18
SEED = 7


@dataclass(frozen=True, slots=True)
class FilterParameters:
    """The letters of the formula; unitless."""

    rank: int = 256
    user_exponent: float = 0.7
    eighths_of_power: int = 6
    """p in eighths: roots of roots are exact, whatever stands beside them in a vector."""
    history_exponent: float = 0.3
    candidate_exponent: float = 0.3
    low_pass: float = 0.18
    low_pass_history_exponent: float = 0.5
    low_pass_candidate_exponent: float = 0.5
    sharpening: float = 1.6
    degree_exponent: float = 0.0
    """Of d_j, on the result."""
    choice_exponent: float = 0.2


def graph_scores(
    shared: NDArray[np.float64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int32],
    degrees: NDArray[np.float64],
    parameters: FilterParameters,
) -> NDArray[np.float32]:
    """P_ij of some pairs, shape (pairs,)."""
    history = degrees**-parameters.history_exponent
    candidate = degrees**-parameters.candidate_exponent
    scores = _power(shared, parameters.eighths_of_power)
    scores *= history[rows]
    scores *= candidate[columns]
    scores[rows == columns] = 0
    return scores.astype(np.float32)


def _power(values: NDArray[np.float64], eighths: int) -> NDArray[np.float64]:
    """values^(eighths / 8), to the bit the same for equal values."""
    assert 0 < eighths <= 8
    if eighths == 8:
        return values.copy()
    result = np.ones_like(values)
    root = values
    for bit in (4, 2, 1):
        root = np.sqrt(root)
        if eighths & bit:
            result *= root
    return result


def root_mean_squares(
    shared: SharedUsers,
    spectrum: Spectrum,
    degrees: NDArray[np.float64],
    parameters: FilterParameters,
) -> tuple[float, float]:
    """|P| and |L|: root mean squares of the scores of a sample of users."""
    restaurants = len(degrees)
    users = np.flatnonzero(shared.degrees)
    random = np.random.default_rng(SEED)
    most = max(1, min(SAMPLE_USERS, SAMPLE_ENTRIES // max(restaurants, 1)))
    users = np.sort(random.permutation(users)[:most])
    if not len(users):
        return 1.0, 1.0
    indptr, entries = pick_rows(shared.matrix.indptr, users)
    places = shared.matrix.restaurants[entries]
    histories = scipy.sparse.csr_array(
        (np.ones(len(places), np.float32), places, indptr.astype(np.int32)),
        shape=(len(users), restaurants),
    )
    graph = np.zeros((len(users), restaurants), np.float32)
    ordered = np.unique(places).astype(np.int64)
    for start, stop in cut_blocks(
        shared.bounds[ordered], max_rows=SAMPLE_ROWS, max_entries=BLOCK_ENTRIES
    ):
        rows = ordered[start:stop]
        block = cooccurrence.of_rows(shared, rows)
        own = np.repeat(rows, np.diff(block.indptr))
        block = scipy.sparse.csr_array(
            (
                graph_scores(block.data, own, block.indices, degrees, parameters),
                block.indices,
                block.indptr,
            ),
            shape=block.shape,
        )
        scores = histories[:, rows] @ block
        graph[np.repeat(np.arange(len(users)), np.diff(scores.indptr)), scores.indices] += (
            scores.data
        )
    size = len(users) * restaurants
    weights = (degrees**-parameters.low_pass_history_exponent).astype(np.float32)
    histories.data *= weights[histories.indices]
    strengths = histories @ spectrum.patterns.T
    spread = weighted_gram(spectrum, degrees ** (2 * parameters.low_pass_candidate_exponent))
    low_pass = float(np.einsum("ur,rs,us->", strengths, spread, strengths, optimize=True))
    total = float(np.einsum("ui,ui->", graph, graph, dtype=np.float64))
    return (total / size) ** 0.5 or 1.0, (max(low_pass, 0) / size) ** 0.5 or 1.0


def weighted_gram(spectrum: Spectrum, weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """U' diag(weights) U, shape (rank, rank)."""
    rank, restaurants = spectrum.patterns.shape
    total = np.zeros((rank, rank), np.float64)
    for columns in column_slices(restaurants):
        part = spectrum.patterns[:, columns].astype(np.float64)
        total += (part * weights[columns]) @ part.T
    return total.astype(np.float32)
