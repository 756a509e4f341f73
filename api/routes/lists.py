"""Public lists: the most popular restaurants, of a city or of everywhere, as bare ids."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from api.answers import as_response, header_map
from api.documented import ID_LIST, UNCHANGED, problems
from api.parameters import IntegerParameter, TextParameter, openapi_parameters, read_query
from api.public_ids import public_ids
from api.serving import DEFAULT_LIMIT, MAX_LIMIT, popular
from shared.snapshot.format import EVERYWHERE

PATH = "/api/lists/popular"
MAX_CITY_CHARS = 200

PARAMETERS = (
    IntegerParameter("limit", 1, MAX_LIMIT, DEFAULT_LIMIT, "How many restaurants at most."),
    TextParameter("city", MAX_CITY_CHARS, "Only restaurants of this city, in any case."),
)

router = APIRouter(tags=["lists"])


@router.get(
    PATH,
    operation_id="listPopular",
    summary="The most popular restaurants, of a city or of everywhere",
    response_class=Response,
    responses={200: ID_LIST, **UNCHANGED, **problems(422, 503)},
    openapi_extra=openapi_parameters(PARAMETERS),
)
async def list_popular(request: Request) -> Response:
    values = read_query(request.scope["query_string"], PARAMETERS)
    limit: int = values["limit"]
    snapshot = request.app.state.resources.snapshots.require_active()
    city = EVERYWHERE if values["city"] is None else snapshot.city_code(values["city"])
    ordinals: Sequence[int] = ()
    if city is not None:
        ordinals = popular(snapshot, city=city, limit=limit)
    name = b"popular.%d.%d" % (-1 if city is None else city, limit)
    headers = header_map(request.scope["headers"])
    return as_response(public_ids(snapshot, ordinals, name=name, headers=headers))
