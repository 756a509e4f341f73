"""The catalogue and one restaurant from the database, and those like it from the snapshot."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import APIRouter, Request, Response

from api.answers import (
    JSON_TYPE,
    Answer,
    HeaderField,
    Headers,
    Scope,
    as_response,
    header_map,
    length_of,
)
from api.caching import is_match
from api.catalogue import (
    CATALOGUE_PATH,
    PARAMETERS,
    catalogue_document,
    find_page,
    read_catalogue_query,
)
from api.cursors import cursor_key
from api.database import in_transaction
from api.deps import Resources
from api.documented import CATALOGUE, ID_LIST, RESTAURANT, UNCHANGED, problems
from api.parameters import IntegerParameter, openapi_parameters, read_path_id, read_query
from api.public_ids import public_ids
from api.serving import DEFAULT_LIMIT, MAX_LIMIT
from shared.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

DETAIL_PATH = "/api/restaurants/{restaurant_id}"
SIMILAR_PATH = "/api/restaurants/{restaurant_id}/similar"

SIMILAR_PARAMETERS = (
    IntegerParameter("limit", 1, MAX_LIMIT, DEFAULT_LIMIT, "How many restaurants at most."),
)

router = APIRouter(tags=["restaurants"])


def similar(resources: Resources, scope: Scope, headers: Headers) -> Answer:
    """The ids of those like the one in the path. Raises NotFound, InvalidInput,
    SnapshotUnavailable."""
    limit: int = read_query(scope["query_string"], SIMILAR_PARAMETERS)["limit"]
    wanted = read_path_id(scope["path"].split("/")[3], name="restaurant_id")
    snapshot = resources.snapshots.require_active()
    gone = resources.overlay.gone_in(snapshot)
    ordinal = snapshot.restaurants.ordinal_of(wanted)
    if ordinal is None or ordinal in gone.ordinals:
        raise NotFound("there is no such restaurant")
    name = b"similar.%d.%d%b" % (wanted, limit, gone.tag)
    ordinals = snapshot.similar.row(ordinal)
    if gone.ordinals:
        ordinals = [each for each in ordinals if each not in gone.ordinals]
    ordinals = ordinals[:limit]
    return public_ids(snapshot, ordinals, name=name, headers=headers)


@router.get(
    CATALOGUE_PATH,
    operation_id="listRestaurants",
    summary="The catalogue in pages: filtered, searched, sorted",
    response_class=Response,
    responses={200: CATALOGUE, **UNCHANGED, **problems(400, 422, 503)},
    openapi_extra=openapi_parameters(PARAMETERS),
)
async def list_restaurants(request: Request) -> Response:
    resources: Resources = request.app.state.resources
    key = cursor_key(resources.settings)
    query = read_catalogue_query(request.scope["query_string"], key=key)
    rows: list[dict[str, Any]] = []
    if not query.is_hopeless:
        engine = await resources.open_engine()
        rows = await in_transaction(engine, lambda connection: find_page(connection, query))
    document, link = catalogue_document(rows, query, key=key)
    return _revalidated(request, document, link)


@router.get(
    DETAIL_PATH,
    operation_id="getRestaurant",
    summary="Everything a visitor may see of one restaurant",
    response_class=Response,
    responses={200: RESTAURANT, **UNCHANGED, **problems(404, 422, 503)},
    openapi_extra=openapi_parameters(path_ids=["restaurant_id"]),
)
async def get_restaurant(request: Request, restaurant_id: str) -> Response:
    read_query(request.scope["query_string"], ())
    resources: Resources = request.app.state.resources
    row = await _detail(resources, read_path_id(restaurant_id, name="restaurant_id"))
    if row is None:
        raise NotFound("there is no such restaurant")
    return _revalidated(request, row)


@router.get(
    SIMILAR_PATH,
    operation_id="listSimilarRestaurants",
    summary="Restaurants like this one, the most similar first",
    response_class=Response,
    responses={200: ID_LIST, **UNCHANGED, **problems(404, 422, 503)},
    openapi_extra=openapi_parameters(SIMILAR_PARAMETERS, path_ids=["restaurant_id"]),
)
async def list_similar_restaurants(request: Request) -> Response:
    headers = header_map(request.scope["headers"])
    return as_response(similar(request.app.state.resources, request.scope, headers))


async def _detail(resources: Resources, restaurant_id: int) -> dict[str, Any] | None:
    engine = await resources.open_engine()
    from shared.db.restaurants import restaurant_detail

    statement = restaurant_detail(restaurant_id)

    async def read(connection: AsyncConnection) -> dict[str, Any] | None:
        row = (await connection.execute(statement)).mappings().one_or_none()
        return None if row is None else dict(row)

    return await in_transaction(engine, read)


def _revalidated(
    request: Request, document: dict[str, Any], headers: list[HeaderField] | None = None
) -> Response:
    """Asked for again each time: a restaurant that closes is gone at once."""
    resources: Resources = request.app.state.resources
    body = orjson.dumps(document)
    etag = b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()
    fields = [
        JSON_TYPE,
        (b"cache-control", b"public, no-cache"),
        (b"vary", resources.snapshots.public_vary),
        (b"etag", etag),
        *(headers or ()),
    ]
    if is_match(header_map(request.scope["headers"]).get(b"if-none-match"), etag):
        return as_response(Answer(304, fields))
    return as_response(Answer(200, [*fields, length_of(body)], body))
