"""A program that speaks like `worker.precompute` and computes nothing.

Tests of the worker say by arguments how it goes: it tells progress until a file exists, then ends
as asked. Every start is a line in a journal, so is every end that it comes to.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

STAGES = ("extract", "lists", "publish")
VERSION = "20260301T120000000000Z-0abc"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--until", type=Path, help="goes on until this file exists")
    parser.add_argument("--published", action="store_true", help="says so before it goes on")
    parser.add_argument("--error", help="ends with this error")
    parser.add_argument("--kind", default="JobFailed")
    parser.add_argument("--status", type=int, help="breaks off with this status, saying nothing")
    parser.add_argument("--signal", type=int, help="kills itself")
    parser.add_argument("--kills", type=int, default=9, help="in so many first starts")
    parser.add_argument("--deaf", action="store_true", help="does not end with its stdin")
    parser.add_argument("--say", help="a line on stdout that is no event")
    parser.add_argument("--reserve-mb", type=float, help="left to the refresher")
    parser.add_argument("--origin", required=True)
    parser.add_argument("--job-id", required=True)
    parser.add_argument("--owner", required=True)
    options = parser.parse_args()

    def note(what: str) -> None:
        line = {"what": what, "pid": os.getpid(), "at": time.time(), "job_id": options.job_id}
        with options.journal.open("a") as file:
            file.write(json.dumps(line) + "\n")

    note("start")
    if not options.deaf:
        threading.Thread(target=end_with_parent, daemon=True).start()
    if options.say:
        print(options.say, flush=True)
    print("the pretended log", file=sys.stderr, flush=True)
    tell_progress(0)
    if options.published:
        tell({"event": "published", "version": VERSION})
    if options.signal and options.journal.read_text().count('"start"') <= options.kills:
        os.kill(os.getpid(), options.signal)
    while options.until and not options.until.exists():
        time.sleep(0.02)
    tell_progress(len(STAGES))
    if options.status is not None:
        os._exit(options.status)
    if options.error is not None:
        tell({"event": "error", "error": options.error, "kind": options.kind})
        sys.exit(1)
    note("end")
    tell({"event": "done", "manifest": {"version": VERSION}, "state": "active"})


def tell(event: dict[str, object]) -> None:
    print(json.dumps(event), flush=True)


def tell_progress(done: int) -> None:
    tell(
        {
            "event": "progress",
            "stage": STAGES[min(done, len(STAGES) - 1)],
            "progress": done / len(STAGES),
            "stages": [{"name": name, "seconds": 0.5} for name in STAGES[:done]],
            "rss_mb": 100.0,
        }
    )


def end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main()
