"""What the database says now -> the records of an overlay."""

from collections.abc import Mapping, Sequence

from shared.snapshot.format import UserLists
from shared.snapshot.overlay import (
    GONE,
    MAX_RECORD_BYTES,
    RefreshedUser,
    RestaurantExclusion,
    UserExclusion,
    encode_exclusion,
    encode_refreshed,
    restaurant_key,
    user_key,
)
from worker.refresh import RefreshedLists, Refresher
from worker.refresher_reading import UserState

_HEAD_BYTES = 64


def list_records(
    refresher: Refresher, revisions: Mapping[int, int], states: Sequence[UserState]
) -> dict[str, bytes]:
    """Of the log of the refresher's version. revisions: by user id, in the order of the states.

    A user of whom there is nothing to say gets an empty record: a list that the snapshot holds
    must not stay.
    """
    refreshed = refresher.refresh(states)
    return {
        user_key(user_id): _list_record(each, revision, width=refresher.width)
        for (user_id, revision), each in zip(revisions.items(), refreshed, strict=True)
    }


def user_records(exclusions: Mapping[int, UserExclusion]) -> dict[str, bytes]:
    """Of the log of exclusions, by user id."""
    return {user_key(user_id): encode_exclusion(each) for user_id, each in exclusions.items()}


def restaurant_records(
    revisions: Mapping[int, int], active: Mapping[int, bool]
) -> dict[str, bytes]:
    """Of the log of exclusions; both by restaurant id."""
    return {
        restaurant_key(each): GONE
        if active[each]
        else encode_exclusion(RestaurantExclusion(revision))
        for each, revision in revisions.items()
    }


def _list_record(each: RefreshedLists, revision: int, *, width: int) -> bytes:
    lists = each.lists
    room = (MAX_RECORD_BYTES - _HEAD_BYTES) // width - len(lists.for_you) - len(lists.discover)
    lists = UserLists(lists.for_you, lists.discover, lists.order_again[:room])
    return encode_refreshed(RefreshedUser(revision, each.source, each.city, lists), width=width)
