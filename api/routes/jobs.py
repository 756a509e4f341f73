"""Background jobs: triggering a precompute, cancelling, and how far jobs are.

The row in the database is the job. The queue is asked first whether it answers, so that a trigger
is refused as a whole or accepted as a whole; a wake-up that is lost after the commit only costs
the seconds until a worker looks for queued rows by itself.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from api.answers import HeaderField, as_response, json_answer
from api.cursors import CursorParameter, CursorScope, cursor_key, open_cursor, seal_cursor
from api.database import in_transaction
from api.deps import AppResources, Operator, Service
from api.documented import SECURED, problems
from api.documented_operation import CANCELLING, JOB, JOBS, TRIGGERED
from api.parameters import IntegerParameter, openapi_parameters, read_query
from shared.errors import JobNotFound, QueueUnavailable
from shared.logs import get_logger

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shared.jobs.cancelling import Cancelled
    from shared.jobs.job import Job
    from shared.jobs.records import Triggered

JOBS_PATH = "/api/jobs"
JOB_PATH = "/api/jobs/{job_id}"
CANCEL_PATH = "/api/jobs/{job_id}/cancel"
TRIGGER_PATH = "/api/jobs/precompute"
ORIGIN = "api"
POLL_SECONDS = 2  # how soon it is worth asking for a job again
DEFAULT_LIMIT = 20
MAX_LIMIT = 50

PARAMETERS = (
    IntegerParameter("limit", 1, MAX_LIMIT, DEFAULT_LIMIT, "How many jobs at most."),
    CursorParameter(),
)

router = APIRouter(tags=["jobs"])
log = get_logger("api.jobs")

_POLL = (b"retry-after", b"%d" % POLL_SECONDS)
_JOB_ID_FORM = re.compile(r"[0-9a-f]{32}", re.ASCII)


@router.post(
    TRIGGER_PATH,
    operation_id="triggerPrecompute",
    summary="Queue a precompute, or join the one that is queued or running",
    status_code=202,
    response_class=Response,
    responses={202: TRIGGERED, **problems(401, 403, 422, 503)},
    openapi_extra=SECURED,
)
async def trigger_precompute(
    request: Request, resources: AppResources, principal: Service
) -> Response:
    read_query(request.scope["query_string"], ())
    queue = await resources.open_queue()
    await queue.check()
    engine = await resources.open_engine()
    from shared.db.audit import record_action
    from shared.jobs import records
    from shared.jobs.clock import database_time

    def trigger(connection: Connection) -> Triggered:
        now = database_time(connection)
        triggered = records.trigger(connection, kind="precompute", origin=ORIGIN, now=now)
        if not triggered.is_coalesced:
            connection.execute(
                record_action(
                    at=now,
                    actor=principal.role,
                    action="precompute.trigger",
                    subject=triggered.job.id,
                    detail={},
                )
            )
        return triggered

    triggered = await in_transaction(engine, lambda connection: connection.run_sync(trigger))
    job = triggered.job
    try:
        await queue.enqueue(job)
    except QueueUnavailable as error:
        log.warning("job.not_woken", job_id=job.id, reason=error.message)
    document = job.as_dict() | {"coalesced": triggered.is_coalesced}
    location = (b"location", f"{JOBS_PATH}/{job.id}".encode())
    return as_response(json_answer(document, status=202, headers=[location, _POLL]))


@router.get(
    JOBS_PATH,
    operation_id="listJobs",
    summary="Jobs, the newest first",
    response_class=Response,
    responses={200: JOBS, **problems(400, 401, 403, 422, 503)},
    openapi_extra=SECURED | openapi_parameters(PARAMETERS),
)
async def list_jobs(request: Request, resources: AppResources, principal: Operator) -> Response:
    values = read_query(request.scope["query_string"], PARAMETERS)
    limit: int = values["limit"]
    key = cursor_key(resources.settings)
    scope = CursorScope(JOBS_PATH, principal.role)
    before = None
    if values["cursor"] is not None:
        created_at, job_id = open_cursor(key, scope, values["cursor"])
        before = (datetime.fromisoformat(created_at), job_id)
    engine = await resources.open_engine()
    from shared.jobs import records

    # One more than asked for tells whether there is a next page.
    found = await in_transaction(
        engine,
        lambda connection: connection.run_sync(records.newest, limit=limit + 1, before=before),
    )
    jobs = list(found)[:limit]
    document: dict[str, Any] = {"items": [job.as_dict() for job in jobs], "next_cursor": None}
    headers: list[HeaderField] = []
    if len(found) > limit:
        last = jobs[-1]
        cursor = seal_cursor(key, scope, [last.created_at.isoformat(), last.id])
        document["next_cursor"] = cursor
        link = f'<{JOBS_PATH}?limit={limit}&cursor={cursor}>; rel="next"'
        headers.append((b"link", link.encode()))
    return as_response(json_answer(document, headers=headers))


@router.get(
    JOB_PATH,
    operation_id="getJob",
    summary="One job: its state, its progress, its stages",
    response_class=Response,
    responses={200: JOB, **problems(401, 403, 404, 422, 503)},
    openapi_extra=SECURED,
)
async def get_job(
    request: Request, job_id: str, resources: AppResources, _principal: Operator
) -> Response:
    read_query(request.scope["query_string"], ())
    job = await _find_job(resources, job_id)
    return as_response(json_answer(job.as_dict(), headers=[_POLL] if job.is_active else []))


@router.post(
    CANCEL_PATH,
    operation_id="cancelJob",
    summary="End a job: at once where it waits, within seconds where it runs",
    response_class=Response,
    responses={200: JOB, 202: CANCELLING, **problems(401, 403, 404, 409, 422, 503)},
    openapi_extra=SECURED,
)
async def cancel_job(
    request: Request, job_id: str, resources: AppResources, principal: Service
) -> Response:
    read_query(request.scope["query_string"], ())
    _check_form(job_id)
    engine = await resources.open_engine()
    from shared.db.audit import record_action
    from shared.jobs import cancelling
    from shared.jobs.clock import database_time

    def cancel(connection: Connection) -> Cancelled:
        now = database_time(connection)
        cancelled = cancelling.cancel(connection, job_id, now=now)
        if cancelled.is_new:
            connection.execute(
                record_action(
                    at=now,
                    actor=principal.role,
                    action="job.cancel",
                    subject=job_id,
                    detail={},
                )
            )
        return cancelled

    cancelled = await in_transaction(engine, lambda connection: connection.run_sync(cancel))
    job = cancelled.job
    if not job.is_active:
        return as_response(json_answer(job.as_dict()))
    headers = [(b"location", f"{JOBS_PATH}/{job.id}".encode()), _POLL]
    return as_response(json_answer(job.as_dict(), status=202, headers=headers))


async def _find_job(resources: AppResources, job_id: str) -> Job:
    _check_form(job_id)
    engine = await resources.open_engine()
    from shared.jobs import records

    return await in_transaction(engine, lambda connection: connection.run_sync(records.get, job_id))


def _check_form(job_id: str) -> None:
    """Raises JobNotFound."""
    if not _JOB_ID_FORM.fullmatch(job_id):
        raise JobNotFound("there is no such job")
