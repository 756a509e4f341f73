"""What clients were answered and what they changed, recorded with time, replica and entity tag.

`judgement.py` says afterwards what of it should not have been.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import httpx
import orjson

from shared.settings import Settings
from shared.tokens import issue_user_token
from tests.journeys.shop import LISTS, Api

LIMIT = 50

_FIELDS = ("X-Snapshot-Version", "ETag", "X-Recommendation-Source")

Kind = Literal["order", "hide", "unhide", "close", "open", "erase", "prefer", "activate"]


class Reading(NamedTuple):
    """An answer to a GET.

    `what`: the name of a user's list, `orders` of a user, `metadata`, `popular`, or `similar` to a
    restaurant; `subject` is that user or restaurant.
    """

    replica: int
    what: str
    subject: int
    began: float
    ended: float
    status: int
    version: str
    etag: str
    source: str
    content: bytes

    @property
    def ids(self) -> list[int]:
        """The restaurants, in their order."""
        document = orjson.loads(self.content)
        if self.what == "orders":
            return [order["restaurant"]["id"] for order in document["items"]]
        if self.what == "metadata":
            return [restaurant["id"] for restaurant in document["restaurants"]]
        ids: list[int] = document
        return ids

    @property
    def revision(self) -> int:
        """Of the user's lists: it stands behind the version."""
        found = re.search(rf"\.{re.escape(self.version)}\.(\d+)", self.etag)
        assert found is not None, self
        return int(found[1])

    def __str__(self) -> str:
        when = f"{self.began % 1000:.3f}-{self.ended % 1000:.3f}"
        told = f"{self.status} {self.etag} {self.source} {self.content[:400]!r}"
        return f"{self.what} of {self.subject} at replica {self.replica}, {when}: {told}"


class Change(NamedTuple):
    """A confirmed write, or an activation."""

    replica: int
    kind: Kind
    began: float
    ended: float
    user_id: int = 0
    restaurant_id: int = 0


@dataclass(slots=True)
class History:
    """Threads may append to both."""

    readings: list[Reading] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def of(self, *kinds: Kind, user_id: int | None = None) -> list[Change]:
        found = (change for change in self.changes if change.kind in kinds)
        return [each for each in found if user_id is None or each.user_id == user_id]


class Client:
    """Asks one replica, over a connection of its own, and records. For one thread."""

    def __init__(
        self, http: httpx.Client, api: Api, replica: int, settings: Settings, history: History
    ) -> None:
        self.replica = replica
        self._http = http
        self._as_service = {"Authorization": f"Bearer {api.service_token}"}
        self._settings = settings
        self._history = history

    def read(self, what: str, subject: int = 0) -> Reading:
        path, headers = self._path(what, subject)
        began = time.time()
        answer = self._http.get(path, headers=headers)
        ended = time.time()
        version, etag, source = (answer.headers.get(name, "") for name in _FIELDS)
        reading = Reading(
            self.replica,
            what,
            subject,
            began,
            ended,
            answer.status_code,
            version,
            etag,
            source,
            answer.content,
        )
        self._history.readings.append(reading)
        return reading

    def read_user(self, user_id: int) -> None:
        for what in (*LISTS, "orders"):
            self.read(what, user_id)

    def order(self, user_id: int, restaurant_id: int) -> int:
        """The status: 201, or 422 where it is closed."""
        with self._changing("order", user_id, restaurant_id) as confirm:
            answer = self._as_user(user_id, "POST", "/api/orders", {"restaurant_id": restaurant_id})
            confirm(answer.status_code == 201)
        return answer.status_code

    def hide(self, user_id: int, restaurant_id: int, *, undo: bool = False) -> int:
        with self._changing("unhide" if undo else "hide", user_id, restaurant_id) as confirm:
            path = f"/api/preferences/hidden/{restaurant_id}"
            answer = self._as_user(user_id, "DELETE" if undo else "PUT", path)
            confirm(answer.status_code == 204)
        return answer.status_code

    def prefer(self, user_id: int, document: object) -> int:
        with self._changing("prefer", user_id) as confirm:
            answer = self._as_user(user_id, "PUT", "/api/preferences", document)
            confirm(answer.status_code == 200)
        return answer.status_code

    def close(self, restaurant_id: int, *, undo: bool = False) -> None:
        with self._changing("open" if undo else "close", 0, restaurant_id) as confirm:
            path = f"/api/restaurants/{restaurant_id}"
            self._operate("PATCH", path, {"is_active": undo}, status=200)
            confirm(True)

    def erase(self, user_id: int) -> None:
        with self._changing("erase", user_id) as confirm:
            self._operate("DELETE", f"/api/users/{user_id}", status=204)
            confirm(True)

    def activate(self, version: str) -> None:
        with self._changing("activate") as confirm:
            self._operate("POST", f"/api/snapshots/{version}/activate", {"pin": False}, status=200)
            confirm(True)

    def _path(self, what: str, subject: int) -> tuple[str, dict[str, str]]:
        if what in LISTS:
            path = f"/api/users/{subject}/recommendations?list={what}&limit={LIMIT}"
            return path, self._as_service
        if what == "orders":
            return f"/api/orders?limit={LIMIT}", self._bearer(subject)
        if what == "metadata":
            return "/api/restaurants/metadata", {"Accept-Encoding": "identity"}
        if what == "popular":
            return f"/api/lists/popular?limit={LIMIT}", {}
        return f"/api/restaurants/{subject}/similar?limit={LIMIT}", {}

    def _bearer(self, user_id: int) -> dict[str, str]:
        token = issue_user_token(self._settings, user_id=user_id, ttl_seconds=600, now=time.time())
        return {"Authorization": f"Bearer {token}"}

    def _as_user(
        self, user_id: int, method: str, path: str, document: object = None
    ) -> httpx.Response:
        return self._http.request(method, path, json=document, headers=self._bearer(user_id))

    def _operate(self, method: str, path: str, document: object = None, *, status: int) -> None:
        answer = self._http.request(method, path, json=document, headers=self._as_service)
        assert answer.status_code == status, answer.text

    @contextmanager
    def _changing(
        self, kind: Kind, user_id: int = 0, restaurant_id: int = 0
    ) -> Iterator[Callable[[bool], None]]:
        began = time.time()

        def confirm(is_confirmed: bool) -> None:
            if is_confirmed:
                ended = time.time()
                change = Change(self.replica, kind, began, ended, user_id, restaurant_id)
                self._history.changes.append(change)

        yield confirm


@contextmanager
def clients(
    apis: tuple[Api, ...], settings: Settings, history: History
) -> Iterator[tuple[Client, ...]]:
    """One for each replica."""
    connections = [httpx.Client(base_url=api.url, timeout=15) for api in apis]
    try:
        yield tuple(
            Client(http, api, replica, settings, history)
            for replica, (http, api) in enumerate(zip(connections, apis, strict=True))
        )
    finally:
        for http in connections:
            http.close()
