import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse

from tests.worker.ranking.food import (
    blend,
    facts_of,
    lists,
    no_points,
    points_of,
    scores,
    small_world,
    town,
)
from tests.worker.ranking.small import DAY, NOON, matrix_of, random_orders
from worker.ranking.blend_weights import DEFAULTS
from worker.ranking.history import order_again
from worker.ranking.surroundings import recent_guests, surround

LAST_DAY = NOON // DAY * DAY
UNCAPPED = replace(DEFAULTS, cuisine_cap=10)


def by_tens(own: list[int], new: list[int], repeats_in_ten: int) -> list[int]:
    mixed: list[int] = []
    while own or new:
        repeats = own[: max(repeats_in_ten, 10 - len(new))]
        discoveries = new[: 10 - len(repeats)]
        extra = repeats[repeats_in_ten:]
        mixed += repeats[:repeats_in_ten] + discoveries + extra
        own, new = own[len(repeats) :], new[len(discoveries) :]
    return mixed


def test_the_score_is_the_product_of_its_evidence():
    # User 1 ordered Thai at 10, today; 11 is Thai one kilometre north, 12 is Greek two away and
    # had its only guest 30 days ago; 13 is nowhere and in no city, and nobody ever went there.
    orders = [(1, 10, NOON), (2, 11, NOON), (3, 11, NOON), (2, 12, NOON - 30 * DAY)]
    matrix = matrix_of(orders, restaurants=[10, 11, 12, 13])
    facts = facts_of(
        4,
        latitudes=[40, 40 + 1 / 110.57, 40 - 2 / 110.57, np.nan],
        longitudes=[-74, -74, -74, np.nan],
        cuisine_codes=[1, 1, 2, 0],
    )
    points = np.zeros((3, 4), np.float32)
    points[0] = -np.inf, 2, 1, 0
    _, discover = blend(
        matrix, surround(matrix, facts), scipy.sparse.csr_array(points), weights=UNCAPPED
    )

    trust = 0.85 * 1 / (1 + 3)
    # Everyone: three of four interactions are Thai. The user: one order and two of prior taste.
    thai = (1 / 0.75 + 2) / 3
    greek = 2 / 3
    expected = {
        1: 2.4**0.65 * 1.2**-0.8 * 1.05**trust * (thai + 0.3) ** 0.1,
        2: 0.9**0.65 * 2.2**-0.8 * 0.55**trust * (greek + 0.3) ** 0.1,
        3: 0.4**0.65 * 10.2**-0.8 * 0.05**trust * 1.3**0.1,
    }
    assert lists(discover)[0] == [1, 2, 3]
    assert scores(discover)[0] == pytest.approx([expected[row] for row in (1, 2, 3)], rel=1e-3)


def test_recent_guests_count_each_guest_once_and_the_recent_ones_more():
    orders = [(1, 10, NOON), (1, 10, NOON), (2, 10, NOON - 30 * DAY), (2, 11, NOON - 60 * DAY)]
    assert recent_guests(matrix_of(orders)).tolist() == [1.5, 0.25]


def test_with_a_longer_history_its_points_count_more():
    orders = [(user, 10, NOON) for user in range(1, 40)]
    orders += [(2, place, NOON - DAY) for place in range(11, 20)]
    orders += [(user, 20, NOON) for user in range(30, 34)]
    matrix = matrix_of(orders, restaurants=range(10, 22))
    points = np.zeros((39, 12), np.float32)
    points[:2, 11] = 1  # to 21, which nobody knows
    _, discover = blend(matrix, surround(matrix, facts_of(12)), scipy.sparse.csr_array(points))
    first, second = lists(discover)[:2]
    assert first.index(10) < first.index(11)
    assert second.index(11) < second.index(10)


@pytest.mark.parametrize("repeats_in_ten", [1, 5, 8, 9, 10])
def test_for_you_gives_each_ten_its_repeats_and_then_discoveries(repeats_in_ten):
    matrix, surroundings, points, cities = small_world(seed=3)
    weights = replace(DEFAULTS, repeats_in_ten=repeats_in_ten)
    n = 35
    for_you, discover = blend(matrix, surroundings, points, cities=cities, weights=weights, n=n)
    again = order_again(
        matrix,
        first_user=0,
        users=len(matrix.user_ids),
        is_candidate=surroundings.facts.is_candidate,
    )
    repeats = np.split(again.rows, again.indptr[1:-1])
    for found, own, new in zip(lists(for_you), repeats, lists(discover), strict=True):
        assert found == by_tens(own.tolist(), new, repeats_in_ten)[:n]


