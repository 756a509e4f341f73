"""Metrics of a running API: where they are shown, and what is never in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from shared.settings import load_settings
from tests.api.running import PERSONAL, Api, running
from tests.services.children import unused_port
from tests.services.processes import run_tastematch, start_serve

SECRET = "0123456789abcdef0123456789abcdef"
PRODUCTION = {
    "TASTEMATCH_ENV": "production",
    "TASTEMATCH_JWT_SECRET": SECRET,
    "TASTEMATCH_SERVICE_TOKEN": SECRET[::-1],
}


async def test_development_shows_them_on_the_main_port(api: Api) -> None:
    await api.client.get("/api/recommendations", headers=api.as_user(PERSONAL))

    answer = await api.client.get("/metrics")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'route="/api/recommendations"' in answer.text
    assert (
        'tastematch_recommendations_served_total{list="for_you",source="personal"}' in answer.text
    )


@pytest.mark.parametrize("variables", [{"TASTEMATCH_METRICS_PORT": "19999"}, PRODUCTION])
async def test_a_public_port_shows_none(
    tmp_path: Path, postgres_url: str, variables: dict[str, str]
) -> None:
    settings = load_settings(
        {"TASTEMATCH_DATA_DIR": str(tmp_path), "DATABASE_URL": postgres_url, **variables}
    )
    async with running(settings) as api:
        for path in ("/metrics", "/metrics/", "/Metrics", "//metrics"):
            answer = await api.client.get(f"http://api.test{path}", headers=api.as_service)
            assert answer.status_code == 404
            assert answer.headers["content-type"] == "application/problem+json"
        for path in ("/api/jobs", "/api/snapshots"):
            assert (await api.client.get(path)).status_code == 401


async def test_labels_hold_no_id_no_raw_path_and_no_secret(api: Api) -> None:
    for path in (
        f"/api/users/{PERSONAL}/recommendations",
        "/api/users/77777777/recommendations",
        "/api/restaurants/88888888",
        "/api/jobs/not-a-job",
        "/made-up/path-5555",
        "/made-up/path-5555?token=abc",
        "/api/lists/popular?city=Atlantis",
    ):
        await api.client.get(path, headers=api.as_service)
        await api.client.request("BREW", path)

    text = (await api.client.get("/metrics")).text

    # Without the numbers, which may hold any digits.
    names = "\n".join(line.rpartition(" ")[0] for line in text.splitlines() if line[0] != "#")
    assert 'route="/api/users/{user_id}/recommendations"' in names
    for trace in ("77777777", "88888888", "not-a-job", "5555", "Atlantis", "BREW", "abc"):
        assert trace not in names
    for secret in (api.settings.jwt_secret, api.settings.service_token, api.settings.viewer_token):
        assert secret is not None
        assert secret.get_secret_value() not in text


def test_a_listener_of_its_own_serves_them(tmp_path: Path) -> None:
    port = unused_port()
    env = {"TASTEMATCH_DATA_DIR": str(tmp_path), "TASTEMATCH_METRICS_PORT": str(port)}
    assert run_tastematch("migrate", env=env).returncode == 0
    token = run_tastematch("token", "--user", "1", env=env).stdout.strip()
    with start_serve(env=env) as api:
        answer = httpx.get(
            f"{api.url}/api/recommendations", headers={"Authorization": f"Bearer {token}"}
        )
        assert answer.json()["code"] == "snapshot-unavailable"
        assert httpx.get(f"{api.url}/metrics").status_code == 404

        shown = httpx.get(f"http://127.0.0.1:{port}/metrics").text

        labels = 'code="503",method="GET",route="/api/recommendations"'
        assert f"tastematch_http_requests_total{{{labels}}} 1.0" in shown
        assert "process_resident_memory_bytes" in shown


def test_an_api_with_a_secret_loads_no_cryptography(tmp_path: Path) -> None:
    """9 MB. With Redis it is there all the same: redis-py imports PyJWT."""
    program = (
        "import sys\n"
        "from api.app import app_from_environment\n"
        "app_from_environment()\n"
        "print(sorted({'jwt', 'cryptography'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={"TASTEMATCH_DATA_DIR": str(tmp_path), "PATH": os.environ["PATH"]},
    )
    assert done.stdout.strip() == "[]"
