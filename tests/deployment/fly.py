"""The keys of a fly.toml, as strict models: an unknown key, type or value is an error.

Only the keys that TasteMatch uses are known here. The rules beyond types are those which the
deploy tool itself applies: checks take one second to a minute, stopping and starting machines
automatically go together, a canary release has no volumes.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

ROOT = Path(__file__).resolve().parents[2]
FILES = ("fly.toml", "fly.worker.toml")

Port = Annotated[int, Field(ge=1, le=65535)]


def _seconds(value: object) -> object:
    """`15s`, `5m` or a number of seconds -> seconds."""
    match = re.fullmatch(r"(\d+)(s|m)", value) if isinstance(value, str) else None
    if match is None:
        return value
    return int(match[1]) * (60 if match[2] == "m" else 1)


def _megabytes(value: object) -> object:
    match = re.fullmatch(r"(\d+)(mb|gb)", value) if isinstance(value, str) else None
    if match is None:
        return value
    return int(match[1]) * (1024 if match[2] == "gb" else 1)


Seconds = Annotated[int, BeforeValidator(_seconds), Field(ge=0)]
CheckSeconds = Annotated[int, BeforeValidator(_seconds), Field(ge=1, le=60)]
Megabytes = Annotated[int, BeforeValidator(_megabytes), Field(ge=256)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class Build(_Table):
    dockerfile: str
    target: str = Field(alias="build-target")


class Deploy(_Table):
    strategy: Literal["rolling", "canary", "bluegreen", "immediate"]
    release_command: str | None = None
    release_command_timeout: Seconds = 300


class Machine(_Table):
    size: Literal["shared-cpu-1x", "shared-cpu-2x"]
    memory: Megabytes


class Concurrency(_Table):
    type: Literal["requests", "connections"]
    soft_limit: Annotated[int, Field(ge=1)]
    hard_limit: Annotated[int, Field(ge=1)]


class ServiceCheck(_Table):
    method: Literal["GET"]
    path: Annotated[str, Field(pattern="^/")]
    interval: CheckSeconds
    timeout: CheckSeconds
    grace_period: CheckSeconds


class Check(ServiceCheck):
    type: Literal["http"]
    port: Port


class HttpService(_Table):
    internal_port: Port
    force_https: bool
    auto_stop_machines: Literal["off", "stop", "suspend"]
    auto_start_machines: bool
    min_machines_running: Annotated[int, Field(ge=0)]
    concurrency: Concurrency
    checks: list[ServiceCheck]

    @model_validator(mode="after")
    def _stop_and_start_go_together(self) -> HttpService:
        if (self.auto_stop_machines != "off") != self.auto_start_machines:
            raise ValueError("machines that stop by themselves must start by themselves")
        return self


class Metrics(_Table):
    port: Port
    path: Annotated[str, Field(pattern="^/")]


class Restart(_Table):
    policy: Literal["always", "on-failure", "never"]


class Mount(_Table):
    source: str
    destination: str


class FlyFile(_Table):
    app: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{1,62}$")]
    primary_region: Annotated[str, Field(pattern="^[a-z]{3}$")]
    kill_signal: Literal["SIGINT", "SIGTERM"]
    kill_timeout: Annotated[int, BeforeValidator(_seconds), Field(ge=1, le=300)]
    swap_size_mb: Annotated[int, Field(ge=0)]
    build: Build
    deploy: Deploy
    env: dict[str, str]
    vm: Annotated[list[Machine], Field(min_length=1, max_length=1)]
    http_service: HttpService | None = None
    checks: dict[str, Check] = {}
    metrics: list[Metrics]
    mounts: list[Mount] = []
    restart: Annotated[list[Restart], Field(max_length=1)] = []

    @model_validator(mode="after")
    def _canary_has_no_volumes(self) -> FlyFile:
        if self.mounts and self.deploy.strategy == "canary":
            raise ValueError("a canary release cannot have volumes")
        return self


def read(name: str) -> FlyFile:
    """Raises pydantic.ValidationError for a key or value that the models do not know."""
    return FlyFile.model_validate(tomllib.loads((ROOT / name).read_text()))