def test_lists_hold_active_restaurants_once_and_discoveries_are_new():
    matrix, surroundings, points, cities = small_world(seed=4)
    for_you, discover = blend(matrix, surroundings, points, cities=cities, n=60)
    active = set(np.flatnonzero(surroundings.facts.is_candidate).tolist())
    assert len(active) < 60
    for user, (mixed, new) in enumerate(zip(lists(for_you), lists(discover), strict=True)):
        own = matrix.restaurants[matrix.indptr[user] : matrix.indptr[user + 1]].tolist()
        assert new
        assert len(set(new)) == len(new)
        assert set(new) <= active - set(own)
        assert len(set(mixed)) == len(mixed)
        assert set(mixed) == set(new) | (set(own) & active)


def test_scores_fall_along_a_list_and_stay_with_their_restaurant():
    matrix, surroundings, points, cities = small_world(seed=5)
    _, uncapped = blend(matrix, surroundings, points, cities=cities, weights=UNCAPPED)
    _, capped = blend(
        matrix, surroundings, points, cities=cities, weights=replace(DEFAULTS, cuisine_cap=1)
    )
    assert lists(capped) != lists(uncapped)
    for rows, values, other_rows, other_values in zip(
        lists(uncapped), scores(uncapped), lists(capped), scores(capped), strict=True
    ):
        assert all(a >= b > 0 for a, b in itertools.pairwise(values))
        assert dict(zip(rows, values, strict=True)) == dict(
            zip(other_rows, other_values, strict=True)
        )


@pytest.mark.parametrize("n", [1, 7, 20, 59])
def test_a_shorter_list_is_the_beginning_of_a_longer_one(n):
    matrix, surroundings, points, cities = small_world(seed=12)
    weights = replace(DEFAULTS, cuisine_cap=2)
    short = blend(matrix, surroundings, points, cities=cities, weights=weights, n=n)
    long = blend(matrix, surroundings, points, cities=cities, weights=weights, n=60)
    for few, many in zip(short, long, strict=True):
        assert lists(few) == [found[:n] for found in lists(many)]


@pytest.mark.parametrize("block", [1, 2, 7])
def test_no_block_size_changes_a_bit(block):
    matrix, surroundings, points, cities = small_world(seed=6)
    whole = blend(matrix, surroundings, points, cities=cities)
    parts = blend(matrix, surroundings, points, cities=cities, block=block)
    for all_at_once, in_blocks in zip(whole, parts, strict=True):
        assert lists(in_blocks) == lists(all_at_once)
        assert scores(in_blocks) == scores(all_at_once)


def test_permuted_users_have_permuted_lists():
    orders = random_orders(users=30, restaurants=40, orders=400, seed=7)
    matrix = matrix_of(orders)
    users = matrix.user_ids.tolist()
    permuted = np.random.default_rng(7).permutation(len(users))
    new_id = {users[old]: users[new] for old, new in enumerate(permuted.tolist())}
    other = matrix_of([(new_id[user], place, when) for user, place, when in orders])
    facts = town(len(matrix.restaurant_ids), seed=7)
    points = points_of(matrix, seed=7)
    back = np.argsort(permuted)
    for before, after in zip(
        blend(matrix, surround(matrix, facts), points),
        blend(other, surround(other, facts), points[back]),
        strict=True,
    ):
        assert [lists(before)[old] for old in back] == lists(after)


def test_groups_with_disjoint_tastes_get_their_own():
    # Twenty users eat ramen (rows 0-9) in one city, twenty tacos (10-19) in the other.
    random = np.random.default_rng(8)
    orders = [
        (user, int(place) + (10 if user >= 20 else 0), NOON - int(day) * DAY)
        for user in range(40)
        for place, day in zip(random.permutation(10)[:4], random.integers(0, 99, 4), strict=True)
    ]
    matrix = matrix_of(orders, users=range(40), restaurants=range(20))
    facts = facts_of(20, city_codes=[1] * 10 + [2] * 10, cuisine_codes=[1] * 10 + [2] * 10)
    for_you, discover = blend(matrix, surround(matrix, facts))
    for user, (mixed, new) in enumerate(zip(lists(for_you), lists(discover), strict=True)):
        own_side = set(range(10, 20)) if user >= 20 else set(range(10))
        assert set(mixed[:5]) <= own_side
        assert set(new[:5]) <= own_side


def test_equal_scores_are_ordered_by_row():
    matrix = matrix_of([(1, 10, NOON)], restaurants=range(10, 40))
    _, discover = blend(matrix, surround(matrix, facts_of(30)))
    assert lists(discover) == [list(range(1, 30))]


def test_a_user_without_orders_has_no_list_and_changes_none():
    orders = [(1, 10, NOON), (3, 11, NOON)]
    facts = facts_of(3)
    without = matrix_of(orders, restaurants=[10, 11, 12])
    with_one = matrix_of(orders, users=[1, 2, 3], restaurants=[10, 11, 12])
    for few, many in zip(
        blend(without, surround(without, facts)),
        blend(with_one, surround(with_one, facts)),
        strict=True,
    ):
        assert lists(many) == [lists(few)[0], [], lists(few)[1]]


