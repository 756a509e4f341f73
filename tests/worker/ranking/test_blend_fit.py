import numpy as np

from tests.worker.ranking.food import as_rows, facts_of, no_points, points_of, small_world
from tests.worker.ranking.small import NOON, dense_history, matrix_of, random_orders
from worker.ranking.blend import blend_block
from worker.ranking.blend_fit import MIN_TARGETS, fit_blend
from worker.ranking.blend_weights import DEFAULTS
from worker.ranking.ragged import select_users
from worker.ranking.surroundings import surround


def targets_of(matrix, *, seed: int) -> np.ndarray:
    """A restaurant that each user never ordered from."""
    random = np.random.default_rng(seed)
    return np.array(
        [random.choice(np.flatnonzero(row == 0)) for row in dense_history(matrix)], np.int32
    )


def test_too_few_targets_leave_the_defaults():
    matrix, surroundings, points, cities = small_world(seed=1, users=60)
    fitted = fit_blend(
        matrix,
        as_rows(points),
        targets=targets_of(matrix, seed=1),
        user_cities=cities,
        surroundings=surroundings,
    )
    assert len(matrix.user_ids) < MIN_TARGETS
    assert fitted.weights == DEFAULTS
    assert fitted.trials == ()


def test_targets_at_random_leave_the_defaults_and_fitting_twice_gives_the_same():
    matrix, surroundings, points, cities = small_world(seed=2, users=300)
    first, second = (
        fit_blend(
            matrix,
            as_rows(points),
            targets=targets_of(matrix, seed=2),
            user_cities=cities,
            surroundings=surroundings,
        )
        for _ in range(2)
    )
    assert first == second
    assert first.weights == DEFAULTS
    assert first.trials[0].weights == DEFAULTS


def test_users_who_always_go_next_door_let_distance_count_more_than_guests():
    # Forty restaurants in a row, a kilometre apart; everyone else goes to the far half.
    random = np.random.default_rng(3)
    at = random.integers(0, 20, 400)
    orders = [(user, int(place), NOON) for user, place in enumerate(at)]
    orders += [(1000 + guest, place, NOON) for place in range(20, 40) for guest in range(1500)]
    matrix = matrix_of(orders, restaurants=range(40))
    facts = facts_of(40, latitudes=40 + np.arange(40) / 110.57, longitudes=np.full(40, -74))
    targets = np.full(len(matrix.user_ids), -1, np.int32)
    targets[:400] = at + 1
    fitted = fit_blend(
        matrix,
        as_rows(no_points(matrix)),
        targets=targets,
        user_cities=np.zeros(len(targets), np.uint16),
        surroundings=surround(matrix, facts),
    )
    assert fitted.targets == 400
    weights = fitted.weights
    assert weights.distance / weights.guests > DEFAULTS.distance / DEFAULTS.guests
    assert max(fitted.trials, key=lambda trial: trial.ndcg_at_20).weights == fitted.weights


def test_the_figures_are_those_of_the_lists():
    matrix, surroundings, points, cities = small_world(seed=4, users=300)
    targets = targets_of(matrix, seed=4)
    fitted = fit_blend(
        matrix, as_rows(points), targets=targets, user_cities=cities, surroundings=surroundings
    )
    for trial in (fitted.trials[0], fitted.trials[40], fitted.trials[80]):
        _, discover, _ = blend_block(
            matrix,
            as_rows(points),
            first_user=0,
            user_cities=cities,
            surroundings=surroundings,
            weights=trial.weights.uncapped(),
            n=20,
        )
        places = [
            row.tolist().index(target) if target in row else None
            for row, target in zip(discover.rows, targets.tolist(), strict=True)
        ]
        gains = [0 if place is None else 1 / np.log2(place + 2) for place in places]
        hits = [place is not None and place < 10 for place in places]
        assert abs(trial.ndcg_at_20 - np.mean(gains)) < 1e-9
        assert abs(trial.hit_rate_at_10 - np.mean(hits)) < 1e-9


def test_a_sample_of_users_keeps_their_rows():
    matrix = matrix_of(random_orders(users=30, restaurants=20, orders=300, seed=5))
    chosen = np.array([0, 3, 4, 17])
    sample = select_users(matrix, chosen)
    assert sample.user_ids.tolist() == matrix.user_ids[chosen].tolist()
    assert np.array_equal(dense_history(sample), dense_history(matrix)[chosen])
    assert points_of(sample, seed=5).shape == (4, len(matrix.restaurant_ids))
