"""One process that fetches and maps the active snapshot of a data folder, and says what it took."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from api.local_copies import fetch
from api.local_snapshot import LocalSnapshot
from benchmarks.measured_process import peak_rss_mb
from shared.settings import load_settings
from shared.snapshot.opening import open_store


def main() -> None:
    environment = {"TASTEMATCH_DATA_DIR": sys.argv[1]}
    if len(sys.argv) > 2:
        environment["REDIS_URL"] = sys.argv[2]
    settings = load_settings(environment)
    store = open_store(settings)
    version = store.pointer().version
    assert version is not None, "there is a snapshot"
    manifest = store.manifest(version)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = peak_rss_mb(os.getpid())
    started = time.monotonic()
    folder = fetch(store, manifest, settings.snapshots_dir)
    fetched, peak = time.monotonic() - started, peak_rss_mb(os.getpid()) - before
    LocalSnapshot(folder, manifest, public_vary=b"Accept-Encoding")
    mapped = time.monotonic() - started - fetched
    size = sum(manifest.bytes.values()) / 1e6
    print(f"{size:.0f} MB in {fetched:.2f} s, peak {peak:+.1f} MB; mapped in {mapped:.2f} s")
    store.close()


if __name__ == "__main__":
    main()
