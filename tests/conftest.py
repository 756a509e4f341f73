"""Fixtures that every test may ask for: real services, databases on them, a free port."""

from __future__ import annotations

import signal

# A module stands before those that import it, or pytest comes too late to rewrite its assertions.
pytest_plugins = [
    "tests.services.children",
    "tests.services.processes",
    "tests.services.postgres_binaries",
    "tests.services.postgres",
    "tests.services.redis",
    "tests.services.databases",
    "tests.services.in_process",
]


def pytest_configure() -> None:
    # A run that `timeout` or a CI system ends must end its services too: SIGTERM alone would
    # leave them behind, an interrupt tears the fixtures down.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
