"""Reads docker-compose.yml the way Compose does: merge keys, variables with defaults, sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).resolve().parents[2] / "docker-compose.yml"

VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::-(?P<default>[^}]*))?\}")
_UNITS = {"b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def services(environ: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """The services by name, with variables taken from `environ` or else their defaults."""
    document = yaml.safe_load(PATH.read_text())
    found: dict[str, dict[str, Any]] = _resolved(document["services"], environ or {})
    return found


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def byte_size(text: str) -> int:
    """`340mb`, `1g` -> bytes."""
    match = re.fullmatch(r"(\d+)([bkmg])b?", str(text).lower())
    assert match is not None, f"not a size: {text!r}"
    return int(match[1]) * _UNITS[match[2]]


def flags(command: list[str]) -> dict[str, str]:
    """The settings on the command line of postgres (`-c a=b`) or redis-server (`--a b`)."""
    words = iter(command[1:])
    found = {}
    for word in words:
        name, value = next(words).split("=", 1) if word == "-c" else (word[2:], next(words))
        found[name] = value
    return found


def _resolved(value: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(item, environ) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, environ) for item in value]
    if isinstance(value, str):
        return VARIABLE.sub(lambda found: environ.get(found["name"]) or found["default"], value)
    return value
