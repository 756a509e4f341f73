"""The catalogue as the shop's backend changes it: many restaurants at once, or parts of one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from api.answers import as_response, header_map, json_answer
from api.database import in_transaction
from api.deps import AppResources, Resources, Service
from api.documented import RESTAURANT, SECURED, problems
from api.documented_writes import RESTAURANT_CHANGE, RESTAURANT_ROWS, ROW_OUTCOMES
from api.guard import REQUEST_ID
from api.json_bodies import read_members
from api.ndjson import Limits
from api.parameters import openapi_parameters, read_path_id, read_query
from api.row_bodies import read_row
from api.row_writes import DEADLINE_SECONDS, write_rows
from shared.columns import RESTAURANT_COLUMNS
from shared.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shared.db.operator_writes import Written

RESTAURANTS_PATH = "/api/restaurants"
RESTAURANT_PATH = "/api/restaurants/{restaurant_id}"

# A line holds the longest description there may be, with every character escaped.
LIMITS = Limits(lines=10_000, line_bytes=1024**2, total_bytes=32 * 1024**2)

router = APIRouter(tags=["restaurants"])

_CHANGEABLE = {name: column for name, column in RESTAURANT_COLUMNS.items() if name != "id"}


@router.put(
    RESTAURANTS_PATH,
    operation_id="putRestaurants",
    summary="Add or replace restaurants, one a line, with an outcome for each",
    response_class=Response,
    responses={200: ROW_OUTCOMES, **problems(400, 401, 403, 408, 413, 415, 422, 503)},
    openapi_extra=SECURED | RESTAURANT_ROWS,
)
async def put_restaurants(
    request: Request, resources: AppResources, principal: Service
) -> Response:
    read_query(request.scope["query_string"], ())
    await resources.open_engine()
    from shared.db import operator_writes

    actor = operator_writes.Actor(principal.role, request.scope[REQUEST_ID])
    answer = await write_rows(
        request,
        resources,
        columns=RESTAURANT_COLUMNS,
        limits=LIMITS,
        write=partial(operator_writes.put_restaurants, actor=actor),
        written=partial(_written, resources),
    )
    return as_response(answer)


@router.patch(
    RESTAURANT_PATH,
    operation_id="changeRestaurant",
    summary="Change what is given of one restaurant",
    response_class=Response,
    responses={200: RESTAURANT, **problems(400, 401, 403, 404, 413, 422, 503)},
    openapi_extra=SECURED | openapi_parameters(path_ids=["restaurant_id"]) | RESTAURANT_CHANGE,
)
async def change_restaurant(
    request: Request, restaurant_id: str, resources: AppResources, principal: Service
) -> Response:
    read_query(request.scope["query_string"], ())
    changed = read_path_id(restaurant_id, name="restaurant_id")
    members = read_members(await request.body(), header_map(request.scope["headers"]))
    values = read_row(members, _CHANGEABLE, is_part=True)
    engine = await resources.open_engine()
    from shared.db import operator_writes

    actor = operator_writes.Actor(principal.role, request.scope[REQUEST_ID])

    def change(connection: Connection) -> tuple[dict[str, Any], Written]:
        found = operator_writes.change_restaurant(connection, changed, values, actor=actor)
        if found is None:
            raise NotFound("there is no such restaurant")
        return found

    row, written = await in_transaction(
        engine,
        lambda connection: connection.run_sync(change),
        deadline_seconds=DEADLINE_SECONDS,
    )
    _written(resources, written)
    return as_response(json_answer(row))


def _written(resources: Resources, written: Written) -> None:
    """What must hold at once, and the wake-up of those who tell the other replicas."""
    if written.switched:
        resources.overlay.note_activity(written.switched)
        resources.refresh_wake.wake()
