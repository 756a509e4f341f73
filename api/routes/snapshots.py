"""The published versions for operators: what there is, rolling back and forward, the pin.

All of it is the store's; the database only keeps the note of who did what, and a rollback does
not wait for it. Readers follow within seconds, by the same road as to any new version.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from api.answers import as_response, header_map, json_answer
from api.database import in_transaction
from api.deps import AppResources, Operator, Resources, Service
from api.documented import SECURED, problems
from api.documented_operation import ACTIVATION_BODY, POINTER, SNAPSHOTS
from api.json_bodies import read_object
from api.parameters import read_query
from api.store_calls import CHANGE_SECONDS, call_store
from shared.errors import DatabaseUnavailable, SchemaError, SnapshotNotFound
from shared.logs import get_logger
from shared.snapshot.manifest import is_version

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from api.auth import Principal
    from shared.db.audit import Action
    from shared.snapshot.store import CatalogEntry, Pointer

SNAPSHOTS_PATH = "/api/snapshots"
ACTIVATE_PATH = "/api/snapshots/{version}/activate"
UNPIN_PATH = "/api/snapshots/unpin"

router = APIRouter(tags=["snapshots"])
log = get_logger("api.snapshots")


@router.get(
    SNAPSHOTS_PATH,
    operation_id="listSnapshots",
    summary="The published versions, the newest first",
    response_class=Response,
    responses={200: SNAPSHOTS, **problems(401, 403, 409, 422, 503)},
    openapi_extra=SECURED,
)
async def list_snapshots(
    request: Request, resources: AppResources, _principal: Operator
) -> Response:
    read_query(request.scope["query_string"], ())
    store = resources.store

    def read() -> tuple[list[CatalogEntry], Pointer]:
        return store.versions(), store.pointer()

    entries, pointer = await call_store(read)
    items = [
        entry.manifest.as_dict()
        | {"state": entry.state, "pinned": pointer.is_pinned and entry.state == "active"}
        for entry in entries
    ]
    document = {"items": items, "next_cursor": None} | _pointer_document(pointer)
    return as_response(json_answer(document))


@router.post(
    ACTIVATE_PATH,
    operation_id="activateSnapshot",
    summary="Roll back or forward to a version, after its bytes were verified",
    response_class=Response,
    responses={200: POINTER, **problems(400, 401, 403, 404, 409, 422, 503)},
    openapi_extra=SECURED | ACTIVATION_BODY,
)
async def activate_snapshot(
    request: Request, version: str, resources: AppResources, principal: Service
) -> Response:
    read_query(request.scope["query_string"], ())
    headers = header_map(request.scope["headers"])
    body = read_object(await request.body(), headers, members={"pin": bool})
    pin: bool = body.get("pin", False)
    if not is_version(version):
        raise SnapshotNotFound("there is no such snapshot")
    pointer = await call_store(
        lambda: resources.store.activate(version, pin=pin), deadline_seconds=CHANGE_SECONDS
    )
    await _record(
        resources, principal, action="snapshot.activate", subject=version, detail={"pin": pin}
    )
    return as_response(json_answer(_pointer_document(pointer)))


@router.post(
    UNPIN_PATH,
    operation_id="unpinSnapshots",
    summary="Let the next snapshot be activated again",
    response_class=Response,
    responses={200: POINTER, **problems(401, 403, 409, 422, 503)},
    openapi_extra=SECURED,
)
async def unpin_snapshots(
    request: Request, resources: AppResources, principal: Service
) -> Response:
    read_query(request.scope["query_string"], ())
    pointer = await call_store(resources.store.unpin, deadline_seconds=CHANGE_SECONDS)
    await _record(
        resources, principal, action="snapshots.unpin", subject=pointer.version or "", detail={}
    )
    return as_response(json_answer(_pointer_document(pointer)))


def _pointer_document(pointer: Pointer) -> dict[str, Any]:
    return {"active": pointer.version, "pinned": pointer.is_pinned}


async def _record(
    resources: Resources,
    principal: Principal,
    *,
    action: Action,
    subject: str,
    detail: dict[str, Any],
) -> None:
    """Notes in the audit table what was done; the log has it even where the database is away."""
    log.info("operator.acted", actor=principal.role, action=action, subject=subject, **detail)
    at = datetime.now(UTC)
    try:
        engine = await resources.open_engine()
        from shared.db.audit import record_action

        statement = record_action(
            at=at, actor=principal.role, action=action, subject=subject, detail=detail
        )

        async def write(connection: AsyncConnection) -> None:
            await connection.execute(statement)

        await in_transaction(engine, write)
    except (DatabaseUnavailable, SchemaError) as error:
        log.warning("operator.not_recorded", action=action, reason=error.message)
