"""Users as the shop's backend knows them: many added or changed at once, and one erased."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from api.answers import as_response
from api.database import in_transaction
from api.deps import AppResources, Service
from api.documented import SECURED, problems
from api.documented_writes import ERASED, ROW_OUTCOMES, USER_ROWS
from api.guard import REQUEST_ID
from api.ndjson import Limits
from api.parameters import openapi_parameters, read_path_id, read_query
from api.row_writes import DEADLINE_SECONDS, write_rows
from shared.columns import USER_COLUMNS

if TYPE_CHECKING:
    from shared.db.operator_writes import Written

USERS_PATH = "/api/users"
USER_PATH = "/api/users/{user_id}"

LIMITS = Limits(lines=10_000, line_bytes=8 * 1024, total_bytes=8 * 1024**2)

router = APIRouter(tags=["users"])


@router.put(
    USERS_PATH,
    operation_id="putUsers",
    summary="Add or replace users, one a line, with an outcome for each",
    response_class=Response,
    responses={200: ROW_OUTCOMES, **problems(400, 401, 403, 408, 413, 415, 422, 503)},
    openapi_extra=SECURED | USER_ROWS,
)
async def put_users(request: Request, resources: AppResources, principal: Service) -> Response:
    read_query(request.scope["query_string"], ())
    await resources.open_engine()
    from shared.db import operator_writes

    actor = operator_writes.Actor(principal.role, request.scope[REQUEST_ID])

    def written(told: Written) -> None:
        if any(row.outcome != "unchanged" for row in told.rows):
            resources.refresh_wake.wake()

    answer = await write_rows(
        request,
        resources,
        columns=USER_COLUMNS,
        limits=LIMITS,
        write=partial(operator_writes.put_users, actor=actor),
        written=written,
    )
    return as_response(answer)


@router.delete(
    USER_PATH,
    operation_id="eraseUser",
    summary="Erase a user: orders, preferences, lists",
    status_code=204,
    response_class=Response,
    responses={204: ERASED, **problems(401, 403, 422, 503)},
    openapi_extra=SECURED | openapi_parameters(path_ids=["user_id"]),
)
async def erase_user(
    request: Request, user_id: str, resources: AppResources, principal: Service
) -> Response:
    read_query(request.scope["query_string"], ())
    erased = read_path_id(user_id, name="user_id")
    engine = await resources.open_engine()
    from shared.db import operator_writes

    actor = operator_writes.Actor(principal.role, request.scope[REQUEST_ID])
    revision = await in_transaction(
        engine,
        lambda connection: connection.run_sync(operator_writes.erase_user, erased, actor=actor),
        deadline_seconds=DEADLINE_SECONDS,
    )
    resources.overlay.note_erased(erased, revision)
    resources.refresh_wake.wake()
    return Response(status_code=204)
