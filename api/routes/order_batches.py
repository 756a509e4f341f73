"""Orders that the shop's backend took elsewhere: many in one request, told line by line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from api.answers import as_response
from api.database import in_transaction_again
from api.deps import AppResources, Resources, Service
from api.documented import SECURED, problems
from api.documented_orders import BATCH_REQUEST, MAX_BATCH_LINES
from api.documented_writes import ROW_OUTCOMES
from api.guard import REQUEST_ID
from api.ndjson import Limits, Outcome, outcomes_answer, received_lines
from api.order_bodies import read_order
from api.parameters import read_query
from api.row_writes import BLOCK_LINES, DEADLINE_SECONDS, first_of_each_id

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shared.db.operator_writes import Actor
    from shared.db.order_batches import GivenOrder, PutOrders

BATCH_PATH = "/api/orders/batch"
# Two systems' clocks differ; more than this is a mistake.
MAX_AHEAD = timedelta(seconds=60)

LIMITS = Limits(lines=MAX_BATCH_LINES, line_bytes=4 * 1024, total_bytes=1024**2)

router = APIRouter(tags=["orders"])


@router.post(
    BATCH_PATH,
    operation_id="putOrders",
    summary="Write orders by their own ids, one a line, with an outcome for each",
    response_class=Response,
    responses={200: ROW_OUTCOMES, **problems(400, 401, 403, 408, 413, 415, 422, 503)},
    openapi_extra=SECURED | BATCH_REQUEST,
)
async def put_orders(request: Request, resources: AppResources, principal: Service) -> Response:
    read_query(request.scope["query_string"], ())
    await resources.open_engine()
    from shared.db.operator_writes import Actor
    from shared.db.order_batches import GivenOrder

    actor = Actor(principal.role, request.scope[REQUEST_ID])
    outcomes: list[Outcome] = []
    seen: set[int] = set()
    async with received_lines(request, limits=LIMITS, folder=resources.settings.data_dir) as lines:
        now = datetime.now(UTC)
        async for block in lines.blocks(partial(_read, now=now), size=BLOCK_LINES):
            given = first_of_each_id(block, seen, outcomes)
            if orders := [GivenOrder(row["id"], number, row) for number, row in given]:
                put = await _written(resources, orders, actor)
                resources.overlay.note_orders(put.created)
                resources.refresh_wake.wake()
                outcomes += [Outcome(*told) for told in put.told]
    return as_response(await outcomes_answer(outcomes))


def _read(members: Mapping[str, Any], *, now: datetime) -> dict[str, Any]:
    return read_order(
        members,
        required=("id", "user_id", "restaurant_id", "order_date"),
        optional=("total_amount", "rating"),
        now=now,
        ahead=MAX_AHEAD,
    )


async def _written(resources: Resources, orders: Sequence[GivenOrder], actor: Actor) -> PutOrders:
    engine = await resources.open_engine()
    from shared.db import order_batches

    def put(connection: Connection) -> PutOrders:
        return order_batches.put_orders(connection, orders, actor=actor)

    return await in_transaction_again(
        engine,
        lambda connection: connection.run_sync(put),
        refused="users of these orders are being erased",
        deadline_seconds=DEADLINE_SECONDS,
    )
