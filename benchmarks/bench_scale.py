"""A precompute of two generated shops on PostgreSQL, the second ten times the first.

Run: `make bench-scale`, or `python -m benchmarks.bench_scale --keep FOLDER` to keep the generated
databases for the next run. The real `tastematch precompute` reads from a PostgreSQL and publishes
to a Redis that the benchmark starts. Memory is that of the command and of all that it starts, the
sum of their resident sets every 50 ms, servers left out. CPU seconds tell what other work on the
machine hides in the seconds of the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

from benchmarks.kept_postgres import kept_postgres
from benchmarks.process_tree import (
    Tree,
    cpu_seconds,
    ended_children_cpu_seconds,
    process_tree,
    resident_mb,
)
from benchmarks.shop_generator import Shop, Size
from benchmarks.shop_loading import load_postgres
from tests.services.postgres import PostgresServer
from tests.services.redis import RedisServer

HOME = Path(__file__).resolve().parent.parent
SIZES = (Size(100_000, 10_000, 2_000_000), Size(1_000_000, 50_000, 20_000_000))
MAX_SECONDS = 180.0
MAX_EXPONENT = 1.1
MAX_ONE_USER_MS = 1.0
SAMPLE_SECONDS = 0.05
LOOK_SECONDS = 0.25


@dataclass(slots=True)
class Figures:
    """One precompute; megabytes are MiB."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    server_cpu_seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0
    stage_peaks: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    stage_cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    process_peaks: dict[str, float] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    one_user: dict[str, float] = field(default_factory=dict)


