"""The sharpened filter against its formula on dense matrices, and itself in other blocks."""

from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from tests.worker.ranking.small import dense_history, matrix_of
from worker.ranking.array_files import save_matrix
from worker.ranking.filter_terms import FilterParameters
from worker.ranking.item_filter import fit_item_filter
from worker.ranking.item_model import SEEN, ItemGraph
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.spectrum import fit_spectrum

PARAMETERS = FilterParameters(
    rank=6,
    low_pass_history_exponent=0.4,
    low_pass_candidate_exponent=0.3,
    candidate_exponent=0.35,
    degree_exponent=0.05,
)


@pytest.fixture(scope="module")
def matrix() -> InteractionMatrix:
    """Six tastes: most orders of a user fall on the restaurants of one sixth."""
    random = np.random.default_rng(5)
    users = random.integers(0, 300, 4000)
    own = 6 * random.integers(0, 25, 4000) + users % 6
    restaurants = np.where(random.random(4000) < 0.85, own, random.integers(0, 150, 4000))
    return matrix_of([(user, place, 0) for user, place in zip(users, restaurants, strict=True)])


@pytest.fixture
def executor():
    with ThreadPoolExecutor(2) as threads:
        yield threads


def fit(matrix: InteractionMatrix, folder: Path, executor: Executor, **more) -> ItemGraph:
    folder.mkdir(exist_ok=True)
    options = {"k": 20, "parameters": PARAMETERS, **more}
    return fit_item_filter(save_matrix(matrix, folder), folder, executor=executor, **options)


def bytes_of(graph: ItemGraph) -> tuple[bytes, bytes, bytes]:
    return graph.indptr.tobytes(), graph.indices.tobytes(), graph.values.tobytes()


def dense_filter(matrix: InteractionMatrix, chosen: FilterParameters) -> np.ndarray:
    """W without scales: returned as (P, L, sharpening), each (restaurants, restaurants)."""
    history = dense_history(matrix)
    of_user, of_item = history.sum(1), history.sum(0)
    degrees = of_item / np.exp(np.log(of_item).mean())
    shared = history.T @ (history * of_user[:, None] ** -chosen.user_exponent)
    graph = shared ** (chosen.eighths_of_power / 8)
    graph *= degrees[:, None] ** -chosen.history_exponent
    graph *= degrees[None, :] ** -chosen.candidate_exponent
    np.fill_diagonal(graph, 0)
    _, values, vectors = np.linalg.svd(history / np.sqrt(np.outer(of_user, of_item)))
    values, patterns = values[: chosen.rank], vectors[: chosen.rank].T
    low_pass = patterns @ patterns.T
    low_pass *= degrees[:, None] ** -chosen.low_pass_history_exponent
    low_pass *= degrees[None, :] ** chosen.low_pass_candidate_exponent
    turn = patterns * np.expm1(-chosen.sharpening * values**2)
    return graph, low_pass, np.eye(len(degrees)) + turn @ patterns.T


def test_rows_are_the_formula(matrix, tmp_path, executor):
    count = len(matrix.restaurant_ids)
    fitted = fit(matrix, tmp_path / "whole", executor, k=count)
    graph, low_pass, sharpening = dense_filter(matrix, PARAMETERS)
    history = dense_history(matrix)
    scale = np.sqrt(np.mean((history @ graph) ** 2)), np.sqrt(np.mean((history @ low_pass) ** 2))
    whole = (graph / scale[0] + PARAMETERS.low_pass * low_pass / scale[1]) @ sharpening
    degrees = history.sum(0) / np.exp(np.log(history.sum(0)).mean())
    whole *= degrees**PARAMETERS.degree_exponent
    np.fill_diagonal(whole, 0)
    found = np.zeros((count, count))
    for row in range(count):
        entries = slice(fitted.indptr[row] + 1, fitted.indptr[row + 1])
        found[row, fitted.indices[entries]] = fitted.values[entries]
    # The scales come from a sample of users.
    found *= np.sum(whole * found) / np.sum(found**2)
    assert np.abs(found - np.maximum(whole, 0)).max() < 0.03 * whole.max()


def test_every_row_begins_with_itself_and_keeps_the_best_by_the_nudged_score(
    matrix, tmp_path, executor
):
    whole = fit(matrix, tmp_path / "whole", executor, k=len(matrix.restaurant_ids))
    cut = fit(matrix, tmp_path / "cut", executor, k=20)
    degrees = np.bincount(matrix.restaurants).astype(np.float64)
    nudge = (degrees / np.exp(np.log(degrees).mean())) ** PARAMETERS.choice_exponent
    for row in range(len(degrees)):
        first, stop = cut.indptr[row], cut.indptr[row + 1]
        assert cut.indices[first] == row
        assert cut.values[first] == SEEN
        entries = slice(whole.indptr[row] + 1, whole.indptr[row + 1])
        columns, values = whole.indices[entries], whole.values[entries]
        best = np.sort(columns[np.argsort(-values * nudge[columns])[:20]])
        assert cut.indices[first + 1 : stop].tolist() == best.tolist()


@pytest.mark.parametrize("block_entries", [1, 500, 1 << 18])
def test_no_block_size_changes_a_bit(matrix, tmp_path, executor, block_entries):
    usual = fit(matrix, tmp_path / "usual", executor)
    other = fit(matrix, tmp_path / "other", executor, block_entries=block_entries)
    assert bytes_of(usual) == bytes_of(other)


def test_neither_more_workers_nor_other_processes_change_a_bit(matrix, tmp_path):
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(3) as three:
        alone = fit(matrix, tmp_path / "one", one)
        together = fit(matrix, tmp_path / "three", three)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        apart = fit(matrix, tmp_path / "processes", processes)
    assert bytes_of(alone) == bytes_of(together) == bytes_of(apart)


def test_only_candidates_stand_in_rows(matrix, tmp_path, executor):
    is_candidate = np.arange(len(matrix.restaurant_ids)) % 3 != 0
    fitted = fit(matrix, tmp_path / "some", executor, is_candidate=is_candidate)
    own = np.isneginf(fitted.values)
    assert is_candidate[fitted.indices[~own]].all()
    assert own.sum() == len(is_candidate)


@pytest.mark.parametrize(
    "orders",
    [
        pytest.param([], id="none"),
        pytest.param([(1, 5, 0)], id="one"),
        pytest.param([(user, 5, 0) for user in range(40)], id="all-at-one-restaurant"),
        pytest.param([(7, place, 0) for place in range(40)], id="all-of-one-user"),
        pytest.param([(u, p, 0) for u in range(12) for p in range(9)], id="everyone-everywhere"),
    ],
)
def test_degenerate_data_make_a_finite_filter(orders, tmp_path, executor):
    matrix = matrix_of(orders, users=range(50), restaurants=range(60))
    fitted = fit(matrix, tmp_path / "odd", executor)
    assert len(fitted.indptr) == 61
    neighbours = fitted.values[~np.isneginf(fitted.values)]
    assert np.isfinite(neighbours).all()
    assert (neighbours > 0).all()


def test_the_spectrum_is_that_of_the_normalised_interactions(matrix, tmp_path, executor):
    spectrum = fit_spectrum(save_matrix(matrix, tmp_path), tmp_path, rank=6, executor=executor)
    history = dense_history(matrix)
    exact = np.linalg.svd(
        history / np.sqrt(np.outer(history.sum(1), history.sum(0))), compute_uv=False
    )
    assert spectrum.values == pytest.approx(exact[:6], abs=1e-4)
    gram = spectrum.patterns @ spectrum.patterns.T
    assert gram == pytest.approx(np.eye(len(gram)), abs=1e-3)
