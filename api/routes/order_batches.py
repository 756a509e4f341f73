"""Orders that the shop's backend took elsewhere: many in one request, told line by line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from api.answers import as_response
from api.database import in_transaction
from api.deps import AppResources, Resources, Service
from api.documented import SECURED, problems
from api.documented_orders import BATCH_REQUEST, MAX_BATCH_LINES
from api.documented_writes import ROW_OUTCOMES
from api.guard import REQUEST_ID
from api.ndjson import Limits, Line, Outcome, outcomes_answer, received_lines
from api.order_bodies import read_order
from api.parameters import read_query
from api.row_writes import BLOCK_LINES, DEADLINE_SECONDS
from shared.errors import DatabaseUnavailable, FieldError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shared.db.operator_writes import Actor
    from shared.db.order_batches import GivenOrder, PutOrders

BATCH_PATH = "/api/orders/batch"
TRIES = 3
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

    actor = Actor(principal.role, request.scope[REQUEST_ID])
    outcomes: list[Outcome] = []
    seen: set[int] = set()
    async with received_lines(request, limits=LIMITS, folder=resources.settings.data_dir) as lines:
        now = datetime.now(UTC)
        async for block in lines.blocks(partial(_read, now=now), size=BLOCK_LINES):
            orders = _different(block, seen, outcomes)
            if orders:
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


def _different(
    block: Sequence[Line[dict[str, Any]]], seen: set[int], outcomes: list[Outcome]
) -> list[GivenOrder]:
    """The orders of a block to write; what is wrong with others is added to `outcomes`."""
    from shared.db.order_batches import GivenOrder

    orders = []
    for line in block:
        if line.row is None:
            outcomes.append(Outcome(line.number, line.id, "rejected", line.errors))
        elif line.row["id"] in seen:
            again = FieldError("body", "id", "stands on an earlier line too")
            outcomes.append(Outcome(line.number, line.id, "rejected", (again,)))
        else:
            seen.add(line.row["id"])
            orders.append(GivenOrder(line.row["id"], line.number, line.row))
    return orders


async def _written(resources: Resources, orders: Sequence[GivenOrder], actor: Actor) -> PutOrders:
    engine = await resources.open_engine()
    from sqlalchemy.exc import IntegrityError

    from shared.db import order_batches

    def put(connection: Connection) -> PutOrders:
        return order_batches.put_orders(connection, orders, actor=actor)

    for _ in range(TRIES):
        try:
            return await in_transaction(
                engine,
                lambda connection: connection.run_sync(put),
                deadline_seconds=DEADLINE_SECONDS,
            )
        except IntegrityError:  # a user was erased meanwhile
            continue
    raise DatabaseUnavailable("users of these orders are being erased")
