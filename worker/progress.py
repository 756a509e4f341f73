"""How far a precompute is: its stages, their seconds, and the share of the run that is done."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from shared.logs import get_logger
from shared.peak_memory import peak_rss_mb

# The share of the whole run at which each stage ends, for the progress bar.
STAGES = {
    "extract": 0.25,
    "matrix": 0.28,
    "quality": 0.4,
    "ranking": 0.5,
    "lists": 0.8,
    "projection": 0.9,
    "publish": 1.0,
}
TELL_SECONDS = 0.2

log = get_logger("worker.precompute")

Tell = Callable[[dict[str, Any]], None]


class Progress:
    """Times the stages and tells the parent how far the run is."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told = 0.0
        self._stage = ""
        self.done: list[dict[str, Any]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        self._stage = name
        self.at(0.0, force=True)
        yield
        seconds = round(time.perf_counter() - started, 3)
        self.done.append({"name": name, "seconds": seconds})
        self.at(1.0, force=True)  # the job's row shows the last stage too
        log.info("precompute.stage", stage=name, elapsed_s=seconds, peak_mb=round(peak_rss_mb(), 1))

    def at(self, fraction: float, *, force: bool = False) -> None:
        """`fraction` of the running stage, 0 to 1."""
        now = time.monotonic()
        if not force and now - self._told < TELL_SECONDS:
            return
        self._told = now
        names = list(STAGES)
        before = names.index(self._stage)
        low = STAGES[names[before - 1]] if before else 0.0
        self._tell(
            {
                "event": "progress",
                "stage": self._stage,
                "progress": low + (STAGES[self._stage] - low) * min(fraction, 1.0),
                "stages": self.done,
                "rss_mb": round(peak_rss_mb(), 1),
            }
        )

    def published(self, version: str) -> None:
        """Tells what is visible from now on, whatever becomes of the rest of the run."""
        self._tell({"event": "published", "version": version})
