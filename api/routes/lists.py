"""Public lists: what is popular, what grows and what is new, as bare ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from api.answers import Answer, Headers, Scope, as_response, header_map
from api.deps import Resources
from api.documented import ID_LIST, UNCHANGED, problems
from api.parameters import IntegerParameter, TextParameter, openapi_parameters, read_query
from api.public_ids import public_ids
from api.public_lists import PUBLIC_LISTS, public_list
from api.serving import DEFAULT_LIMIT, MAX_LIMIT
from shared.errors import NotFound
from shared.snapshot.format import EVERYWHERE

PATH = "/api/lists/{list_name}"
MAX_NAME_CHARS = 200

PARAMETERS = (
    IntegerParameter("limit", 1, MAX_LIMIT, DEFAULT_LIMIT, "How many restaurants at most."),
    TextParameter("city", MAX_NAME_CHARS, "Only restaurants of this city, in any case."),
    TextParameter("cuisine", MAX_NAME_CHARS, "Only restaurants of this cuisine, in any case."),
)
_LIST_NAME = {
    "name": "list_name",
    "in": "path",
    "required": True,
    "description": (
        "`popular`: most ordered from. `trending`: those whose orders surely grow, then the "
        "popular ones. `new`: those that appeared last."
    ),
    "schema": {"type": "string", "enum": list(PUBLIC_LISTS)},
}
_QUERY = openapi_parameters(PARAMETERS)["parameters"]

router = APIRouter(tags=["lists"])


def public(resources: Resources, scope: Scope, headers: Headers) -> Answer:
    """The ids of the list in the path. Raises NotFound, InvalidInput, SnapshotUnavailable."""
    list_name = scope["path"].split("/")[3]
    if list_name not in PUBLIC_LISTS:
        raise NotFound(f"there is no such list; there are {', '.join(PUBLIC_LISTS)}")
    values = read_query(scope["query_string"], PARAMETERS)
    limit: int = values["limit"]
    cuisine: str | None = values["cuisine"]
    snapshot = resources.snapshots.require_active()
    gone = resources.overlay.gone_in(snapshot)
    city = EVERYWHERE if values["city"] is None else snapshot.city_code(values["city"])
    ordinals: Sequence[int] = ()
    if city is not None:
        ordinals = public_list(
            snapshot, list_name, city=city, cuisine=cuisine, limit=limit, gone=gone.ordinals
        )
    # A copy made by the release before lacks rankings that another copy of the version has.
    ranking = list_name if list_name in snapshot.rankings else "popular"
    name = b"%b.%d.%d" % (ranking.encode(), -1 if city is None else city, limit)
    if cuisine is not None:
        name += b"." + hashlib.sha256(cuisine.encode()).hexdigest()[:16].encode()
    return public_ids(snapshot, ordinals, name=name + gone.tag, headers=headers)


@router.get(
    PATH,
    operation_id="listPublic",
    summary="What is popular, trending or new, in a city or everywhere",
    response_class=Response,
    responses={200: ID_LIST, **UNCHANGED, **problems(404, 422, 503)},
    openapi_extra={"parameters": [_LIST_NAME, *_QUERY]},
)
async def list_public(request: Request) -> Response:
    headers = header_map(request.scope["headers"])
    return as_response(public(request.app.state.resources, request.scope, headers))
