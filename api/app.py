"""`create_app`: the API put together; its lifespan; what is answered on which path.

Nothing else lives here. The guard stands outermost, in the place of FastAPI's middleware stack.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from api import problems
from api.allowed_methods import AllowedMethods
from api.answers import Answer, as_response
from api.deps import Resources
from api.guard import REQUEST_ID, Guard, HotRoute
from api.lifecycle import Lifecycle
from api.openapi_document import complete_document
from api.problems import error_answer, problem_answer, problem_for_status
from api.readiness import Readiness
from api.routes import ROUTERS, health, lists, metadata, recommendations, restaurants
from api.routes import metrics as metrics_route
from shared import metrics
from shared.errors import FieldError, InvalidInput, MalformedInput, TasteMatchError
from shared.logs import configure_logs
from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store

TITLE = "TasteMatch"
RELEASE = version("tastematch")

# Never shed: they bound themselves.
_UNCOUNTED = frozenset({health.READY_PATH, metrics_route.PATH})


def create_app(settings: Settings, *, lifecycle: Lifecycle | None = None) -> FastAPI:
    """The ASGI application. Opens nothing before its lifespan begins.

    Its `middleware_stack` is the guard: a server that calls that directly saves each request the
    way through FastAPI's own frame.
    `lifecycle` is shared with whoever runs the server. Raises SettingsError where a key of the
    settings cannot be used.
    """
    state = Lifecycle() if lifecycle is None else lifecycle
    metrics.start_metrics("api", version=RELEASE)
    metrics.watch_in_flight(lambda: state.in_flight)
    resources = Resources(settings, store=open_store(settings), lifecycle=state)
    app = FastAPI(
        title=TITLE,
        version=RELEASE,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.resources = resources
    app.state.readiness = Readiness(resources)
    for router in ROUTERS:
        app.include_router(router)
    if settings.metrics_port is None and not settings.is_production:
        app.include_router(metrics_route.router)
    allowed = AllowedMethods(app)
    _add_error_handlers(app, allowed)
    _complete_openapi(app)
    stack = app.build_middleware_stack()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = app
        if scope["type"] == "http" and allowed.is_refused(scope["method"], scope["path"]):
            await as_response(_no_such_method(scope, allowed))(scope, receive, send)
        else:
            await stack(scope, receive, send)

    app.middleware_stack = Guard(
        answer,
        settings,
        lifecycle=state,
        find_hot=_finder_of_hot_routes(resources),
        is_light=_UNCOUNTED.__contains__,
        observe=metrics.request_ended,
    )
    return app


def app_from_environment() -> FastAPI:
    """For an ASGI server's `--factory`; `tastematch serve` adds limits that only it has."""
    settings = load_settings()
    configure_logs(service="api", level=settings.log_level)
    return create_app(settings)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    resources: Resources = app.state.resources
    await asyncio.to_thread(resources.open_local)
    resources.snapshots.start()
    resources.overlay_follower.start()
    try:
        yield
    finally:
        resources.lifecycle.is_draining = True
        await asyncio.to_thread(resources.snapshots.stop)
        await asyncio.to_thread(resources.overlay_follower.stop)
        resources.overlay.close()
        await resources.close()


def _finder_of_hot_routes(resources: Resources) -> Callable[[str], HotRoute | None]:
    """Knows the routes that are answered from memory alone by their paths."""
    handlers: dict[str, Callable[..., Answer]] = {
        health.HEALTH_PATH: health.health,
        recommendations.MY_PATH: recommendations.my_recommendations,
        recommendations.MY_DETAILED_PATH: recommendations.my_detailed,
        recommendations.USER_PATH: recommendations.user_recommendations,
        recommendations.USER_DETAILED_PATH: recommendations.user_detailed,
        metadata.PATH: metadata.metadata,
        restaurants.SIMILAR_PATH: restaurants.similar,
        lists.PATH: lists.public,
    }
    hot = {t: HotRoute(t, partial(handler, resources)) for t, handler in handlers.items()}
    # An id stands in the same place in all of them.
    with_id = {re.sub(r"\{\w+\}", "", t): route for t, route in hot.items() if "{" in t}

    def find(path: str) -> HotRoute | None:
        route = hot.get(path)
        if route is not None:
            return route
        parts = path.split("/", 6)
        if len(parts) <= 3 or not parts[3]:
            return None
        parts[3] = ""
        return with_id.get("/".join(parts))

    return find


def _add_error_handlers(app: FastAPI, allowed: AllowedMethods) -> None:
    async def on_error(request: Request, error: Exception) -> Response:
        return as_response(error_answer(error, request_id=request.scope[REQUEST_ID]))

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        problem = problem_for_status(error.status_code)
        if problem is problems.METHOD_NOT_ALLOWED:
            return as_response(_no_such_method(request.scope, allowed))
        request_id = request.scope[REQUEST_ID]
        return as_response(problem_answer(problem, problem.title.lower(), request_id=request_id))

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return await on_error(request, _input_error(error))

    # FastAPI's own handler for this class stands nearer than one for Exception.
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(TasteMatchError, on_error)
    app.add_exception_handler(Exception, on_error)


def _no_such_method(scope: Scope, allowed: AllowedMethods) -> Answer:
    problem = problems.METHOD_NOT_ALLOWED
    methods = ", ".join(sorted(allowed.of(scope["path"])))
    return problem_answer(
        problem,
        problem.title.lower(),
        request_id=scope[REQUEST_ID],
        headers=[(b"allow", methods.encode())],
    )


def _input_error(error: RequestValidationError) -> InvalidInput | MalformedInput:
    fields = []
    for item in error.errors():
        location, *path = item["loc"]
        if item["type"] == "json_invalid":
            return MalformedInput("the body is not valid JSON")
        fields.append(FieldError(str(location), ".".join(map(str, path)), item["msg"]))
    first = fields[0]
    return InvalidInput(f"{first.location} {first.name}: {first.detail}", tuple(fields))


def _complete_openapi(app: FastAPI) -> None:
    """The document is made at its first use and kept."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            complete_document(generate())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
