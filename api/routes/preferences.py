"""What the calling user likes, and which restaurants it does not want to see."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import APIRouter, Request, Response

from api.answers import as_response, header_map, json_answer
from api.auth import require_user
from api.database import in_transaction, in_transaction_again
from api.deps import AppResources, Caller, Resources
from api.documented import SECURED, problems
from api.documented_writes import HIDDEN, PREFERENCES, PREFERENCES_BODY
from api.json_bodies import read_members
from api.parameters import openapi_parameters, read_path_id, read_query
from api.preference_bodies import read_preferences
from shared.snapshot.overlay import MAX_HIDDEN

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shared.db.preferences import Hidden, Taste

PREFERENCES_PATH = "/api/preferences"
HIDDEN_PATH = "/api/preferences/hidden/{restaurant_id}"

router = APIRouter(tags=["preferences"])

T = TypeVar("T")


@router.get(
    PREFERENCES_PATH,
    operation_id="getMyPreferences",
    summary="What the caller likes and hides; empty for one who never said",
    response_class=Response,
    responses={200: PREFERENCES, **problems(401, 403, 422, 503)},
    openapi_extra=SECURED,
)
async def get_my_preferences(
    request: Request, resources: AppResources, principal: Caller
) -> Response:
    user_id = require_user(principal)
    read_query(request.scope["query_string"], ())
    engine = await resources.open_engine()

    def read(connection: Connection) -> dict[str, Any]:
        from shared.db.preferences import read_taste

        return _document(connection, user_id, read_taste(connection, user_id))

    document = await in_transaction(engine, lambda connection: connection.run_sync(read))
    return as_response(json_answer(document))


@router.put(
    PREFERENCES_PATH,
    operation_id="putMyPreferences",
    summary="Say what the caller likes, in place of all that was said before",
    response_class=Response,
    responses={200: PREFERENCES, **problems(400, 401, 403, 413, 422, 503)},
    openapi_extra=SECURED | PREFERENCES_BODY,
)
async def put_my_preferences(
    request: Request, resources: AppResources, principal: Caller
) -> Response:
    user_id = require_user(principal)
    read_query(request.scope["query_string"], ())
    members = read_members(await request.body(), header_map(request.scope["headers"]))
    values = read_preferences(members)
    await resources.open_engine()
    from shared.db.preferences import Taste, put_taste

    taste = Taste(**values)

    def put(connection: Connection) -> dict[str, Any]:
        put_taste(connection, user_id, taste)
        return _document(connection, user_id, taste)

    document = await _written(resources, put)
    return as_response(json_answer(document))


@router.put(
    HIDDEN_PATH,
    operation_id="hideRestaurant",
    summary="Take a restaurant out of all the caller's lists",
    status_code=204,
    response_class=Response,
    responses={204: HIDDEN, **problems(401, 403, 404, 422, 503)},
    openapi_extra=SECURED | openapi_parameters(path_ids=["restaurant_id"]),
)
async def hide_restaurant(
    request: Request, restaurant_id: str, resources: AppResources, principal: Caller
) -> Response:
    user_id = require_user(principal)
    read_query(request.scope["query_string"], ())
    hidden = read_path_id(restaurant_id, name="restaurant_id")
    await resources.open_engine()
    from shared.db.preferences import hide

    now = datetime.now(UTC)
    told = await _written(
        resources,
        lambda connection: hide(connection, user_id, hidden, now=now, most=MAX_HIDDEN),
    )
    return _hidden(resources, user_id, told)


@router.delete(
    HIDDEN_PATH,
    operation_id="unhideRestaurant",
    summary="Let a restaurant into the caller's lists again",
    status_code=204,
    response_class=Response,
    responses={204: HIDDEN, **problems(401, 403, 422, 503)},
    openapi_extra=SECURED | openapi_parameters(path_ids=["restaurant_id"]),
)
async def unhide_restaurant(
    request: Request, restaurant_id: str, resources: AppResources, principal: Caller
) -> Response:
    user_id = require_user(principal)
    read_query(request.scope["query_string"], ())
    shown = read_path_id(restaurant_id, name="restaurant_id")
    await resources.open_engine()
    from shared.db.preferences import unhide

    told = await _written(resources, lambda connection: unhide(connection, user_id, shown))
    return _hidden(resources, user_id, told)


async def _written(resources: Resources, write: Callable[[Connection], T]) -> T:
    """What `write` returns, once it is committed; the worker is woken."""
    engine = await resources.open_engine()
    result = await in_transaction_again(
        engine,
        lambda connection: connection.run_sync(write),
        refused="the user is being erased",
    )
    resources.refresh_wake.wake()
    return result


def _hidden(resources: Resources, user_id: int, told: Hidden | None) -> Response:
    if told is not None:
        resources.overlay.note_hidden(user_id, told.restaurant_ids, told.revision)
    return Response(status_code=204)


def _document(connection: Connection, user_id: int, taste: Taste) -> dict[str, Any]:
    from shared.db.preferences import read_hidden

    return {
        "cuisines": taste.cuisines,
        "price_ranges": taste.price_ranges,
        "city": taste.city,
        "hidden": read_hidden(connection, user_id),
    }
