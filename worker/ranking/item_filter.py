"""The discovery model: an item-item filter, sharpened, and cut to the best k entries of each row.

    W = (P / |P| + a L / |L|) (I + U (exp(-T s^2) - 1) U')

    P_ij = C_ij^p d_i^-wh d_j^-wc      shared users (`cooccurrence.py`), i of the history, j new
    L    = D^-bh U U' D^bc             the strongest patterns (`spectrum.py`): a low-pass filter

d are the restaurants' degrees over their geometric mean, D their diagonal matrix, |.| the root mean
square of the scores of a sample of users. The low-pass filter is GF-CF's (Shen et al. 2021,
arXiv:2108.12952), the degree exponents and the power are Turbo-CF's (Park et al. 2024,
arXiv:2404.14243), the sharpening is a closed form of BSPM's step (Choi et al. 2023,
arXiv:2211.09324). Nothing is trained, and one set of parameters serves every data set.

A user's scores are r_u W. Rows are computed in tiles of fixed shape, dense only within the tile,
and cut to entries chosen by `W_ij d_j^0.2`: without that nudge towards well-known restaurants the
cut loses more than it saves.
"""

import json
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.ranking import cooccurrence
from worker.ranking.array_files import (
    load_array,
    save_array,
    save_transposed,
)
from worker.ranking.cooccurrence import SharedUsers
from worker.ranking.filter_terms import (
    FilterParameters,
    graph_scores,
    root_mean_squares,
    weighted_gram,
)
from worker.ranking.item_model import INDICES_FILE, SEEN, VALUES_FILE, ItemGraph, load_graph
from worker.ranking.matrix import InteractionMatrix, restaurant_degrees, transpose
from worker.ranking.ordered import run_ordered
from worker.ranking.single_thread import single_blas_thread
from worker.ranking.spectrum import Spectrum, column_slices, fit_spectrum
from worker.ranking.top_columns import best_columns

TILE_ROWS = 128
TILE_ENTRIES = 1 << 23
"""Rows times restaurants of a tile, at most: 32 MB. Rounding depends on the shape of a tile, so it
follows from the number of restaurants alone and is no matter of budget."""
BLOCK_ENTRIES = 1 << 18
AHEAD = 4


DEFAULTS = FilterParameters()
_SEEN = np.array([SEEN])


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What a tile is computed from, mapped from files."""

    parameters: FilterParameters
    k: int
    block_entries: int
    graph_scale: float
    low_pass_scale: float
    shared: SharedUsers
    spectrum: Spectrum
    projection: NDArray[np.float32]
    """U' D^bc U, shape (rank, rank)."""
    degrees: NDArray[np.float64]
    """Over their geometric mean, shape (restaurants,)."""
    is_candidate: NDArray[np.bool_]


