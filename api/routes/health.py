"""`/health`: the process answers. `/ready`: it can serve, and what behind it does not answer."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Request, Response

from api.answers import JSON_TYPE, Answer, Headers, Scope, as_response, header_map, length_of
from api.deps import Resources
from api.documented import HEALTH, READINESS
from api.parameters import read_query
from api.readiness import Readiness

HEALTH_PATH = "/health"
READY_PATH = "/ready"

router = APIRouter(tags=["operation"])

_BODY = b'{"status":"ok"}'
_NO_STORE = (b"cache-control", b"no-store")
_HEALTH_FIELDS = [JSON_TYPE, length_of(_BODY), _NO_STORE]


def health(_resources: Resources, _scope: Scope, _headers: Headers) -> Answer:
    """Looks at nothing, so that no outage behind the process gets it restarted."""
    return Answer(200, _HEALTH_FIELDS, _BODY)


@router.get(
    HEALTH_PATH,
    operation_id="getHealth",
    summary="Whether the process answers",
    response_class=Response,
    responses={200: HEALTH},
)
async def get_health(request: Request) -> Response:
    headers = header_map(request.scope["headers"])
    return as_response(health(request.app.state.resources, request.scope, headers))


@router.get(
    READY_PATH,
    operation_id="getReadiness",
    summary="Whether this process can serve lists, and the state of what it depends on",
    response_class=Response,
    responses={200: READINESS, 503: READINESS | {"description": "It cannot serve any list."}},
)
async def get_readiness(request: Request) -> Response:
    read_query(request.scope["query_string"], ())
    readiness: Readiness = request.app.state.readiness
    status, document = await readiness.report()
    body = orjson.dumps(document)
    fields = [JSON_TYPE, length_of(body), _NO_STORE]
    if status == 503:
        fields.append((b"retry-after", b"5"))
    return as_response(Answer(status, fields, body))
