"""Publishes snapshots in processes that kill themselves right before their n-th write.

Arguments: engine (redis or disk) and its address. Each line of the input is a JSON array: the
folder of the part files, the manifest's file, the generation, n. The answer is a line with the
exit status of the process that published, 0 where it had no n-th write, and -9 where it had one.
A write is a batch of commands to Redis, or a statement by which SQLite changes its file or commits.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis.connection import AbstractConnection

from shared.snapshot.manifest import decode_manifest
from tests.conformance.snapshot_engines import DiskEngine, Engine, RedisEngine

SQLITE_WRITES = ("INSERT", "UPDATE", "DELETE", "COMMIT")


def main() -> None:
    kind, address = sys.argv[1:]
    engine = RedisEngine(address) if kind == "redis" else DiskEngine(Path(address))
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            publish(engine, *json.loads(line))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def publish(
    engine: Engine, folder: str, manifest_file: str, generation: int, last_write: int
) -> None:
    count_write = counter(last_write)
    is_armed = False

    def write() -> None:
        if is_armed:
            count_write()

    watch_redis(write)
    watch_sqlite(write)
    manifest = decode_manifest(Path(manifest_file).read_bytes(), version=Path(manifest_file).name)
    store = engine.open()
    store.pointer()  # opening writes too, but belongs to no publish
    is_armed = True
    store.publish(
        manifest,
        {name: Path(folder) / name for name in manifest.bytes},
        expected_generation=generation,
        activate=True,
    )


def counter(last: int) -> Callable[[], None]:
    numbers = itertools.count(1)

    def count() -> None:
        if next(numbers) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    return count


def watch_redis(write: Callable[[], None]) -> None:
    send = AbstractConnection.send_packed_command

    def watched(self: AbstractConnection, *arguments: Any, **options: Any) -> None:
        write()
        send(self, *arguments, **options)

    AbstractConnection.send_packed_command = watched  # type: ignore[method-assign]


def watch_sqlite(write: Callable[[], None]) -> None:
    connect = sqlite3.connect

    def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(
            lambda statement: write() if statement.startswith(SQLITE_WRITES) else None
        )
        return connection

    sqlite3.connect = watched  # type: ignore[assignment]


if __name__ == "__main__":
    main()
