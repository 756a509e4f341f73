"""An API in the test's own process, and what its snapshot holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from api.app import create_app
from api.deps import Resources
from api.follower import SnapshotFollower
from api.overlay import Overlay
from api.overlay_follower import OverlayFollower
from shared.settings import Settings
from shared.snapshot.opening import open_overlay
from shared.snapshot.store import SnapshotCatalog
from shared.tokens import issue_user_token
from tests.services.snapshots import SnapshotSpec, UserSpec

ORIGIN = "https://shop.example"
BEYOND_JAVASCRIPT = 2**53 + 1

OSAKA = tuple(range(101, 161, 2))
OAXACA = tuple(range(102, 162, 2))

PERSONAL = 42  # heads long enough for every limit
SHORT = 43  # heads of a few restaurants
PREFERENCES = 44
CITY_ONLY = 45
CITYLESS = 46
UNKNOWN = 99

POPULAR = (*reversed(OAXACA), *OSAKA, BEYOND_JAVASCRIPT)
SPEC = SnapshotSpec(
    restaurants={
        **dict.fromkeys(OSAKA, "Osaka"),
        **dict.fromkeys(OAXACA, "Oaxaca"),
        BEYOND_JAVASCRIPT: None,
    },
    users={
        PERSONAL: UserSpec(
            "personal",
            "Osaka",
            for_you=(BEYOND_JAVASCRIPT, *OSAKA, *OAXACA[:25]),
            discover=(*OSAKA[3:], *OAXACA),
            order_again=OSAKA[:3],
        ),
        SHORT: UserSpec(
            "personal",
            "Osaka",
            for_you=(105, 102, 107),
            discover=(102, 107),
            order_again=(105, 101),
        ),
        PREFERENCES: UserSpec(
            "preferences", "Oaxaca", for_you=(102, 104), discover=(102, 104), order_again=()
        ),
        CITY_ONLY: UserSpec(city="Osaka"),
        CITYLESS: UserSpec(),
        BEYOND_JAVASCRIPT: UserSpec("personal", for_you=(BEYOND_JAVASCRIPT,), order_again=(101,)),
    },
    popular=POPULAR,
    similar={105: (102, 103), 101: (102, 109), BEYOND_JAVASCRIPT: ()},
)

# Every column of a restaurant in the database.
FULL: dict[str, Any] = {
    "id": 7,
    "name": "Zoë's Ramen",
    "cuisine_type": "Ramen|Soup",
    "description": "Broth of two days.",
    "rating": 4.5,
    "price_range": 2,
    "city": "Osaka",
    "latitude": 34.7,
    "longitude": 135.5,
    "image_url": "https://img.example/7.jpg",
    "is_active": True,
}


@dataclass(frozen=True, slots=True)
class Api:
    app: FastAPI
    client: httpx.AsyncClient
    settings: Settings

    @property
    def resources(self) -> Resources:
        resources: Resources = self.app.state.resources
        return resources

    def as_user(self, user_id: int, *, ttl_seconds: int = 3600) -> dict[str, str]:
        """An Authorization header of that user."""
        token = issue_user_token(
            self.settings, user_id=user_id, ttl_seconds=ttl_seconds, now=time.time()
        )
        return {"Authorization": f"Bearer {token}"}

    @property
    def as_service(self) -> dict[str, str]:
        assert self.settings.service_token is not None
        return {"Authorization": f"Bearer {self.settings.service_token.get_secret_value()}"}

    @property
    def as_viewer(self) -> dict[str, str]:
        assert self.settings.viewer_token is not None
        return {"Authorization": f"Bearer {self.settings.viewer_token.get_secret_value()}"}

    async def serves(self, version: str, *, timeout_seconds: float = 10.0) -> None:
        """Waits until this version is the active one."""
        deadline = time.monotonic() + timeout_seconds
        while (active := self.resources.snapshots.active) is None or active.version != version:
            assert time.monotonic() < deadline, (
                f"{version} was not taken up: {self.resources.snapshots.status()}"
            )
            await asyncio.sleep(0.01)


def follower_of(settings: Settings, store: SnapshotCatalog) -> SnapshotFollower:
    """One that no API runs: its steps are the test's."""
    overlay = Overlay(settings.overlay_dir)
    overlay.open()
    return SnapshotFollower(
        settings, store, OverlayFollower(settings, overlay, open_overlay(settings))
    )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Api]:
    """Runs an application, lifespan included, for as long as the block."""
    app = create_app(settings)
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield Api(app, client, settings)


def client_of(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    return httpx.AsyncClient(transport=transport, base_url="http://api.test")
