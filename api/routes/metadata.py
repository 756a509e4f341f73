"""The metadata of all restaurants: prepared bytes in the coding that suits the client."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.answers import Answer, Headers, Scope, as_response, header_map
from api.caching import is_match
from api.deps import Resources
from api.documented import METADATA, UNCHANGED, problems
from api.parameters import read_query
from shared.metrics import metadata_served

PATH = "/api/restaurants/metadata"

router = APIRouter(tags=["restaurants"])


def metadata(resources: Resources, scope: Scope, headers: Headers) -> Answer:
    """Raises InvalidInput for any parameter, NotAcceptable, SnapshotUnavailable."""
    if scope["query_string"]:
        read_query(scope["query_string"], ())
    snapshot = resources.snapshots.require_active()
    coding = snapshot.negotiator.choose(headers.get(b"accept-encoding"))
    representation = snapshot.metadata[coding]
    if is_match(headers.get(b"if-none-match"), representation.etag):
        metadata_served("not_modified", encoding=coding.decode(), size_bytes=0)
        return Answer(304, representation.unchanged_fields)
    body = representation.body
    metadata_served("full", encoding=coding.decode(), size_bytes=len(body))
    return Answer(200, representation.fields, body)


@router.get(
    PATH,
    operation_id="getMetadata",
    summary="What a frontend shows of every restaurant, to be kept and joined with ids",
    response_class=Response,
    responses={200: METADATA, **UNCHANGED, **problems(406, 422, 503)},
)
async def get_metadata(request: Request) -> Response:
    headers = header_map(request.scope["headers"])
    return as_response(metadata(request.app.state.resources, request.scope, headers))