def fit_item_filter(
    matrix: InteractionMatrix,
    folder: Path,
    *,
    k: int,
    executor: Executor,
    ahead: int = AHEAD,
    parameters: FilterParameters = DEFAULTS,
    block_entries: int = BLOCK_ENTRIES,
    is_candidate: NDArray[np.bool_] | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> ItemGraph:
    """The k best entries of every row of W above zero, mapped from files.

    folder: holds `matrix` as `save_matrix` writes it; what is made here goes there too.
    ahead: tasks handed over before the results of the first are taken.
    block_entries: bound of the sparse scratch entries of one task, about 50 bytes each.
    is_candidate: which restaurants may stand in a row, shape (restaurants,); all when None.
    on_rows: is told how many rows are done.
    """
    restaurants = len(matrix.restaurant_ids)
    by_restaurant = save_transposed(transpose(matrix), folder)
    shared = cooccurrence.shared_users(
        matrix,
        user_exponent=parameters.user_exponent,
        block_entries=block_entries,
        by_restaurant=by_restaurant,
    )
    cooccurrence.save_shared_users(shared, folder)
    spectrum = fit_spectrum(matrix, folder, rank=parameters.rank, executor=executor, ahead=ahead)
    save_array(folder / "filter-values", spectrum.values)
    degrees = np.maximum(restaurant_degrees(matrix), 1).astype(np.float64)
    degrees /= np.exp(np.log(degrees).mean())
    save_array(folder / "filter-degrees", degrees)
    candidates = np.ones(restaurants, np.bool_) if is_candidate is None else is_candidate
    save_array(folder / "filter-candidates", candidates)
    graph_scale, low_pass_scale = root_mean_squares(shared, spectrum, degrees, parameters)
    settings = {
        "parameters": asdict(parameters),
        "k": k,
        "block_entries": block_entries,
        "graph_scale": graph_scale,
        "low_pass_scale": low_pass_scale,
    }
    (folder / "filter.json").write_text(json.dumps(settings))
    save_array(
        folder / "filter-projection",
        weighted_gram(spectrum, degrees**parameters.low_pass_candidate_exponent),
    )
    del by_restaurant, shared, spectrum
    _load.cache_clear()
    indptr = np.zeros(restaurants + 1, np.int64)
    starts = range(0, restaurants, tile_rows(restaurants))
    with (
        (folder / INDICES_FILE).open("wb") as indices_file,
        (folder / VALUES_FILE).open("wb") as values_file,
    ):
        tiles = run_ordered(
            executor, filter_tile, ((folder, start) for start in starts), ahead=ahead
        )
        for start, (indices, values, lengths) in zip(starts, tiles, strict=True):
            indices_file.write(indices.data)
            values_file.write(values.data)
            indptr[start + 1 : start + 1 + len(lengths)] = lengths
            on_rows(start + len(lengths))
    _load.cache_clear()
    save_array(folder / "graph-indptr", np.cumsum(indptr))
    return load_graph(folder)


def tile_rows(restaurants: int) -> int:
    return max(1, min(TILE_ROWS, TILE_ENTRIES // max(restaurants, 1)))


def filter_tile(
    folder: Path, start: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
    """The task: (indices, values, lengths) of the rows of the tile that begins at `start`."""
    single_blas_thread()
    inputs = _load(folder)
    restaurants = len(inputs.degrees)
    stop = min(start + tile_rows(restaurants), restaurants)
    tile = _graph_tile(inputs, start, stop)
    _add_patterns(inputs, tile, start, stop)
    if inputs.parameters.degree_exponent:
        tile *= (inputs.degrees**inputs.parameters.degree_exponent).astype(np.float32)
    nudge = (inputs.degrees**inputs.parameters.choice_exponent).astype(np.float32)
    nudge *= inputs.is_candidate
    indices: list[NDArray[np.int32]] = []
    values: list[NDArray[np.float32]] = []
    for row in range(start, stop):
        scores = tile[row - start]
        choice = scores * nudge
        choice[row] = 0
        chosen = best_columns(choice, inputs.k)
        indices += [np.array([row], np.int32), chosen]
        values += [_SEEN, scores[chosen]]
    lengths = np.array([1 + len(part) for part in indices[1::2]], np.int64)
    return np.concatenate(indices), np.concatenate(values), lengths


def _graph_tile(inputs: _Inputs, start: int, stop: int) -> NDArray[np.float32]:
    """P / |P| of some rows, dense, shape (rows of a tile, restaurants)."""
    restaurants = len(inputs.degrees)
    tile = np.zeros((tile_rows(restaurants), restaurants), np.float32)
    for first, block in cooccurrence.blocks(
        inputs.shared,
        max_rows=TILE_ROWS,
        max_entries=inputs.block_entries,
        start=start,
        stop=stop,
    ):
        rows = np.repeat(np.arange(first, first + block.shape[0]), np.diff(block.indptr))
        scores = graph_scores(block.data, rows, block.indices, inputs.degrees, inputs.parameters)
        tile[rows - start, block.indices] = scores / inputs.graph_scale
    return tile


def _add_patterns(inputs: _Inputs, tile: NDArray[np.float32], start: int, stop: int) -> None:
    """Turns P / |P| into W, in place."""
    parameters, patterns = inputs.parameters, inputs.spectrum.patterns
    rank, restaurants = patterns.shape
    if not rank:
        return
    sharpening = np.expm1(-parameters.sharpening * inputs.spectrum.values**2)
    own = np.zeros((len(tile), rank), np.float32)
    own[: stop - start] = patterns[:, start:stop].T
    weight = degrees_power = inputs.degrees[start:stop] ** -parameters.low_pass_history_exponent
    weight = parameters.low_pass / inputs.low_pass_scale * degrees_power
    own[: stop - start] *= weight[:, None].astype(np.float32)
    factors = np.zeros((2 * len(tile), rank), np.float32)
    for columns in column_slices(restaurants):
        factors[: len(tile)] += tile[:, columns] @ patterns[:, columns].T
    factors[: len(tile)] += own @ inputs.projection
    factors[: len(tile)] *= sharpening
    factors[len(tile) :] = own
    spread = (inputs.degrees**parameters.low_pass_candidate_exponent).astype(np.float32)
    for columns in column_slices(restaurants):
        parts = factors @ patterns[:, columns]
        low_pass = parts[len(tile) :]
        low_pass *= spread[columns]
        tile[:, columns] += low_pass
        tile[:, columns] += parts[: len(tile)]


@lru_cache(maxsize=1)
def _load(folder: Path) -> _Inputs:
    """Mapped once for all tiles of a process: each mapping counts as memory."""
    settings = json.loads((folder / "filter.json").read_text())
    return _Inputs(
        parameters=FilterParameters(**settings["parameters"]),
        k=settings["k"],
        block_entries=settings["block_entries"],
        graph_scale=settings["graph_scale"],
        low_pass_scale=settings["low_pass_scale"],
        shared=cooccurrence.load_shared_users(folder),
        spectrum=Spectrum(
            values=load_array(folder / "filter-values"), patterns=load_array(folder / "patterns")
        ),
        projection=load_array(folder / "filter-projection"),
        degrees=load_array(folder / "filter-degrees"),
        is_candidate=load_array(folder / "filter-candidates"),
    )
