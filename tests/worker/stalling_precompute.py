"""The real precompute, in a process that stops itself (SIGSTOP) at one known moment.

`reading`: when it makes the folder of its parts. `switch`: after its last check, right before it
sends what makes its version visible. `switched`: when it first asks the store for anything after
that. Whoever sends SIGCONT wakes it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import sys
from typing import Any

from redis.connection import AbstractConnection

from worker.precompute import main

MANIFEST = "snapshot:manifest:"
VERSIONS = "snapshot:versions"


class Moments:
    """Told of every command to a store; stops the process once, at its moment."""

    def __init__(self, moment: str) -> None:
        self._moment = moment
        self._is_ready = False
        self._is_switching = False
        self._has_switched = False

    def reading(self) -> None:
        self._stop_at("reading")

    def command(self, text: str, *, begins: bool, ends: bool) -> None:
        """`text` is of a command that is about to be sent.

        begins, ends: whether it is the first, or the last, of those that make a version visible.
        """
        if self._has_switched:
            self._stop_at("switched")
            return
        if self._is_ready and begins:
            self._is_switching = True
            self._stop_at("switch")
        self._has_switched = self._is_switching and ends
        if MANIFEST in text and text.startswith(("INSERT", "*")):
            self._is_ready = True

    def _stop_at(self, moment: str) -> None:
        if moment == self._moment:
            self._moment = ""
            os.kill(os.getpid(), signal.SIGSTOP)


def watch_redis(moments: Moments) -> None:
    send = AbstractConnection.send_packed_command

    def watched(self: AbstractConnection, command: Any, *rest: Any, **options: Any) -> None:
        pieces = [command] if isinstance(command, bytes | str) else list(command)
        text = "".join(
            p if isinstance(p, str) else p[:4096].decode("utf-8", "replace") for p in pieces
        )
        is_script = "\r\nEVAL\r\n" in text and VERSIONS in text  # the overlay has scripts, too
        moments.command(text, begins=is_script, ends=is_script)
        send(self, pieces, *rest, **options)

    AbstractConnection.send_packed_command = watched  # type: ignore[method-assign]


def watch_sqlite(moments: Moments) -> None:
    """Of the store's file alone: the shop's database is asked by others."""
    connect = sqlite3.connect

    def watched(database: Any, *arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(database, *arguments, **options)
        if str(database).endswith("cache.db"):
            connection.set_trace_callback(
                lambda text: moments.command(
                    text, begins=text.startswith("BEGIN"), ends=text.startswith("COMMIT")
                )
            )
        return connection

    sqlite3.connect = watched  # type: ignore[assignment]


def watch_folders(moments: Moments) -> None:
    def seen(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.mkdir" and str(arguments[0]).endswith("parts"):
            moments.reading()

    sys.addaudithook(seen)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal")
    parser.add_argument("--at", required=True, choices=["reading", "switch", "switched"])
    options, words = parser.parse_known_args()
    the_moments = Moments(options.at)
    watch_redis(the_moments)
    watch_sqlite(the_moments)
    watch_folders(the_moments)
    main(words)
