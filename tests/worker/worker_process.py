"""A worker process whose jobs run the pretended precompute: everything else about it is real.

An arq worker where there is a REDIS_URL, else an embedded one, as `tastematch worker` decides; the
words after the options are its jobs' command.
"""

import argparse
import asyncio
import sys

import shared.startup  # noqa: F401 - before what is large
from shared.errors import TasteMatchError
from shared.logs import configure_logs
from shared.settings import load_settings
from worker.arq_worker import run_arq_worker
from worker.process import run_worker


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--look", type=float, default=0.5, help="seconds between look-arounds")
    parser.add_argument("--start", type=float, default=60, help="patience with the database")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    settings = load_settings()
    configure_logs(service="worker", level=settings.log_level)
    if settings.redis_url:
        work = run_arq_worker(settings, command=options.command, look_seconds=options.look)
    else:
        work = run_worker(
            settings,
            kind="embedded",
            look_seconds=options.look,
            command=options.command,
            start_seconds=options.start,
        )
    try:
        asyncio.run(work)
    except TasteMatchError as error:
        print(f"{type(error).__name__}: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
