"""The tests' PostgreSQL on a data folder that outlives it, so that large data are made once."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.services.postgres import PostgresServer
from tests.services.postgres_binaries import copy_wheel, find_bin_folder, is_runnable

STOP_SECONDS = 60.0
SERVER_SETTINGS = {
    "shared_buffers": "128MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


@contextlib.contextmanager
def kept_postgres(keep: Path) -> Iterator[PostgresServer]:
    """A running server whose databases stay in the folder `keep`, which may be new."""
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    binaries = find_bin_folder(account)
    if not is_runnable(binaries, account):
        shutil.rmtree(keep / "binaries", ignore_errors=True)
        binaries = copy_wheel(binaries, keep / "binaries", account)
    server = PostgresServer(bin_folder=binaries, settings=SERVER_SETTINGS)
    server.data_folder.rmdir()
    server.data_folder = keep / "postgres"
    server.data_folder.mkdir(parents=True, exist_ok=True)
    if account is not None:
        keep.chmod(0o711)
        for folder in (server.data_folder, server.folder):
            os.chown(folder, account.pw_uid, account.pw_gid)
    try:
        server.start()
        yield server
    finally:
        server.child.stop(number=signal.SIGINT, timeout_seconds=STOP_SECONDS)
        shutil.rmtree(server.folder)
