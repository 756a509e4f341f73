import numpy as np
import pytest

from worker.ranking.nearness import nearest_km, places, popular_nearby


def spots(restaurants: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return (
        (51.5 + random.normal(0, 0.02, restaurants)).astype(np.float32),
        (-0.1 + random.normal(0, 0.03, restaurants)).astype(np.float32),
    )


def great_circle_km(latitudes, longitudes, one, other) -> float:
    a, b = np.radians(latitudes[[one, other]].astype(np.float64))
    across = np.radians(float(longitudes[one]) - float(longitudes[other]))
    half = np.sin((a - b) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(across / 2) ** 2
    return float(2 * 6371 * np.arcsin(np.sqrt(half)))


def nearest(where, rows, anchors) -> list[float]:
    """One user's."""
    return nearest_km(
        where,
        rows=np.array(rows, np.int32),
        users=np.zeros(len(rows), np.int64),
        anchors=np.array(anchors, np.int32),
        anchor_indptr=np.array([0, len(anchors)]),
    ).tolist()


def test_the_nearest_anchor_counts_and_is_as_far_as_on_the_globe():
    latitudes, longitudes = spots(60, seed=1)
    where = places(latitudes, longitudes)
    rows, anchors = list(range(5, 60)), [0, 1, 2, 3, 4]
    expected = [
        min(great_circle_km(latitudes, longitudes, row, anchor) for anchor in anchors)
        for row in rows
    ]
    assert nearest(where, rows, anchors) == pytest.approx(expected, rel=0.02, abs=0.005)


def test_users_do_not_mix():
    latitudes, longitudes = spots(50, seed=2)
    where = places(latitudes, longitudes)
    rows = np.arange(10, 50, dtype=np.int32)
    both = nearest_km(
        where,
        rows=rows,
        users=np.repeat([0, 2], [15, 25]),
        anchors=np.array([1, 2, 3], np.int32),
        anchor_indptr=np.array([0, 1, 2, 3]),
    )
    assert both[:15].tolist() == nearest(where, rows[:15], [1])
    assert both[15:].tolist() == nearest(where, rows[15:], [3])


def test_a_place_nowhere_and_a_user_without_anchors_have_no_distance():
    where = places(np.array([40, np.nan, 40.01]), np.array([-74, -74, -74]))
    assert np.isnan(nearest(where, [1, 2], [0])).tolist() == [True, False]
    assert np.isnan(nearest(where, [0, 2], [])).all()


@pytest.mark.parametrize(
    ("latitude", "longitude"),
    [(np.nan, 0), (0, np.nan), (np.inf, 0), (0, -np.inf), (90.5, 0), (0, 181), (1e30, 1e30)],
)
def test_impossible_coordinates_are_nowhere(latitude, longitude):
    where = places(np.array([latitude, 40.0]), np.array([longitude, -74.0]))
    assert where.is_known.tolist() == [False, True]


def test_popular_nearby_weighs_attraction_against_distance():
    latitudes, longitudes = spots(40, seed=3)
    random = np.random.default_rng(3)
    attraction = random.normal(0, 1, 40).astype(np.float32)
    is_candidate = random.random(40) < 0.8
    found = popular_nearby(
        places(latitudes, longitudes),
        attraction,
        is_candidate=is_candidate,
        slope=0.8,
        nearest_matters_km=0.2,
        count=6,
    )
    for row in range(40):
        pull = {
            other: attraction[other]
            - 0.8 * np.log(great_circle_km(latitudes, longitudes, row, other) + 0.2)
            for other in np.flatnonzero(is_candidate).tolist()
            if other != row
        }
        assert found[row].tolist() == sorted(pull, key=lambda other: -pull[other])[:6]


def test_thousands_at_one_point_leave_room_for_the_most_attractive_of_them():
    restaurants = 20_000
    attraction = np.arange(restaurants, dtype=np.float32)
    found = popular_nearby(
        places(np.full(restaurants, 40.0), np.full(restaurants, -74.0)),
        attraction,
        is_candidate=np.ones(restaurants, np.bool_),
        slope=0.8,
        nearest_matters_km=0.2,
        count=4,
    )
    assert found[0].tolist() == [19_999, 19_998, 19_997, 19_996]
    assert found[-1].tolist() == [19_998, 19_997, 19_996, 19_995]


def test_with_no_one_around_only_the_restaurant_itself_fills_up():
    nothing = np.zeros(3, np.float32)
    for coordinates, is_candidate in (
        (np.full(3, np.nan), np.ones(3, np.bool_)),
        (np.array([40.0, 41.0, 42.0]), np.zeros(3, np.bool_)),
        (np.array([40.0, np.nan, np.nan]), np.ones(3, np.bool_)),
    ):
        found = popular_nearby(
            places(coordinates, coordinates),
            nothing,
            is_candidate=is_candidate,
            slope=0.8,
            nearest_matters_km=0.2,
            count=2,
        )
        assert found.tolist() == [[0, 0], [1, 1], [2, 2]]
