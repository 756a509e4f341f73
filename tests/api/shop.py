"""A shop of many restaurants and users, made at random from a seed, and its lists worked out
without any of the product's shortcuts."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.services.snapshots import SnapshotSpec, UserSpec, projection

RESTAURANTS = 300
USERS = 500
CITIES = ("Osaka", "Oaxaca", "São Paulo", None)
CENTRES = {"Osaka": (34.69, 135.5), "Oaxaca": (17.06, -96.72), "São Paulo": (-23.55, -46.63)}
CUISINES = ("Ramen", "Ramen|Bar", "Tacos", "Crêperie", "Bar|Tacos", None)


def made_shop(seed: int = 1) -> SnapshotSpec:
    chance = random.Random(seed)
    ids = sorted(chance.sample(range(1, 10_000), RESTAURANTS))
    cities = {i: chance.choice(CITIES) for i in ids}
    places = {}
    for i in ids:
        if (city := cities[i]) is not None and chance.random() < 0.9:
            latitude, longitude = CENTRES[city]
            places[i] = (latitude + chance.gauss(0, 0.1), longitude + chance.gauss(0, 0.1))
    return SnapshotSpec(
        restaurants=cities,
        users={n: _user(chance, ids) for n in range(1, USERS + 1)},
        popular=chance.sample(ids, RESTAURANTS),
        cuisines={i: chance.choice(CUISINES) for i in ids},
        price_ranges={i: chance.choice((1, 2, 3, 4, None)) for i in ids},
        places=places,
    )


def whole_list(
    spec: SnapshotSpec, user_id: int, list_name: str, filters: Mapping[str, Any]
) -> list[int]:
    """The list to its end, by the words of docs/api.md."""
    user = spec.users.get(user_id, UserSpec())
    head: Sequence[int] = getattr(user, list_name)
    rows: list[Iterable[int]] = [head]
    if list_name != "order_again":
        named = filters.get("city", [])
        city = named[0].title() if len(named) == 1 else user.city
        popular = spec.popular or ()
        rows.append([i for i in popular if city is not None and spec.restaurants[i] == city])
        rows.append(popular)
    own = set(user.order_again) if list_name == "discover" else set()
    return [
        i
        for i in dict.fromkeys(i for row in rows for i in row)
        if i not in own and passes(spec, i, filters)
    ]


def passes(spec: SnapshotSpec, restaurant_id: int, filters: Mapping[str, Any]) -> bool:
    shown = projection(spec, restaurant_id)
    cuisines = {name.casefold() for name in (shown["cuisine_type"] or "").split("|")}
    if (wanted := filters.get("cuisine")) and not cuisines & {name.casefold() for name in wanted}:
        return False
    cities = {name.casefold() for name in filters.get("city", [])}
    if cities and (shown["city"] or "").casefold() not in cities:
        return False
    if (prices := filters.get("price_range")) and shown["price_range"] not in prices:
        return False
    if (near := filters.get("near")) is not None:
        place = spec.places.get(restaurant_id)
        radius = filters.get("radius_km", 10)
        if place is None or kilometres(place, tuple(map(float, near.split(",")))) > radius:
            return False
    return str(restaurant_id) not in filters.get("exclude", "").split(",")


def kilometres(one: Sequence[float], other: Sequence[float]) -> float:
    """By the angle between two vectors."""
    first, second = _vector(*one), _vector(*other)
    crossed = math.hypot(
        first[1] * second[2] - first[2] * second[1],
        first[2] * second[0] - first[0] * second[2],
        first[0] * second[1] - first[1] * second[0],
    )
    along = sum(a * b for a, b in zip(first, second, strict=True))
    return 6371.0088 * math.atan2(crossed, along)


def _vector(latitude: float, longitude: float) -> tuple[float, float, float]:
    north, east = math.radians(latitude), math.radians(longitude)
    return math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north)


def _user(chance: random.Random, ids: Sequence[int]) -> UserSpec:
    city = chance.choice(CITIES)
    if chance.random() < 0.2:
        return UserSpec(city=city)
    ordered = chance.sample(ids, chance.randint(1, 30))
    for_you = chance.sample(ids, chance.randint(0, 80))
    discover = [i for i in chance.sample(ids, 80) if i not in ordered][: chance.randint(0, 60)]
    return UserSpec("personal", city, for_you=for_you, discover=discover, order_again=ordered)
