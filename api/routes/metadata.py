"""The metadata of all restaurants, what of them changed since a version, or of chosen ones.

The full form is prepared bytes in the coding that suits the client; the others are slices of it
(`metadata_forms.py`).
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response

from api.answers import Answer, Headers, Scope, as_response, header_map
from api.caching import is_match
from api.deps import Resources
from api.documented import METADATA, UNCHANGED, problems
from api.metadata_forms import Representation
from api.parameters import IdsParameter, NameParameter, openapi_parameters, read_query
from api.shown import Shown
from shared.errors import FieldError, InvalidInput, SnapshotUnavailable
from shared.metrics import metadata_served

PATH = "/api/restaurants/metadata"
MAX_IDS = 100
PARAMETERS = (
    NameParameter(
        "since",
        "The `version` of the metadata the client holds: only what changed. Any other text gives "
        "the full form",
    ),
    IdsParameter(
        "ids",
        MAX_IDS,
        "Only these restaurants, in this order, each once; unknown ones are left out. "
        "Not together with `since`",
    ),
)

router = APIRouter(tags=["restaurants"])


def metadata(resources: Resources, scope: Scope, headers: Headers) -> Answer:
    """Raises InvalidInput, NotAcceptable, SnapshotUnavailable."""
    since: str | None = None
    ids: tuple[int, ...] = ()
    if scope["query_string"]:
        values = read_query(scope["query_string"], PARAMETERS)
        since, ids = values["since"], values["ids"]
        if since is not None and ids:
            field = FieldError("query", "ids", "is not to be combined with since")
            raise InvalidInput("query parameter ids: is not to be combined with since", (field,))
    shown = resources.snapshots.require_active().shown
    if shown.is_withheld:
        raise SnapshotUnavailable("what closed could not be left out yet; try again soon")
    kind, chosen = _chosen(shown, since, ids, headers.get(b"accept-encoding"))
    encoding = chosen.coding.decode()
    if is_match(headers.get(b"if-none-match"), chosen.etag):
        metadata_served("not_modified", encoding=encoding, size_bytes=0)
        return Answer(304, chosen.unchanged_fields)
    metadata_served(kind, encoding=encoding, size_bytes=len(chosen.body))
    return Answer(200, chosen.fields, chosen.body)


def _chosen(
    shown: Shown,
    since: str | None,
    ids: tuple[int, ...],
    accept_encoding: bytes | None,
) -> tuple[Literal["full", "delta", "subset"], Representation]:
    if ids:
        return "subset", shown.forms.subset(ids, accept_encoding)
    full = shown.metadata[shown.negotiator.choose(accept_encoding)]
    if since is not None:
        delta = shown.forms.delta(since, accept_encoding, full_bytes=len(full.body))
        if delta is not None:
            return "delta", delta
    return "full", full


@router.get(
    PATH,
    operation_id="getMetadata",
    summary="What a frontend shows of every restaurant, to be kept and joined with ids",
    response_class=Response,
    responses={200: METADATA, **UNCHANGED, **problems(406, 422, 503)},
    openapi_extra=openapi_parameters(PARAMETERS),
)
async def get_metadata(request: Request) -> Response:
    headers = header_map(request.scope["headers"])
    return as_response(metadata(request.app.state.resources, request.scope, headers))
