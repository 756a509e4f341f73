"""Heads for users without orders who said what they like: popular restaurants that match."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from worker.catalogue import Catalogue
from worker.extract import Taste, UserColumns
from worker.ranking import popularity

NO_HEAD = -1


def taste_heads(
    tastes: Mapping[int, Taste],
    users: UserColumns,
    scores: NDArray[np.float32],
    catalogue: Catalogue,
    *,
    head_length: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """One head for each different taste and place, those of the place first.

    tastes: by user id. scores: popularity, shape (restaurants,). Returns (number of each user's
    head or NO_HEAD, shape (users,); where each head begins in the last, shape (heads + 1,); the
    restaurant rows of all heads). A taste that nothing matches has no head.
    """
    ranked = popularity.rank(scores, is_candidate=catalogue.is_active).tolist()
    numbers: dict[tuple[Taste, int], int] = {}
    heads: list[list[int]] = []
    of_user = np.full(len(users.ids), NO_HEAD, np.int32)
    for user_id, taste in tastes.items():
        user = int(np.searchsorted(users.ids, user_id))
        place = taste.city or int(users.cities[user])
        key = (taste, place)
        if key not in numbers:
            matching = [row for row in ranked if _matches(catalogue, row, taste)]
            near = [row for row in matching if place and catalogue.cities[row] == place]
            head = (near or matching)[:head_length]
            numbers[key] = len(heads) if head else NO_HEAD
            if head:
                heads.append(head)
        of_user[user] = numbers[key]
    indptr = np.zeros(len(heads) + 1, np.int64)
    np.cumsum([len(head) for head in heads], out=indptr[1:])
    rows = np.fromiter((row for head in heads for row in head), np.int32, int(indptr[-1]))
    return of_user, indptr, rows


def _matches(catalogue: Catalogue, row: int, taste: Taste) -> bool:
    if taste.price_ranges and int(catalogue.price_ranges[row]) not in taste.price_ranges:
        return False
    if not taste.cuisines:
        return True
    kinds = (catalogue.cuisines[row] or "").casefold().split("|")
    return any(kind.strip() in taste.cuisines for kind in kinds)
