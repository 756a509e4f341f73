"""What clients were answered and what they changed, recorded with time, replica and entity tag.

`judgement.py` says afterwards what of it should not have been.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import orjson

from shared.settings import Settings
from shared.tokens import issue_user_token
from tests.journeys.shop import LISTS, Api

LIMIT = 50
IDLE_SECONDS = 2.0  # after which a connection may be about to be closed
NO_REPLICA = -1  # took a write that came by a command

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
    """Asks one replica, over a connection of its own, and records. For one thread.

    By the standard library: a client that takes more of the processor than whom it asks slows it.
    """

    def __init__(self, api: Api, replica: int, settings: Settings, history: History) -> None:
        self.replica = replica
        self.connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=15)
        self._used_at = 0.0
        self._as_service = {"Authorization": f"Bearer {api.service_token}"}
        self._tokens: dict[int, str] = {}
        self._settings = settings
        self._history = history

    def read(self, what: str, subject: int = 0) -> Reading:
        path, headers = self._path(what, subject)
        began = time.time()
        answer, content = self._ask("GET", path, headers)
        ended = time.time()
        version, etag, source = (answer.getheader(name, "") for name in _FIELDS)
        told = (answer.status, version, etag, source, content)
        reading = Reading(self.replica, what, subject, began, ended, *told)
        self._history.readings.append(reading)
        return reading

    def read_user(self, user_id: int) -> None:
        for what in (*LISTS, "orders"):
            self.read(what, user_id)

    # Writes return the status, and are recorded where they were confirmed.

    def order(self, user_id: int, restaurant_id: int) -> int:
        document = {"restaurant_id": restaurant_id}
        return self._write("order", "POST", "/api/orders", document, user_id, restaurant_id)

    def hide(self, user_id: int, restaurant_id: int) -> int:
        path = f"/api/preferences/hidden/{restaurant_id}"
        return self._write("hide", "PUT", path, None, user_id, restaurant_id)

    def unhide(self, user_id: int, restaurant_id: int) -> int:
        path = f"/api/preferences/hidden/{restaurant_id}"
        return self._write("unhide", "DELETE", path, None, user_id, restaurant_id)

    def prefer(self, user_id: int, document: object) -> int:
        return self._write("prefer", "PUT", "/api/preferences", document, user_id)

    def close(self, restaurant_id: int) -> int:
        path = f"/api/restaurants/{restaurant_id}"
        return self._operate("close", "PATCH", path, {"is_active": False}, 0, restaurant_id)

    def open(self, restaurant_id: int) -> int:
        path = f"/api/restaurants/{restaurant_id}"
        return self._operate("open", "PATCH", path, {"is_active": True}, 0, restaurant_id)

    def erase(self, user_id: int) -> int:
        return self._operate("erase", "DELETE", f"/api/users/{user_id}", None, user_id)

    def activate(self, version: str) -> int:
        path = f"/api/snapshots/{version}/activate"
        return self._operate("activate", "POST", path, {"pin": False})

    def _path(self, what: str, subject: int) -> tuple[str, dict[str, str]]:
        if what in LISTS:
            path = f"/api/users/{subject}/recommendations?list={what}&limit={LIMIT}"
            return path, self._as_service
        if what == "orders":
            return f"/api/orders?limit={LIMIT}", self._as_user(subject)
        paths = {
            "metadata": "/api/restaurants/metadata",
            "popular": f"/api/lists/popular?limit={LIMIT}",
            "similar": f"/api/restaurants/{subject}/similar?limit={LIMIT}",
        }
        return paths[what], {}

    def _as_user(self, user_id: int) -> dict[str, str]:
        if user_id not in self._tokens:
            self._tokens[user_id] = issue_user_token(
                self._settings, user_id=user_id, ttl_seconds=600, now=time.time()
            )
        return {"Authorization": f"Bearer {self._tokens[user_id]}"}

    def _write(
        self,
        kind: Kind,
        method: str,
        path: str,
        document: object,
        user_id: int,
        restaurant_id: int = 0,
    ) -> int:
        headers = self._as_user(user_id)
        return self._changed(kind, method, path, headers, document, user_id, restaurant_id)

    def _operate(
        self,
        kind: Kind,
        method: str,
        path: str,
        document: object,
        user_id: int = 0,
        restaurant_id: int = 0,
    ) -> int:
        headers = self._as_service
        return self._changed(kind, method, path, headers, document, user_id, restaurant_id)

    def _changed(
        self,
        kind: Kind,
        method: str,
        path: str,
        headers: dict[str, str],
        document: object,
        user_id: int,
        restaurant_id: int,
    ) -> int:
        body = None if document is None else orjson.dumps(document)
        began = time.time()
        answer, _ = self._ask(method, path, headers, body)
        if answer.status in (200, 201, 204):
            change = Change(self.replica, kind, began, time.time(), user_id, restaurant_id)
            self._history.changes.append(change)
        return answer.status

    def _ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        if time.monotonic() - self._used_at > IDLE_SECONDS:
            self.connection.close()  # it is opened anew
        if body is not None:
            headers = headers | {"Content-Type": "application/json"}
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        self._used_at = time.monotonic()
        return answer, content


@contextmanager
def clients(
    apis: Sequence[Api], settings: Settings, history: History
) -> Iterator[tuple[Client, ...]]:
    """One for each replica."""
    asking = tuple(Client(api, place, settings, history) for place, api in enumerate(apis))
    try:
        yield asking
    finally:
        for client in asking:
            client.connection.close()
