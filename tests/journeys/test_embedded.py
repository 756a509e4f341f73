"""From an empty folder to personal lists and on to the next version, with nothing configured."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journeys.shop import Api, command, recommended, running_api, write_orders
from tests.services.datasets import TwoTastes, two_tastes_dataset
from tests.services.processes import start_worker

SNAPSHOT_ROUTES = (
    "/api/recommendations",
    "/api/recommendations/detailed",
    "/api/restaurants/metadata",
    "/api/restaurants/101/similar",
    "/api/lists/popular",
)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"TASTEMATCH_DATA_DIR": str(tmp_path / "data")}


@pytest.fixture
def town(tmp_path: Path) -> TwoTastes:
    return two_tastes_dataset(tmp_path / "town", seed=11)


def names_of(api: Api, ids: list[int]) -> list[str]:
    """Joins ids with the metadata, as a frontend does; an id without a name fails."""
    restaurants = api.get("/api/restaurants/metadata").json()["restaurants"]
    names = {restaurant["id"]: restaurant["name"] for restaurant in restaurants}
    return [names[restaurant_id] for restaurant_id in ids]


def assert_no_snapshot_yet(api: Api, token: str) -> None:
    for path in SNAPSHOT_ROUTES:
        answer = api.get(path, token=token)
        assert answer.status_code == 503, path
        assert answer.json()["code"] == "snapshot-unavailable", path
        assert int(answer.headers["Retry-After"]) > 0, path
    assert api.get("/health").status_code == 200
    assert api.get("/ready").status_code == 503


def test_from_an_empty_folder_to_lists_that_follow_the_orders(
    env: dict[str, str], town: TwoTastes, tmp_path: Path
) -> None:
    user_id = town.ramen_users[0]
    command(env, "migrate")
    command(env, "import", town.folder)
    token = command(env, "token", "--user", str(user_id))
    service_token = command(env, "token", "--service")

    with running_api(env, service_token=service_token) as api:
        assert_no_snapshot_yet(api, token)
        job_id = api.trigger()  # waits in the table for a worker
        with start_worker(env=env):
            first = api.outcome_served(job_id)
            answer = api.get("/api/recommendations?limit=10", token=token)
            assert answer.status_code == 200
            assert answer.headers["X-Snapshot-Version"] == first
            assert answer.headers["X-Recommendation-Source"] == "personal"
            assert len(answer.json()) == 10
            assert all(name.startswith("Ramen house ") for name in names_of(api, answer.json()))
            etag = answer.headers["ETag"]
            unchanged = api.get("/api/recommendations?limit=10", token=token, if_none_match=etag)
            assert (unchanged.status_code, unchanged.content) == (304, b"")
            again = "/api/recommendations?list=order_again&limit=50"
            assert not set(town.taco_restaurants) & set(api.get(again, token=token).json())

            tacos = town.taco_restaurants[:3]
            orders = write_orders(tmp_path / "news", user_id, tacos * 2, first_id=100_001)
            command(env, "import", orders)
            command(env, "trigger", "--url", api.url, "--wait")
            second = api.as_service("/api/jobs?limit=1").json()["items"][0]["snapshot_version"]
            api.follows(second)
            assert second > first
            changed = api.get("/api/recommendations?limit=10", token=token, if_none_match=etag)
            assert changed.status_code == 200
            assert changed.headers["ETag"] != etag
            assert changed.headers["X-Snapshot-Version"] == second
            assert set(tacos) <= set(api.get(again, token=token).json())
        served = {name: api.user_list(user_id, name).json() for name in ("for_you", "order_again")}

    for list_name, ids in served.items():
        assert recommended(env, user_id, list_name) == ids, list_name
