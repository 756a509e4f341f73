"""Why a user is shown what is shown: lists with sources and evidence, names beside the ids.

For people who look into one user: the operator's inspector, and the command `explain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from api.changes import UNCHANGED, UserChanges
from api.detailed import detailed_items
from api.local_snapshot import LocalSnapshot
from api.serving import serve


def explained_lists(
    snapshot: LocalSnapshot,
    user_id: int,
    names: Sequence[str],
    *,
    limit: int,
    changes: UserChanges = UNCHANGED,
) -> dict[str, Any]:
    """By list: its source, and items as the detailed form has them, the names of the restaurants
    that a reason rests on beside their ids."""
    lists = {}
    for name in names:
        served = serve(snapshot, user_id, list_name=name, limit=limit, changes=changes)
        items = [orjson.loads(item) for item in detailed_items(snapshot, served)]
        for item in items:
            item["reason"]["restaurant_names"] = [
                _name(snapshot, restaurant_id) for restaurant_id in item["reason"]["restaurant_ids"]
            ]
        lists[name] = {"source": served.source, "items": items}
    return lists


def changes_document(snapshot: LocalSnapshot, changes: UserChanges) -> dict[str, Any]:
    """What holds beside the snapshot, as operators read it; `revision` 0: the snapshot's lists."""
    ids = snapshot.restaurants.ids
    return {
        "revision": changes.revision,
        "is_erased": changes.is_erased,
        "new_orders": [ids[ordinal] for ordinal in changes.ordered],
        "hidden": sorted(changes.hidden),
    }


def _name(snapshot: LocalSnapshot, restaurant_id: int) -> str:
    ordinal = snapshot.restaurants.ordinal_of(restaurant_id)
    assert ordinal is not None, "reasons name restaurants of the snapshot"
    name: str = orjson.loads(snapshot.projection(ordinal))["name"]
    return name
