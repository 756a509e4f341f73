"""The room that a run works in."""

from __future__ import annotations

import os
from pathlib import Path

from tests.conformance.small_disks import small_disk
from tests.services.datasets import two_tastes_dataset
from tests.worker.published import run_precompute
from tests.worker.test_precompute import load_dataset

MB = 1_000_000


def test_a_full_disk_is_a_reason_and_heals(tmp_path: Path, sqlite_url: str, redis_url: str) -> None:
    towns = two_tastes_dataset(tmp_path / "set", users_per_group=400, restaurants_per_group=100)
    with small_disk(tmp_path / "disk", 8) as disk:
        env = {
            "DATABASE_URL": sqlite_url,
            "REDIS_URL": redis_url,
            "TASTEMATCH_DATA_DIR": str(disk / "data"),
        }
        load_dataset(env, towns.folder)
        room = os.statvfs(disk)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(room.f_bavail * room.f_frsize - MB // 4))

        failed = run_precompute(env)

        assert failed.exit_status == 1
        assert failed.last["kind"] == "JobFailed", failed.log
        assert failed.last["error"].startswith("the disk of TASTEMATCH_DATA_DIR is full")
        assert list((disk / "data" / "scratch").iterdir()) == []
        ballast.unlink()
        assert run_precompute(env).last["event"] == "done"
