"""The strongest patterns in who orders where: singular pairs of the normalised interactions.

    X = D_u^-1/2 R D_i^-1/2,   X ~ V diag(s) U'

R is the interactions without their weights, D the degrees of users and restaurants. Found by block
power iteration on the Gram operator X'X (Halko, Martinsson & Tropp 2011, arXiv:0909.4061), which
never holds anything of size users x users, users x restaurants or restaurants x restaurants.
Columns are orthonormalised through the eigenvectors of their Gram matrix (Stathopoulos & Wu 2002,
SIAM J. Sci. Comput. 23:2165), which survives columns that depend on each other.

Arrays lie in files, patterns x restaurants; a task computes the operator for a few patterns. Each
pattern's numbers depend on that pattern alone, so the number of workers changes no bit.
"""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from worker.ranking.array_files import load_array, load_matrix, new_array, save_array
from worker.ranking.matrix import InteractionMatrix, restaurant_degrees
from worker.ranking.ordered import run_ordered
from worker.ranking.single_thread import single_blas_thread

OVERSAMPLING = 16
ITERATIONS = 3
SEED = 20

PATTERNS_AT_A_TIME = 32
BLOCK_ENTRIES = 1 << 18
"""Interactions multiplied at a time. Sums are rounded, so this is no matter of budget."""
COLUMNS_AT_A_TIME = 4096
SMALLEST = 1e-4
"""Singular values below are noise of single precision."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The strongest singular pairs, strongest first."""

    values: NDArray[np.float32]
    """s, shape (rank,), in (0, 1]."""
    patterns: NDArray[np.float32]
    """U', rows of length one, shape (rank, restaurants), mapped from a file."""


def fit_spectrum(
    matrix: InteractionMatrix, folder: Path, *, rank: int, executor: Executor, ahead: int = 4
) -> Spectrum:
    """At most `rank` singular pairs, fewer where the interactions have fewer.

    folder: holds `matrix` as `save_matrix` writes it; all arrays made here go there too. ahead:
    tasks handed over before the results of the first are taken.
    """
    restaurants = len(matrix.restaurant_ids)
    width = min(rank + OVERSAMPLING, restaurants, len(matrix.user_ids))
    scale = np.maximum(restaurant_degrees(matrix), 1).astype(np.float64) ** -0.5
    save_array(folder / "spectrum-scale", scale.astype(np.float32))
    current = new_array(folder / "spectrum-in", (width, restaurants), np.float32)
    random = np.random.default_rng(SEED)
    for pattern in range(width):
        current[pattern] = random.standard_normal(restaurants, np.float32)
    for _ in range(ITERATIONS):
        product = _apply(folder, width, restaurants, executor, ahead)
        width = _orthonormalise(product, current)
        del product
        current = current[:width]
    product = _apply(folder, width, restaurants, executor, ahead)
    inner = _inner(current, product)
    squares, rotation = np.linalg.eigh((inner + inner.T) / 2)
    kept = np.flatnonzero(squares > SMALLEST**2)[::-1][:rank]
    patterns = new_array(folder / "patterns", (len(kept), restaurants), np.float32)
    turn = rotation[:, kept].T.astype(np.float32)
    for columns in column_slices(restaurants):
        patterns[:, columns] = turn @ current[:, columns]
    values = np.sqrt(np.minimum(squares[kept], 1)).astype(np.float32)
    del current, product
    for name in ("spectrum-in", "spectrum-out", "spectrum-scale"):
        (folder / f"{name}.npy").unlink()
    return Spectrum(values=values, patterns=load_array(folder / "patterns"))


def apply_gram(folder: Path, start: int, stop: int) -> None:
    """The task: X'X times the patterns from `start` to `stop`, from file to file."""
    single_blas_thread()
    matrix = load_matrix(folder)
    scale = load_array(folder / "spectrum-scale")
    source = load_array(folder / "spectrum-in")
    target = load_array(folder / "spectrum-out", is_writable=True)
    columns = np.array(source[start:stop].T, order="C")
    columns *= scale[:, None]
    total = np.zeros_like(columns)
    indptr = matrix.indptr
    first = 0
    while first < len(indptr) - 1:
        last = _block_end(indptr, first)
        begin, end = indptr[first], indptr[last]
        block = scipy.sparse.csr_array(
            (
                np.ones(end - begin, np.float32),
                matrix.restaurants[begin:end],
                (indptr[first : last + 1] - begin).astype(np.int32),
            ),
            shape=(last - first, len(scale)),
        )
        users = block @ columns
        users /= np.maximum(np.diff(block.indptr), 1).astype(np.float32)[:, None]
        total += block.T @ users
        first = last
    total *= scale[:, None]
    target[start:stop] = total.T


def _block_end(indptr: NDArray[np.int64], first: int) -> int:
    """The user behind a block that begins with `first` and holds to BLOCK_ENTRIES where it can."""
    end = int(np.searchsorted(indptr, indptr[first] + BLOCK_ENTRIES, side="right")) - 1
    return min(max(end, first + 1), len(indptr) - 1)


def _apply(
    folder: Path, width: int, restaurants: int, executor: Executor, ahead: int
) -> NDArray[np.float32]:
    """X'X times all patterns of `spectrum-in`."""
    new_array(folder / "spectrum-out", (width, restaurants), np.float32)
    slices = (
        (folder, start, min(start + PATTERNS_AT_A_TIME, width))
        for start in range(0, width, PATTERNS_AT_A_TIME)
    )
    for _ in run_ordered(executor, apply_gram, slices, ahead=ahead):
        pass
    return load_array(folder / "spectrum-out")


def _orthonormalise(product: NDArray[np.float32], into: NDArray[np.float32]) -> int:
    """Writes an orthonormal basis of the rows of `product`; returns how many rows it has."""
    squares, rotation = np.linalg.eigh(_inner(product, product))
    kept = np.flatnonzero(squares > squares.max(initial=0) * SMALLEST**2)
    turn = (rotation[:, kept] / np.sqrt(squares[kept])).T.astype(np.float32)
    for columns in column_slices(product.shape[1]):
        into[: len(kept), columns] = turn @ product[:, columns]
    return len(kept)


def _inner(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """left times right', summed in doubles, shape (rows of left, rows of right)."""
    total = np.zeros((len(left), len(right)), np.float64)
    for columns in column_slices(left.shape[1]):
        part = left[:, columns].astype(np.float64)
        other = part if right is left else right[:, columns].astype(np.float64)
        total += part @ other.T
    return total


def column_slices(columns: int) -> Iterator[slice]:
    for start in range(0, columns, COLUMNS_AT_A_TIME):
        yield slice(start, min(start + COLUMNS_AT_A_TIME, columns))
