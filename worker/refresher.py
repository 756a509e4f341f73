"""The process that refreshes lists between two snapshots: `python -m worker.refresher`.

Its worker starts it when there are changes and writes a line to its stdin to wake it. It looks at
the table of changes by itself, too, tells JSON lines on stdout of what it did, ends after a minute
without work, and at once when its stdin is closed. Killing it costs seconds: what it had claimed
is claimed again.
"""

import sys
import threading
import time
from typing import Any

import orjson

from shared.startup import loaded
from shared.db.engine import sync_engine
from shared.errors import DependencyError, SnapshotError, TasteMatchError
from shared.logs import configure_logs, get_logger
from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_overlay, open_store
from worker.heap import bound_heap
from worker.parent import end_with_parent
from worker.refresher_rounds import Done, Rounds

LOOK_SECONDS = 0.25
ALIVE_SECONDS = 2.0
IDLE_SECONDS = 60.0
FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 5.0

log = get_logger("worker.refresher")


def refresh_until_idle(
    settings: Settings, wake: threading.Event, *, idle_seconds: float = IDLE_SECONDS
) -> None:
    """Works until there was nothing to do for so long; outlives store and database."""
    one = settings.model_copy(update={"db_pool_size": 1, "db_max_overflow": 0})
    engine = sync_engine(one, statement_timeout_seconds=settings.db_statement_timeout)
    store, overlay = open_store(settings), open_overlay(settings)
    rounds = Rounds(settings, engine=engine, store=store, overlay=overlay, on_done=_tell_done)
    try:
        _work(rounds, wake, idle_seconds=idle_seconds)
    finally:
        overlay.close()
        store.close()
        engine.dispose()


def _work(rounds: Rounds, wake: threading.Event, *, idle_seconds: float) -> None:
    worked_at = time.monotonic()
    told_at = wait_seconds = 0.0
    while time.monotonic() - worked_at < idle_seconds or not rounds.is_settled:
        done_before = rounds.batches
        if time.monotonic() - told_at > ALIVE_SECONDS:
            told_at = time.monotonic()
            _tell({"event": "alive"})
        try:
            is_more = rounds.round()
        except (DependencyError, SnapshotError) as error:
            if not wait_seconds:  # once an outage
                log.warning("refresher.waits", reason=error.message)
            wait_seconds = min(max(2 * wait_seconds, FIRST_WAIT_SECONDS), MAX_WAIT_SECONDS)
            worked_at = time.monotonic()
            time.sleep(wait_seconds)
            continue
        if wait_seconds:
            log.info("refresher.goes_on")
            wait_seconds = 0.0
        if rounds.batches != done_before:
            worked_at = time.monotonic()
        if not is_more:
            wake.wait(LOOK_SECONDS)
            wake.clear()


def _tell_done(done: Done) -> None:
    _tell(
        {
            "event": "refreshed",
            "users": done.users,
            "restaurants": done.restaurants,
            "seconds": round(done.seconds, 6),
        }
    )


def _tell(event: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(event) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    loaded()
    bound_heap()
    wake = threading.Event()
    end_with_parent(on_word=wake.set)
    try:
        settings = load_settings()
        configure_logs(service="worker", level=settings.log_level)
        log.info("refresher.started")
        refresh_until_idle(settings, wake)
        log.info("refresher.ended", reason="nothing to do")
    except TasteMatchError as error:
        log.error("refresher.failed", reason=error.message)
        sys.exit(1)
    except Exception:
        log.exception("refresher.crashed")
        sys.exit(1)


if __name__ == "__main__":
    main()
