"""Deployment files against the product: commands, settings and connections that really exist."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest

from shared.settings import Settings, load_settings
from tastematch.cli import group
from tests.deployment import compose, dockerfile, fly

# Read by the C library, the interpreter and OpenBLAS, not by us.
FOREIGN_VARIABLES = {"MALLOC_ARENA_MAX", "OPENBLAS_NUM_THREADS", "PYTHONPATH", "PYTHONUNBUFFERED"}
SECRETS = {
    "DATABASE_URL": "postgres://tastematch:secret@database.internal:5432/tastematch",
    "REDIS_URL": "redis://:secret@redis.internal:6379/0",
    "TASTEMATCH_JWT_SECRET": "j" * 32,
    "TASTEMATCH_SERVICE_TOKEN": "s" * 32,
    "TASTEMATCH_VIEWER_TOKEN": "v" * 32,
}

API_REPLICAS = 2
WORKER_POOLS = 4  # of the worker, its refresher, its child, and that child's look at its job
COMMAND_CONNECTIONS = 1  # migrate, import or an operator's command
RESERVED_CONNECTIONS = 3  # PostgreSQL's superuser_reserved_connections


def _commands() -> list[tuple[str, str]]:
    found = []
    for stage in dockerfile.stages().values():
        if stage.values("CMD"):
            found.append((f"Dockerfile, {stage.name}", shlex.join(stage.command())))
    for name, service in compose.services().items():
        words = service.get("command", [])
        if words[:2] == ["sh", "-c"]:
            found += [(f"compose, {name}", line.strip()) for line in words[2].split("&&")]
        elif "build" in service and words:
            found.append((f"compose, {name}", shlex.join(words)))
    for file_name in fly.FILES:
        command = fly.read(file_name).deploy.release_command
        if command is not None:
            found.append((file_name, command))
    return found


def _environments() -> dict[str, dict[str, str]]:
    """What each deployed process sees: the image's variables, then those of the deployment."""
    stages = dockerfile.stages()
    found = {}
    for name, service in compose.services().items():
        if "build" in service:
            image = stages[service["build"]["target"]].environment()
            found[f"compose-{name}"] = image | compose.environment(service)
    for file_name in fly.FILES:
        file = fly.read(file_name)
        image = stages[file.build.target].environment()
        found[file_name] = image | file.env | SECRETS
    return found


ENVIRONMENTS = _environments()


def test_commands_are_found() -> None:
    lines = {line for _, line in _commands()}
    assert {"tastematch serve", "tastematch worker", "tastematch migrate"} <= lines


@pytest.mark.parametrize(("place", "line"), _commands())
def test_every_command_exists_and_takes_its_arguments(
    place: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(compose.PATH).parent)  # as the image's working folder
    program, name, *arguments = shlex.split(line)
    assert program == "tastematch", place
    command = group.get_command(click.Context(group), name)
    assert command is not None, f"{place} runs {line!r}"
    command.make_context(name, arguments)  # raises click.UsageError


@pytest.mark.parametrize("place", ENVIRONMENTS)
def test_every_variable_is_a_setting(place: str) -> None:
    known = {str(field.alias) for field in Settings.model_fields.values()}
    assert set(ENVIRONMENTS[place]) - known <= FOREIGN_VARIABLES


@pytest.mark.parametrize("place", ENVIRONMENTS)
def test_every_environment_is_accepted(place: str) -> None:
    settings = load_settings(ENVIRONMENTS[place])
    assert not settings.is_sqlite
    assert settings.redis_url
    assert settings.is_production == place.startswith("fly")


@pytest.mark.parametrize("place", ENVIRONMENTS)
def test_processes_listen_beyond_their_own_machine(place: str) -> None:
    assert load_settings(ENVIRONMENTS[place]).host in ("::", "0.0.0.0")


def test_health_check_asks_the_port_that_is_served() -> None:
    assert load_settings(ENVIRONMENTS["compose-api"]).port == 8000
    assert dockerfile.stages()["api"].values("EXPOSE") == ["8000"]
    assert load_settings(ENVIRONMENTS["compose-worker"]).metrics_port == 9090
    assert dockerfile.stages()["worker"].values("EXPOSE") == ["9090"]


@pytest.mark.parametrize(
    ("api", "worker"), [("compose-api", "compose-worker"), ("fly.toml", "fly.worker.toml")]
)
def test_connections_add_up_to_what_postgresql_allows(api: str, worker: str) -> None:
    flags = compose.flags(compose.services()["postgres"]["command"])
    limit = int(flags["max_connections"])

    def needed(replicas: int) -> int:
        return (
            replicas * _most_connections(api)
            + WORKER_POOLS * _most_connections(worker)
            + COMMAND_CONNECTIONS
            + RESERVED_CONNECTIONS
        )

    assert needed(API_REPLICAS) <= limit
    assert needed(API_REPLICAS + 1) > limit, "more replicas fit than the comments say"


def _most_connections(place: str) -> int:
    settings = load_settings(ENVIRONMENTS[place])
    return settings.db_pool_size + settings.db_max_overflow
