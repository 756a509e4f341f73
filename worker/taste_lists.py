"""Heads for users without orders who said what they like: popular restaurants that match."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from worker.catalogue import Catalogue, coded_cuisines
from worker.extract import Taste, UserColumns
from worker.ranking import popularity

NO_HEAD = -1
NO_PRICE = 0


class TasteRanking:
    """The active restaurants by popularity, to be sifted by tastes."""

    def __init__(
        self,
        scores: NDArray[np.float32],
        *,
        is_active: NDArray[np.bool_],
        cities: NDArray[np.uint16],
        price_ranges: NDArray[np.uint8],
        cuisine_codes: NDArray[np.int32],
        cuisine_names: Sequence[str],
    ) -> None:
        """Arrays of shape (restaurants,); scores: popularity; codes as of `coded_cuisines`."""
        self._rows = popularity.rank(scores, is_candidate=is_active)
        self._cities = cities[self._rows]
        self._price_ranges = price_ranges[self._rows]
        self._everywhere = np.arange(len(self._rows))
        codes = cuisine_codes[self._rows]
        by_code = np.argsort(codes, kind="stable")
        ends = np.searchsorted(codes[by_code], np.arange(len(cuisine_names) + 1))
        places: dict[str, list[NDArray[np.int64]]] = {}
        for code, names in enumerate(cuisine_names):
            for name in {name.strip() for name in names.casefold().split("|")}:
                places.setdefault(name, []).append(by_code[ends[code] : ends[code + 1]])
        self._places = {name: np.concatenate(each) for name, each in places.items()}

    def head(self, taste: Taste, *, place: int, n: int) -> NDArray[np.int32]:
        """The n most popular rows that match; those of the place, a city code, if any do.

        Where no price matches, a restaurant whose price nobody noted does. None match a taste that
        says nothing.
        """
        if not taste.cuisines and not taste.price_ranges:
            return self._rows[self._near(self._everywhere, taste.city)[:n]]
        matching = self._everywhere
        if taste.cuisines:
            found = [self._places[name] for name in taste.cuisines if name in self._places]
            matching = np.unique(np.concatenate(found)) if found else matching[:0]
        strict = lenient = matching
        if taste.price_ranges:
            prices = self._price_ranges[matching]
            is_allowed = np.isin(prices, np.array(sorted(taste.price_ranges)))
            strict, lenient = matching[is_allowed], matching[prices == NO_PRICE]
        for places in (self._near(strict, place), self._near(lenient, place), strict, lenient):
            if len(places):
                return self._rows[places[:n]]
        return self._rows[:0]

    def _near(self, places: NDArray[np.int64], place: int) -> NDArray[np.int64]:
        return places[self._cities[places] == place] if place else places[:0]


def with_stated_cities(tastes: Mapping[int, Taste], users: UserColumns) -> UserColumns:
    """The users, each in the city that they said: who has no orders may have said another."""
    cities = users.cities.copy()
    for user_id, taste in tastes.items():
        if taste.city:
            cities[np.searchsorted(users.ids, user_id)] = taste.city
    return UserColumns(users.ids, cities)


def taste_heads(
    tastes: Mapping[int, Taste],
    users: UserColumns,
    scores: NDArray[np.float32],
    catalogue: Catalogue,
    *,
    head_length: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """One head for each different taste and place.

    tastes: by user id. users: as of `with_stated_cities`. scores: popularity, shape (restaurants,).
    Returns (number of each user's head or NO_HEAD, shape (users,); where each head begins in the
    last, shape (heads + 1,); the restaurant rows of all heads). A taste that nothing matches has no
    head.
    """
    codes, names = coded_cuisines(catalogue.cuisines)
    ranking = TasteRanking(
        scores,
        is_active=catalogue.is_active,
        cities=catalogue.cities,
        price_ranges=catalogue.price_ranges,
        cuisine_codes=codes,
        cuisine_names=names,
    )
    numbers: dict[tuple[Taste, int], int] = {}
    heads: list[NDArray[np.int32]] = []
    of_user = np.full(len(users.ids), NO_HEAD, np.int32)
    for user_id, taste in tastes.items():
        user = int(np.searchsorted(users.ids, user_id))
        place = int(users.cities[user])
        key = (taste, place)
        if key not in numbers:
            head = ranking.head(taste, place=place, n=head_length)
            numbers[key] = len(heads) if len(head) else NO_HEAD
            if len(head):
                heads.append(head)
        of_user[user] = numbers[key]
    indptr = np.zeros(len(heads) + 1, np.int64)
    np.cumsum([len(head) for head in heads], out=indptr[1:])
    rows = np.concatenate(heads) if heads else np.empty(0, np.int32)
    return of_user, indptr, rows
