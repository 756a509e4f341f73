"""Runs a precompute, in a process of its own or in the test's, and opens what it published."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shared.settings import load_settings
from shared.snapshot.format import (
    KIND_POPULAR,
    KIND_SIMILAR,
    Lists,
    Ragged,
    Restaurants,
    Users,
)
from shared.snapshot.manifest import Manifest
from shared.snapshot.opening import open_store
from shared.snapshot.store import State
from worker.precompute import precompute
from worker.progress import Progress, Tell

HOME = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Outcome:
    events: list[dict[str, Any]]
    exit_status: int
    log: str

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]


@dataclass(frozen=True, slots=True)
class Published:
    """Every list as ids; `lists[user] = (for_you, discover, order_again)` as stored."""

    manifest: Manifest
    restaurants: list[int]
    lists: dict[int, tuple[list[int], list[int], list[int]]]
    sources: dict[int, int]
    cities: dict[int, str | None]
    popular: dict[str | None, list[int]]
    similar: dict[int, list[int]]
    metadata: dict[str, Any]
    parts: dict[str, bytes]


def run_precompute(env: Mapping[str, str], *arguments: str) -> Outcome:
    """Runs the child to its end; `env` holds the settings."""
    with start_precompute(env, *arguments) as child:
        assert child.stdout is not None
        events = [json.loads(line) for line in child.stdout]
        assert child.stderr is not None
        log = child.stderr.read().decode()
        return Outcome(events, child.wait(60), log)


def start_precompute(env: Mapping[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    """Starts the child with an open stdin, which keeps it alive."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "worker.precompute", *arguments],
        cwd=HOME,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HOME), "OPENBLAS_NUM_THREADS": "1", **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def precompute_here(
    env: Mapping[str, str], *, tell: Tell = lambda event: None
) -> tuple[Manifest, State]:
    """Computes in the test's own process, for the many cases that look at the lists alone."""
    return precompute(
        load_settings(env),
        now=datetime.now(UTC),
        activate=True,
        check=lambda: None,
        progress=Progress(tell),
    )


def open_published(env: Mapping[str, str], folder: Path) -> Published:
    """Reads the active snapshot back through the store, part by part."""
    store = open_store(load_settings(env))
    try:
        version = store.pointer().version
        assert version is not None
        manifest = store.manifest(version)
        folder.mkdir(parents=True, exist_ok=True)
        for name in manifest.bytes:
            (folder / name).write_bytes(b"".join(store.chunks(manifest, name)))
    finally:
        store.close()
    parts = {name: (folder / name).read_bytes() for name in manifest.bytes}
    restaurants = Restaurants(memoryview(parts["restaurants"]))
    users = Users(memoryview(parts["users"]))
    lists = Lists(folder / "lists")
    ids = list(restaurants.ids)
    found: dict[int, tuple[list[int], list[int], list[int]]] = {}
    sources: dict[int, int] = {}
    cities: dict[int, str | None] = {}
    names = json.loads(parts["cities"])
    for user_id in users.ids:
        entry = users.find(user_id)
        assert entry is not None
        for_you, discover, order_again = lists.read(entry)
        found[user_id] = (
            [ids[o] for o in for_you],
            [ids[o] for o in discover],
            [ids[o] for o in order_again],
        )
        sources[user_id] = entry.source
        cities[user_id] = names[entry.city]
    popular = Ragged(memoryview(parts["popular"]), kind=KIND_POPULAR)
    similar = Ragged(memoryview(parts["similar"]), kind=KIND_SIMILAR)
    return Published(
        manifest=manifest,
        restaurants=ids,
        lists=found,
        sources=sources,
        cities=cities,
        popular={city: [ids[o] for o in popular.row(code)] for code, city in enumerate(names)},
        similar={i: [ids[o] for o in similar.row(row)] for row, i in enumerate(ids)},
        metadata=json.loads(parts["metadata"]),
        parts=parts,
    )