def test_the_city_of_a_user_without_one_is_that_of_the_foremost_restaurant():
    orders = [(1, 10, NOON), (2, 11, NOON), (2, 13, NOON)]
    matrix = matrix_of(orders, restaurants=[10, 11, 12, 13])
    facts = facts_of(4, city_codes=[1, 2, 1, 2])
    _, discover = blend(matrix, surround(matrix, facts))
    assert lists(discover)[0][0] == 2
    # A city that the user names counts more, and one without a restaurant harms nothing.
    _, named = blend(matrix, surround(matrix, facts), cities=np.array([2, 9], np.uint16))
    assert lists(named)[0][0] == 1
    assert lists(named)[1]


def test_one_restaurant():
    matrix = matrix_of([(1, 10, NOON), (2, 10, NOON)])
    for_you, discover = blend(matrix, surround(matrix, facts_of(1)))
    assert lists(for_you) == [[0], [0]]
    assert lists(discover) == [[], []]


def test_nothing_at_all():
    matrix = matrix_of([])
    assert blend(matrix, surround(matrix, facts_of(0))) == ([], [])
    with_users = matrix_of([], users=[1, 2])
    for_you, discover = blend(with_users, surround(with_users, facts_of(0)))
    assert lists(for_you) == lists(discover) == [[], []]


def test_inactive_restaurants_are_nowhere_even_when_all_are():
    matrix, surroundings, points, cities = small_world(seed=9)
    facts = replace(surroundings.facts, is_candidate=np.zeros(60, np.bool_))
    for_you, discover = blend(matrix, surround(matrix, facts), points, cities=cities)
    assert not any(lists(for_you) + lists(discover))


def test_hostile_coordinates_and_points_give_whole_lists():
    matrix, surroundings, _, cities = small_world(seed=10)
    random = np.random.default_rng(10)
    odd = np.array([np.nan, np.inf, -np.inf, 91, -1e30, 0, 1e9, 45], np.float32)
    facts = replace(
        surroundings.facts, latitudes=random.choice(odd, 60), longitudes=random.choice(odd, 60)
    )
    points = no_points(matrix).todense()
    points[:] = -1
    points[:, ::3] = -np.inf
    points[:, 2::9] = 1e30
    for_you, discover = blend(
        matrix, surround(matrix, facts), scipy.sparse.csr_array(points), cities=cities, n=60
    )
    active = int(np.count_nonzero(facts.is_candidate))
    for user, (mixed, new, values) in enumerate(
        zip(lists(for_you), lists(discover), scores(discover), strict=True)
    ):
        own = matrix.restaurants[matrix.indptr[user] : matrix.indptr[user + 1]]
        in_city = np.flatnonzero(facts.is_candidate & (facts.city_codes == cities[user]))
        assert len(mixed) <= active
        if len(own) and cities[user]:
            assert set(in_city) - set(own) <= set(new)
        assert np.all(np.isfinite(values))


def test_a_user_who_ordered_everywhere_many_times():
    restaurants = 30_000
    orders = [(1, order // 4, NOON - order % 900 * DAY) for order in range(4 * restaurants)]
    orders += [(2, 7, NOON)]
    matrix = matrix_of(orders, restaurants=range(restaurants + 5))
    facts = town(restaurants + 5, seed=11, known=1)
    for_you, discover = blend(matrix, surround(matrix, facts), n=200)
    assert min(lists(discover)[0], default=restaurants) >= restaurants
    assert len(lists(for_you)[0]) == 200
    assert len(lists(discover)[1]) == 200


def test_everyone_at_one_restaurant():
    matrix = matrix_of([(user, 10, NOON) for user in range(500)], restaurants=range(10, 20))
    for_you, discover = blend(matrix, surround(matrix, facts_of(10, city_codes=[1] * 10)))
    assert lists(for_you) == [list(range(10))] * 500
    assert lists(discover) == [list(range(1, 10))] * 500


def test_weights_of_a_manifest_are_the_weights():
    weights = replace(DEFAULTS, guests=1.0, repeats_in_ten=9)
    assert type(weights).from_json(weights.to_json()) == weights
    assert type(weights).from_json({"points": 0.5, "unheard_of": 3}) == replace(
        DEFAULTS, points=0.5
    )


@pytest.mark.parametrize(
    ("name", "value"), [("guests", -0.1), ("near_km", 0), ("cuisine_cap", 0), ("points", math.nan)]
)
def test_weights_out_of_bounds_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        replace(DEFAULTS, **{name: value})
