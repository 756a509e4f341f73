"""The operator's look into one user: what was ordered, what is shown, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from fastapi import APIRouter, Request, Response

from api.answers import JSON_TYPE, Answer, as_response, length_of
from api.database import in_transaction
from api.deps import AppResources, Operator, Resources
from api.documented import SECURED, problems
from api.documented_explain import EXPLANATION
from api.explaining import changes_document, explained_lists
from api.local_snapshot import LocalSnapshot
from api.parameters import (
    IntegerParameter,
    TextParameter,
    openapi_parameters,
    read_path_id,
    read_query,
)
from api.serving import LISTS, MAX_LIMIT, serve
from api.store_calls import CHANGE_SECONDS, call_store

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shared.db.orders import StoredOrder

EXPLAIN_PATH = "/api/users/{user_id}/explain"
DEFAULT_LIMIT = 20
MAX_VERSION_CHARS = 64

PARAMETERS = (
    IntegerParameter(
        "limit", 1, MAX_LIMIT, DEFAULT_LIMIT, "How many orders, and how many of each list, at most."
    ),
    TextParameter(
        "version", MAX_VERSION_CHARS, "A kept or held version; without it, the active one."
    ),
)

router = APIRouter(tags=["users"])


@router.get(
    EXPLAIN_PATH,
    operation_id="explainUser",
    summary="A user's orders and lists, with the reason for each restaurant",
    response_class=Response,
    responses={200: EXPLANATION, **problems(401, 403, 404, 409, 422, 503)},
    openapi_extra=SECURED | openapi_parameters(PARAMETERS, path_ids=["user_id"]),
)
async def explain_user(
    request: Request, user_id: str, resources: AppResources, _principal: Operator
) -> Response:
    user = read_path_id(user_id, name="user_id")
    values = read_query(request.scope["query_string"], PARAMETERS)
    limit: int = values["limit"]
    snapshot = await _snapshot(resources, values["version"])
    orders = await _orders(resources, user, limit + 1)
    changes = resources.overlay.of_user(snapshot, user)
    shown = serve(snapshot, user, list_name=LISTS[0], limit=1, changes=changes)
    document = {
        "user_id": user,
        "is_known": snapshot.users.find(user) is not None,
        "city": snapshot.cities[shown.city],
        "source": shown.source,
        "snapshot_version": snapshot.version,
        "metadata_version": snapshot.manifest.metadata_version,
        "generated_at": snapshot.created_at_text.decode(),
        "changes": changes_document(snapshot, changes),
        "history": {
            "items": [order.as_dict() for order in orders[:limit]],
            "has_more": len(orders) > limit,
        },
        "lists": explained_lists(snapshot, user, LISTS, limit=limit, changes=changes),
    }
    body = orjson.dumps(document, option=orjson.OPT_UTC_Z)
    return as_response(Answer(200, [JSON_TYPE, length_of(body)], body))


async def _snapshot(resources: Resources, version: str | None) -> LocalSnapshot:
    served = resources.inspection.served(version)
    if served is not None:
        return served
    assert version is not None, "the active version is served"
    return await call_store(
        lambda: resources.inspection.fetched(version), deadline_seconds=CHANGE_SECONDS
    )


async def _orders(resources: Resources, user_id: int, limit: int) -> list[StoredOrder]:
    engine = await resources.open_engine()
    from shared.db.orders import orders_of

    def read(connection: Connection) -> list[StoredOrder]:
        return orders_of(connection, user_id, limit=limit)

    return await in_transaction(engine, lambda connection: connection.run_sync(read))