def main() -> None:
    options = _options()
    sizes = options.sizes or SIZES
    with contextlib.ExitStack() as stack:
        keep = options.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="tastematch-bench-", dir="/tmp"))
        )
        server = stack.enter_context(kept_postgres(keep))
        redis_url = stack.enter_context(_redis(options.store))
        measured = []
        for size in sizes:
            url = _shop(server, size)
            figures = _precompute(server, url, redis_url, options)
            _print(size, figures, options)
            measured.append((size, figures))
    (small, before), (large, after) = measured[0], measured[-1]
    if small != large:
        print(f"\n| from {small.orders:,} to {large.orders:,} orders | exponent | bound |")
        print("| --- | --: | --: |")
        growth = math.log(large.orders / small.orders)
        for name, low, high in (
            ("seconds", before.seconds, after.seconds),
            ("CPU seconds", before.cpu_seconds, after.cpu_seconds),
        ):
            print(f"| {name} | {math.log(high / low) / growth:.2f} | {MAX_EXPONENT} |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="where the generated databases stay")
    parser.add_argument(
        "--size",
        dest="sizes",
        type=_size,
        action="append",
        help="USERSxRESTAURANTSxORDERS, such as 100000x10000x2000000; may be repeated",
    )
    parser.add_argument("--store", choices=("redis", "disk"), default="redis")
    parser.add_argument("--memory-mb", type=int, default=512)
    parser.add_argument("--snapshot-mb", type=int, default=192)
    return parser.parse_args()


def _size(text: str) -> Size:
    users, restaurants, orders = (int(part) for part in text.split("x"))
    return Size(users, restaurants, orders)


# --- servers and shops ------------------------------------------------------------------------


@contextlib.contextmanager
def _redis(store: str) -> Iterator[str | None]:
    if store == "disk":
        yield None
        return
    server = RedisServer()
    try:
        server.start()
        yield server.url()
    finally:
        server.stop()


def _shop(server: PostgresServer, size: Size) -> str:
    """The URL of the shop's database, which is generated unless it is there."""
    with contextlib.closing(psycopg2.connect(server.databases.admin_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (size.name,))
            if cursor.fetchone():
                # A release may have moved the schema on since it was kept.
                with tempfile.TemporaryDirectory(prefix="tastematch-bench-") as folder:
                    _run(_environment(server.url(size.name), None, Path(folder)), "migrate")
                return server.url(size.name)
            print(f"generating {size.orders:,} orders", file=sys.stderr, flush=True)
            url = server.databases.create_database(prefix="unfinished")
            with tempfile.TemporaryDirectory(prefix="tastematch-bench-") as folder:
                _run(_environment(url, None, Path(folder)), "migrate")
            load_postgres(Shop(size), url)
            cursor.execute(f"ALTER DATABASE {url.rpartition('/')[2]} RENAME TO {size.name}")
    return server.url(size.name)


# --- one run ----------------------------------------------------------------------------------


def _environment(
    url: str, redis_url: str | None, folder: Path, **settings: object
) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(HOME),
        "DATABASE_URL": url,
        "TASTEMATCH_DATA_DIR": str(folder / "data"),
        **({"REDIS_URL": redis_url} if redis_url else {}),
        **{name: str(value) for name, value in settings.items()},
    }


def _run(environment: dict[str, str], *words: str, module: str = "tastematch") -> str:
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        env=environment,
        cwd=HOME,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def _precompute(
    server: PostgresServer, url: str, redis_url: str | None, options: argparse.Namespace
) -> Figures:
    figures = Figures()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tastematch-bench-")))
        environment = _environment(
            url,
            redis_url,
            folder,
            TASTEMATCH_WORKER_MEMORY_MB=options.memory_mb,
            TASTEMATCH_SNAPSHOT_MB=options.snapshot_mb,
            TASTEMATCH_LOG_LEVEL="ERROR",
        )
        figures.plan = json.loads(_run(environment, "precompute", "--plan", "--json"))
        own, servers = ended_children_cpu_seconds(), cpu_seconds(process_tree(server.child.pid))
        started = time.perf_counter()
        with (folder / "manifest").open("w+") as manifest:
            process = subprocess.Popen(
                [sys.executable, "-m", "tastematch", "precompute", "--json"],
                env=environment,
                cwd=HOME,
                stdout=manifest,
            )
            _watch(process, url, figures)
            figures.seconds = time.perf_counter() - started
            figures.cpu_seconds = ended_children_cpu_seconds() - own
            figures.server_cpu_seconds = cpu_seconds(process_tree(server.child.pid)) - servers
            if process.returncode != 0:
                raise SystemExit(f"the precompute ended with status {process.returncode}")
            manifest.seek(0)
            figures.manifest = json.load(manifest)
        figures.one_user = json.loads(
            _run(
                environment,
                str(folder / "data" / "models"),
                figures.manifest["version"],
                url,
                module="benchmarks.one_user",
            )
        )
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT stages FROM jobs ORDER BY created_at DESC LIMIT 1")
        (stages,) = cursor.fetchone()
        figures.stages = {stage["name"]: stage["seconds"] for stage in stages}
    return figures


def _watch(process: subprocess.Popen[Any], url: str, figures: Figures) -> None:
    """Samples the tree until it ends. What a stage used is known to about a second."""
    stage, next_look, spent = "start", 0.0, 0.0
    tree: Tree = []
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        while process.poll() is None:
            if time.monotonic() >= next_look:
                cursor.execute("SELECT stage FROM jobs WHERE state = 'running'")
                row = cursor.fetchone()
                stage = (row and row[0]) or stage
                tree = process_tree(process.pid)
                now = cpu_seconds(tree)
                figures.stage_cpu[stage] += max(0.0, now - spent)
                spent = max(spent, now)
                next_look = time.monotonic() + LOOK_SECONDS
            total = 0.0
            for member in tree:
                resident, highest = resident_mb(member.pid)
                total += resident
                name = "command" if member.pid == process.pid else f"child {member.pid}"
                figures.process_peaks[name] = max(figures.process_peaks.get(name, 0.0), highest)
            figures.peak_mb = max(figures.peak_mb, total)
            figures.stage_peaks[stage] = max(figures.stage_peaks[stage], total)
            time.sleep(SAMPLE_SECONDS)


# --- the table --------------------------------------------------------------------------------


def _print(size: Size, figures: Figures, options: argparse.Namespace) -> None:
    counts = figures.manifest["counts"]
    extracted = size.orders / figures.stages["extract"]
    print(f"\n{size.users:,} users, {size.restaurants:,} restaurants, {size.orders:,} orders")
    print("| figure | measured | bound |\n| --- | --: | --: |")
    rows = [
        ("seconds, start of the command to its end", f"{figures.seconds:.1f}", f"{MAX_SECONDS:g}"),
        ("CPU seconds", f"{figures.cpu_seconds:.1f}", ""),
        ("CPU seconds of PostgreSQL", f"{figures.server_cpu_seconds:.1f}", ""),
        *(
            (
                f"stage {name}: seconds, CPU seconds, RSS",
                f"{seconds:.1f}, {figures.stage_cpu[name]:.1f}, {figures.stage_peaks[name]:.0f} MB",
                "",
            )
            for name, seconds in figures.stages.items()
        ),
        ("orders a second read", f"{extracted:,.0f}", ""),
        ("peak RSS of the tree", f"{figures.peak_mb:.0f} MB", f"{options.memory_mb} MB"),
        *(
            (f"highest RSS of {name}", f"{peak:.0f} MB", "")
            for name, peak in _largest(figures.process_peaks)
        ),
        ("peak that --plan predicts", f"{figures.plan['peak_mb']:.0f} MB", ""),
        *(
            (
                f"one user anew, {name}, median, 95 %",
                ", ".join(f"{figures.one_user[f'{name}_{at}']:.2f}" for at in ("median", "p95"))
                + " ms",
                limit,
            )
            for name, limit in (("new", ""), ("warm", f"{MAX_ONE_USER_MS:g} ms"))
        ),
        ("peak RSS of that process", f"{figures.one_user['peak_mb']:.0f} MB", ""),
        ("distinct pairs", f"{counts['interactions'] / counts['orders']:.3f} of the orders", ""),
        ("neighbours a restaurant (k)", f"{figures.plan['k']}", ""),
        ("snapshot", f"{sum(figures.manifest['bytes'].values()) / 1e6:.0f} MB", ""),
    ]
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def _largest(peaks: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(peaks.items(), key=lambda entry: -entry[1])[:4]


if __name__ == "__main__":
    main()
