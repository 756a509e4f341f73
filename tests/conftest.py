"""Fixtures that every test may ask for: real services, databases on them, a free port."""

from __future__ import annotations

import gc
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
    # Thousands of tests come and none goes: to look for garbage among them again and again would
    # take as long as to collect them.
    gc.disable()
    # A run that `timeout` or a CI system ends must end its services too: SIGTERM alone would
    # leave them behind, an interrupt tears the fixtures down.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
