"""Which methods a path has: for 405 and its Allow."""

from __future__ import annotations

import re

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path


class AllowedMethods:
    """Collected from the routes of the application at the first question.

    A path that is a route as it stands is that one alone, not also one with a parameter:
    `/api/jobs/precompute` is no job.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._fixed: dict[str, set[str]] | None = None
        self._others: list[tuple[re.Pattern[str], set[str]]] = []

    def of(self, path: str) -> set[str]:
        """Empty for a path that is none."""
        fixed = self._collected()
        if path in fixed:
            return fixed[path]
        return set().union(*(methods for form, methods in self._others if form.match(path)))

    def is_refused(self, method: str, path: str) -> bool:
        """Whether the path is a route as it stands, and has no such method."""
        methods = self._collected().get(path)
        return methods is not None and method not in methods

    def _collected(self) -> dict[str, set[str]]:
        if self._fixed is None:
            self._fixed = {}
            for context in iter_route_contexts(self._app.routes):
                if context.path is None or context.methods is None:
                    continue
                methods = set(context.methods) | ({"HEAD"} if "GET" in context.methods else set())
                if "{" in context.path:
                    self._others.append((compile_path(context.path)[0], methods))
                else:
                    self._fixed.setdefault(context.path, set()).update(methods)
        return self._fixed
