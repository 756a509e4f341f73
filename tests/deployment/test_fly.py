"""fly.toml and fly.worker.toml: known keys only, and what a small machine depends on."""

import tomllib

import pytest
from pydantic import ValidationError

from tests.deployment import dockerfile, fly


@pytest.mark.parametrize("name", fly.FILES)
def test_has_known_keys_only(name: str) -> None:
    assert fly.read(name).app


def test_a_misspelt_key_is_found() -> None:
    document = tomllib.loads((fly.ROOT / "fly.toml").read_text())
    document["http_service"]["min_machine_running"] = 1
    with pytest.raises(ValidationError, match="min_machine_running"):
        fly.FlyFile.model_validate(document)


def test_swap_below_a_table_is_found() -> None:
    text = (fly.ROOT / "fly.toml").read_text()
    moved = text.replace("swap_size_mb = 512\n", "") + "\nswap_size_mb = 512\n"
    with pytest.raises(ValidationError, match="swap_size_mb"):
        fly.FlyFile.model_validate(tomllib.loads(moved))


@pytest.mark.parametrize(("name", "target"), [("fly.toml", "api"), ("fly.worker.toml", "worker")])
def test_builds_its_own_image(name: str, target: str) -> None:
    file = fly.read(name)
    assert (fly.ROOT / file.build.dockerfile).samefile(dockerfile.PATH)
    assert file.build.target == target


def test_apps_differ_and_share_a_region() -> None:
    api, worker = (fly.read(name) for name in fly.FILES)
    assert api.app != worker.app
    assert api.primary_region == worker.primary_region


@pytest.mark.parametrize("name", fly.FILES)
def test_processes_end_by_sigterm_and_have_swap(name: str) -> None:
    file = fly.read(name)
    assert file.kill_signal == "SIGTERM"
    assert file.swap_size_mb == 512


def test_api_fits_the_smallest_machine_and_one_is_always_up() -> None:
    file = fly.read("fly.toml")
    service = file.http_service
    assert service is not None
    assert file.vm[0].memory == 256
    assert (service.auto_stop_machines, service.min_machines_running) == ("stop", 1)
    assert service.force_https
    assert service.concurrency.type == "requests"
    assert service.concurrency.soft_limit < service.concurrency.hard_limit
    assert str(service.internal_port) == file.env["PORT"]


def test_a_dead_redis_does_not_take_the_api_out_of_rotation() -> None:
    service = fly.read("fly.toml").http_service
    assert service is not None
    assert [check.path for check in service.checks] == ["/health"]


def test_worker_always_restarts_and_is_reachable_by_nobody() -> None:
    file = fly.read("fly.worker.toml")
    assert [restart.policy for restart in file.restart] == ["always"]
    assert file.http_service is None
    assert file.vm[0].memory == 1024
    assert file.kill_timeout == 60


@pytest.mark.parametrize("name", fly.FILES)
def test_metrics_stand_on_a_port_of_their_own(name: str) -> None:
    file = fly.read(name)
    port = int(file.env["TASTEMATCH_METRICS_PORT"])
    assert [(metrics.port, metrics.path) for metrics in file.metrics] == [(port, "/metrics")]
    assert {check.port for check in file.checks.values()} <= {port}
    assert file.http_service is None or file.http_service.internal_port != port


def test_worker_is_watched() -> None:
    assert fly.read("fly.worker.toml").checks


def test_only_the_api_migrates() -> None:
    assert fly.read("fly.toml").deploy.release_command == "tastematch migrate"
    assert fly.read("fly.worker.toml").deploy.release_command is None


def test_worker_keeps_its_budget_within_the_machine() -> None:
    file = fly.read("fly.worker.toml")
    assert int(file.env["TASTEMATCH_WORKER_MEMORY_MB"]) * 1.15 <= file.vm[0].memory
