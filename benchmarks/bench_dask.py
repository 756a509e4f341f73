"""The block tasks of a precompute on a Dask cluster of one worker, then of two.

Run: `make bench-dask`, or `python -m benchmarks.bench_dask --keep FOLDER` with the databases that
`bench_scale --keep` left there. The same generated shop on PostgreSQL, the real command, workers of
one thread in processes of their own, and threads of the command's own process beside them. The
speed-up is that of the stages that run as blocks; all parts must be equal to the byte.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.bench_scale import _environment, _run, _shop, _size
from benchmarks.kept_postgres import kept_postgres
from benchmarks.shop_generator import Size
from tests.services.dask import dask_cluster

SIZE = Size(1_000_000, 50_000, 20_000_000)
BLOCK_STAGES = ("ranking", "lists")
MIN_SPEED_UP = 1.6


class Run(NamedTuple):
    """`seconds` of the command, and of each stage."""

    seconds: float
    stages: dict[str, float]
    peak_mb: float
    """Of the command's processes, without the cluster's."""
    checksums: dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="where the generated database is or stays")
    parser.add_argument("--size", type=_size, default=SIZE)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        keep = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        url = _shop(stack.enter_context(kept_postgres(keep)), options.size)
        runs = {"threads of the command": _precompute(url, workers=0)}
        for workers in (1, 2):
            runs[f"Dask, {workers} worker{'s' * (workers > 1)}"] = _precompute(url, workers=workers)
    print(
        f"\n{options.size.users:,} users, {options.size.restaurants:,} restaurants, "
        f"{options.size.orders:,} orders"
    )
    print("| where blocks run | seconds | ranking | lists | peak MB of the command |")
    print("| --- | --: | --: | --: | --: |")
    for name, run in runs.items():
        ranking, lists = run.stages["ranking"], run.stages["lists"]
        print(f"| {name} | {run.seconds:.1f} | {ranking:.1f} | {lists:.1f} | {run.peak_mb:.0f} |")
    alone, both = (
        sum(runs[name].stages[stage] for stage in BLOCK_STAGES)
        for name in ("Dask, 1 worker", "Dask, 2 workers")
    )
    print(
        f"\nspeed-up of ranking and lists from one worker to two: {alone / both:.2f} "
        f"(at least {MIN_SPEED_UP})"
    )
    parts = [run.checksums for run in runs.values()]
    if any(part != parts[0] for part in parts):
        sys.exit("the parts differ")
    print("all parts are equal to the byte")


def _precompute(url: str, *, workers: int) -> Run:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tastematch-bench-")))
        settings = {"TASTEMATCH_LOG_LEVEL": "ERROR"}
        if workers:
            cluster = stack.enter_context(dask_cluster(workers))
            settings["TASTEMATCH_DASK_SCHEDULER"] = cluster.address
        started = time.perf_counter()
        manifest = json.loads(
            _run(_environment(url, None, folder, **settings), "precompute", "--json")
        )
        seconds = time.perf_counter() - started
    stages = {stage["name"]: stage["seconds"] for stage in manifest["stages"]}
    return Run(seconds, stages, manifest["peak_rss_mb"], manifest["checksums"])


if __name__ == "__main__":
    main()
