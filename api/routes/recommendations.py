"""A user's lists: bare ids, and the same list joined and explained.

Answers come from plain functions. The guard calls them directly; the routes here give the same
answers through FastAPI and stand in the documentation.
"""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response

from api.answers import Answer, Headers, Scope, as_response, header_map, length_of
from api.auth import require_user, require_user_or_operator
from api.caching import is_match
from api.deps import Resources
from api.detailed import detailed_body
from api.documented import DETAILED_LIST, ID_LIST, SECURED, UNCHANGED, problems
from api.list_queries import PARAMETERS, open_page, read_list_query, seal_page
from api.parameters import openapi_parameters, read_path_id
from api.serving import START, serve
from api.shown import Shown
from shared.metrics import recommendations_not_modified, recommendations_served

MY_PATH = "/api/recommendations"
MY_DETAILED_PATH = f"{MY_PATH}/detailed"
USER_PATH = "/api/users/{user_id}/recommendations"
USER_DETAILED_PATH = f"{USER_PATH}/detailed"

router = APIRouter(tags=["recommendations"])

_RESPONSES: dict[int | str, dict[str, Any]] = {
    **UNCHANGED,
    **problems(400, 401, 403, 410, 422, 503),
}
_MINE = SECURED | openapi_parameters(PARAMETERS)
_OF_USER = SECURED | openapi_parameters(PARAMETERS, path_ids=["user_id"])


def my_recommendations(resources: Resources, scope: Scope, headers: Headers) -> Answer:
    """The calling user's ids. Raises Unauthenticated, Forbidden, InvalidInput, MalformedInput,
    VersionGone, SnapshotUnavailable, SnapshotOutdated."""
    user_id = require_user(resources.authenticator.principal(headers.get(b"authorization")))
    return _answer(resources, user_id, b"/api/recommendations", scope, headers)


def user_recommendations(resources: Resources, scope: Scope, headers: Headers) -> Answer:
    """The ids of the user in the path, for that user and operators. Raises as above."""
    user_id = _user_in_path(resources, scope, headers)
    return _answer(resources, user_id, b"/api/users/%d/recommendations" % user_id, scope, headers)


def my_detailed(resources: Resources, scope: Scope, headers: Headers) -> Answer:
    """The calling user's list in the detailed form. Raises as above."""
    user_id = require_user(resources.authenticator.principal(headers.get(b"authorization")))
    path = b"/api/recommendations/detailed"
    return _answer(resources, user_id, path, scope, headers, is_detailed=True)


def user_detailed(resources: Resources, scope: Scope, headers: Headers) -> Answer:
    """The detailed list of the user in the path. Raises as above."""
    user_id = _user_in_path(resources, scope, headers)
    path = b"/api/users/%d/recommendations/detailed" % user_id
    return _answer(resources, user_id, path, scope, headers, is_detailed=True)


@router.get(
    MY_PATH,
    operation_id="listMyRecommendations",
    summary="The caller's restaurants, best first",
    response_class=Response,
    responses={200: ID_LIST, **_RESPONSES},
    openapi_extra=_MINE,
)
async def list_my_recommendations(request: Request) -> Response:
    headers = header_map(request.scope["headers"])
    return as_response(my_recommendations(request.app.state.resources, request.scope, headers))


@router.get(
    USER_PATH,
    operation_id="listUserRecommendations",
    summary="A user's restaurants, best first: for that user and operators",
    response_class=Response,
    responses={200: ID_LIST, **_RESPONSES},
    openapi_extra=_OF_USER,
)
async def list_user_recommendations(request: Request) -> Response:
    headers = header_map(request.scope["headers"])
    return as_response(user_recommendations(request.app.state.resources, request.scope, headers))


@router.get(
    MY_DETAILED_PATH,
    operation_id="listMyDetailedRecommendations",
    summary="The caller's restaurants with their data and the reason for each",
    response_class=Response,
    responses={200: DETAILED_LIST, **_RESPONSES},
    openapi_extra=_MINE,
)
async def list_my_detailed_recommendations(request: Request) -> Response:
    headers = header_map(request.scope["headers"])
    return as_response(my_detailed(request.app.state.resources, request.scope, headers))


@router.get(
    USER_DETAILED_PATH,
    operation_id="listUserDetailedRecommendations",
    summary="A user's restaurants with their data and the reason for each",
    response_class=Response,
    responses={200: DETAILED_LIST, **_RESPONSES},
    openapi_extra=_OF_USER,
)
async def list_user_detailed_recommendations(request: Request) -> Response:
    headers = header_map(request.scope["headers"])
    return as_response(user_detailed(request.app.state.resources, request.scope, headers))


def _answer(
    resources: Resources,
    user_id: int,
    path: bytes,
    scope: Scope,
    headers: Headers,
    *,
    is_detailed: bool = False,
) -> Answer:
    query, cursor = read_list_query(scope["query_string"])
    snapshots, start, revision = resources.snapshots, START, None
    if cursor is None:
        snapshot = snapshots.require_active()
    else:
        version, start, revision = open_page(resources.page_cursors, path, user_id, query, cursor)
        snapshot = snapshots.require_version(version)
    changes = resources.overlay.of_user(snapshot, user_id, revision=revision)
    served = serve(
        snapshot,
        user_id,
        list_name=query.list_name,
        limit=query.limit,
        filters=query.filters,
        excluded=query.excluded,
        start=start,
        changes=changes,
    )
    shown = snapshot.shown
    # Names everything the answer depends on, and nothing that tells who may ask for it.
    etag = b'"%d.%b.%b.%b%b%b%b"' % (
        user_id,
        query.tag,
        snapshot.version_text,
        changes.mark,
        query.filter_tag,
        b"" if cursor is None else b".p%d-%d" % start,
        _form(shown) if is_detailed else b"",
    )
    fields = [
        *shown.personal_fields[served.source],
        (b"etag", etag),
        snapshot.age_field(time.time()),
    ]
    if is_match(headers.get(b"if-none-match"), etag):
        recommendations_not_modified()
        return Answer(304, fields)
    next_cursor = None
    if served.next is not None:
        next_cursor = seal_page(
            resources.page_cursors,
            path,
            user_id,
            query,
            version=snapshot.version_text,
            position=served.next,
            revision=changes.revision,
        )
        link = b'<%b?%b&limit=%d&cursor=%b>; rel="next"'
        fields.append((b"link", link % (path, query.text, query.limit, next_cursor)))
    if is_detailed:
        body = detailed_body(
            snapshot,
            served,
            list_name=query.list_name,
            next_cursor=next_cursor,
            metadata_version=shown.metadata_version_text,
        )
    else:
        body = b"[%b]" % b",".join(map(snapshot.id_texts.__getitem__, served.ordinals))
    recommendations_served(query.list_name, served.source)
    fields.append(length_of(body))
    return Answer(200, fields, body)


def _form(shown: Shown) -> bytes:
    """The detailed form names the version of the metadata."""
    return b".detailed" if shown.is_whole else b".detailed-" + shown.metadata_version_text


def _user_in_path(resources: Resources, scope: Scope, headers: Headers) -> int:
    principal = resources.authenticator.principal(headers.get(b"authorization"))
    user_id = read_path_id(scope["path"].split("/")[3], name="user_id")
    require_user_or_operator(principal, user_id)
    return user_id
