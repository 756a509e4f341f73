"""docker-compose.yml: valid, complete without a `.env` file, and with the limits of production."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.settings import load_settings
from tests.deployment import compose, dockerfile

LONG_RUNNING = ("postgres", "redis", "api", "worker")
ONE_SHOT = ("migrate", "seed")
OURS = ("migrate", "seed", "api", "worker")


def test_follows_the_compose_specification() -> None:
    program = shutil.which("check-jsonschema", path=str(Path(sys.executable).parent))
    assert program is not None, "check-jsonschema is one of the development requirements"
    result = subprocess.run(
        [program, "--builtin-schema", "vendor.compose-spec", str(compose.PATH)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_variable_has_a_default() -> None:
    found = list(compose.VARIABLE.finditer(compose.PATH.read_text()))
    assert found
    assert [match[0] for match in found if not match["default"]] == []


def test_every_variable_of_an_env_file_is_explained() -> None:
    text = compose.PATH.read_text()
    head = text.partition("\nname:")[0]
    assert [m["name"] for m in compose.VARIABLE.finditer(text) if m["name"] not in head] == []


def test_services_are_those_of_a_deployment() -> None:
    assert set(compose.services()) == {*LONG_RUNNING, *ONE_SHOT}


@pytest.mark.parametrize(
    ("name", "limit"), [("postgres", "1g"), ("api", "512m"), ("worker", "1g"), ("redis", "512m")]
)
def test_memory_is_limited_as_in_production(name: str, limit: str) -> None:
    assert compose.services()[name]["mem_limit"] == limit


@pytest.mark.parametrize("name", [*LONG_RUNNING, *ONE_SHOT])
def test_no_service_swaps_beyond_its_limit(name: str) -> None:
    service = compose.services()[name]
    assert service["memswap_limit"] == service["mem_limit"]


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_long_running_services_restart_and_tell_their_health(name: str) -> None:
    service = compose.services()[name]
    assert service["restart"] == "unless-stopped"
    if "build" in service:
        assert dockerfile.stages()[service["build"]["target"]].health_command()
        assert "healthcheck" not in service, "the image's own check would be hidden"
    else:
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")


@pytest.mark.parametrize("name", ONE_SHOT)
def test_one_shot_services_end(name: str) -> None:
    service = compose.services()[name]
    assert service["restart"] == "no"
    assert service["healthcheck"] == {"disable": True}


def test_services_start_in_order() -> None:
    conditions = {
        (name, needed): how["condition"]
        for name, service in compose.services().items()
        for needed, how in service.get("depends_on", {}).items()
    }
    assert conditions == {
        ("migrate", "postgres"): "service_healthy",
        ("seed", "migrate"): "service_completed_successfully",
        ("api", "migrate"): "service_completed_successfully",
        ("api", "redis"): "service_healthy",
        ("worker", "seed"): "service_completed_successfully",
        ("worker", "redis"): "service_healthy",
    }


def test_a_build_target_exists_for_each_service_of_ours() -> None:
    for name in OURS:
        assert compose.services()[name]["build"]["target"] in dockerfile.stages()


def test_api_is_published_at_port_8000_of_this_machine_alone() -> None:
    assert compose.services()["api"]["ports"] == ["127.0.0.1:8000:8000"]
    assert compose.services({"PORT": "8100"})["api"]["ports"] == ["127.0.0.1:8100:8000"]
    assert [name for name, service in compose.services().items() if "ports" in service] == ["api"]


def test_the_same_secrets_reach_api_and_worker() -> None:
    names = ("TASTEMATCH_JWT_SECRET", "TASTEMATCH_SERVICE_TOKEN", "TASTEMATCH_VIEWER_TOKEN")
    environments = [compose.environment(compose.services()[name]) for name in OURS]
    for name in names:
        assert len({environment[name] for environment in environments}) == 1


def test_production_refuses_the_secrets_that_everyone_knows() -> None:
    service = compose.services({"TASTEMATCH_ENV": "production"})["api"]
    with pytest.raises(SettingsError, match="TASTEMATCH_JWT_SECRET: needs at least 32 bytes"):
        load_settings(compose.environment(service))


def test_production_takes_secrets_of_your_own() -> None:
    environ = {
        "TASTEMATCH_ENV": "production",
        "TASTEMATCH_JWT_SECRET": "a" * 32,
        "TASTEMATCH_SERVICE_TOKEN": "b" * 32,
        "TASTEMATCH_VIEWER_TOKEN": "c" * 32,
    }
    settings = load_settings(compose.environment(compose.services(environ)["api"]))
    assert settings.is_production


def test_volumes_are_declared() -> None:
    declared = {"postgres", "redis", "api", "worker"}
    mounted = {
        volume.partition(":")[0]
        for service in compose.services().values()
        for volume in service.get("volumes", [])
    }
    assert mounted == declared


def test_redis_never_evicts_and_keeps_what_it_was_told() -> None:
    service = compose.services()["redis"]
    flags = compose.flags(service["command"])
    assert flags["maxmemory-policy"] == "noeviction"
    assert (flags["appendonly"], flags["appendfsync"]) == ("yes", "everysec")
    share = compose.byte_size(flags["maxmemory"]) / compose.byte_size(service["mem_limit"])
    assert 0.6 <= share <= 0.7, "the rest is for the fork that rewrites the append-only file"


def test_redis_has_room_for_the_snapshots_that_are_kept_and_one_more() -> None:
    services = compose.services()
    settings = load_settings(compose.environment(services["worker"]))
    maxmemory = compose.byte_size(compose.flags(services["redis"]["command"])["maxmemory"])
    needed = (settings.keep_snapshots + 1) * settings.snapshot_mb * 1024**2
    assert needed <= 0.8 * maxmemory


def test_the_worker_fits_its_container() -> None:
    worker = compose.services()["worker"]
    budget = load_settings(compose.environment(worker)).worker_memory_mb * 1024**2
    assert budget * 1.15 <= compose.byte_size(worker["mem_limit"])
