"""A user's orders: listing them, and placing one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter, Request, Response

from api.answers import JSON_TYPE, Answer, HeaderField, Headers, as_response, header_map, length_of
from api.auth import require_user
from api.cursors import CursorParameter, CursorScope, cursor_key, open_cursor, seal_cursor
from api.database import in_transaction
from api.deps import Resources, principal_of
from api.documented import SECURED, problems
from api.documented_orders import ORDER, ORDER_REQUEST, ORDERS
from api.json_bodies import read_members
from api.order_bodies import fingerprint, read_order
from api.parameters import IntegerParameter, openapi_parameters, read_query
from shared.errors import FieldError, InvalidInput

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shared.db.orders import Position, StoredOrder

ORDERS_PATH = "/api/orders"
DEFAULT_LIMIT = 20
MAX_LIMIT = 50
MAX_KEY_CHARS = 255
KEY_HEADER = "Idempotency-Key"

PARAMETERS = (
    IntegerParameter("limit", 1, MAX_LIMIT, DEFAULT_LIMIT, "How many orders at most."),
    CursorParameter(),
)

router = APIRouter(tags=["orders"])

_KEY_FORM = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_KEY_CHARS)


@router.get(
    ORDERS_PATH,
    operation_id="listMyOrders",
    summary="The caller's orders, the newest first, each with its restaurant",
    response_class=Response,
    responses={200: ORDERS, **problems(400, 401, 403, 422, 503)},
    openapi_extra=SECURED | openapi_parameters(PARAMETERS),
)
async def list_my_orders(request: Request) -> Response:
    resources: Resources = request.app.state.resources
    user_id = require_user(await principal_of(request))
    values = read_query(request.scope["query_string"], PARAMETERS)
    limit: int = values["limit"]
    key = cursor_key(resources.settings)
    scope = CursorScope(ORDERS_PATH, f"user {user_id}")
    position = None
    if values["cursor"] is not None:
        date, order_id = open_cursor(key, scope, values["cursor"])
        position = (datetime.fromisoformat(date), order_id)
    engine = await resources.open_reading_engine()
    from shared.db.orders import Position, orders_of

    before: Position | None = None if position is None else Position(*position)

    def read(connection: Connection) -> list[StoredOrder]:
        # One more than asked for tells whether there is a next page.
        return orders_of(connection, user_id, limit=limit + 1, before=before)

    found = await in_transaction(engine, lambda connection: connection.run_sync(read))
    orders = found[:limit]
    document: dict[str, Any] = {
        "items": [order.as_dict() for order in orders],
        "next_cursor": None,
    }
    headers: list[HeaderField] = []
    if len(found) > limit:
        last = orders[-1]
        cursor = seal_cursor(key, scope, [last.order_date.isoformat(), last.id])
        document["next_cursor"] = cursor
        link = f'<{ORDERS_PATH}?limit={limit}&cursor={cursor}>; rel="next"'
        headers.append((b"link", link.encode()))
    return _answer(200, document, headers)


@router.post(
    ORDERS_PATH,
    operation_id="createOrder",
    summary="Place an order: answered once it is committed",
    status_code=201,
    response_class=Response,
    responses={201: ORDER, **problems(400, 401, 403, 422, 503)},
    openapi_extra=SECURED | ORDER_REQUEST,
)
async def create_order(request: Request) -> Response:
    resources: Resources = request.app.state.resources
    user_id = require_user(await principal_of(request))
    read_query(request.scope["query_string"], ())
    headers = header_map(request.scope["headers"])
    key = _idempotency_key(headers)
    now = datetime.now(UTC)
    values = read_order(
        read_members(await request.body(), headers),
        required=("restaurant_id",),
        optional=("total_amount", "rating", "order_date"),
        now=now,
    )
    body_hash = fingerprint(values)
    if values["order_date"] is None:
        values["order_date"] = now.replace(microsecond=now.microsecond // 1000 * 1000)
    await resources.open_engine()
    from shared.db.new_orders import NewOrder

    placed = await resources.order_writer.place(
        NewOrder(user_id=user_id, key=key, body_hash=body_hash, **values)
    )
    if placed.revision is not None:
        resources.overlay.note_order(user_id, values["restaurant_id"], placed.revision)
        resources.refresh_wake.wake()
    return _answer(201, placed.order.as_dict())


def _idempotency_key(headers: Headers) -> str | None:
    """Raises InvalidInput."""
    raw = headers.get(KEY_HEADER.lower().encode())
    if raw is None:
        return None
    if not _KEY_FORM.fullmatch(raw):
        detail = f"is not 1 to {MAX_KEY_CHARS} visible ASCII characters, sent once"
        field = FieldError("header", KEY_HEADER, detail)
        raise InvalidInput(f"header {KEY_HEADER}: {detail}", (field,))
    return raw.decode("ascii")


def _answer(status: int, document: dict[str, Any], headers: Sequence[HeaderField] = ()) -> Response:
    body = orjson.dumps(document, option=orjson.OPT_UTC_Z)
    return as_response(Answer(status, [JSON_TYPE, length_of(body), *headers], body))
