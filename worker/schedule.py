"""When a worker queues a run by itself: at the ticks of a cron expression, and to repair a store.

Pure functions of time: `now` is the database's clock, which all workers share.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cronsim import CronSim

from shared.jobs.job import Job

STEP_BACK_SECONDS = 300.0
REPAIR_SECONDS = 60.0
HISTORY = 12  # jobs looked at for the wait between repairs; it doubles with each failure


class Schedule:
    """The ticks of a cron expression in UTC, from the moment it is made.

    A tick that is noticed late is due once, however many went by. Where the clock is set back by
    little, ticks that were served are not due again; where it is set back far, it counts anew.
    """

    def __init__(self, expression: str, *, now: datetime) -> None:
        self._expression = expression
        self._served = self._last_tick(now)

    def due(self, now: datetime) -> datetime | None:
        """The newest tick that is not served yet."""
        tick = self._last_tick(now)
        if tick > self._served:
            return tick
        if (self._served - now).total_seconds() > STEP_BACK_SECONDS:
            self._served = tick
        return None

    def served(self, tick: datetime) -> None:
        self._served = max(self._served, tick)

    def interval_seconds(self, now: datetime) -> float:
        """Between the last tick and the next."""
        coming = next(CronSim(self._expression, now.astimezone(UTC)), None)
        return 0.0 if coming is None else (coming - self._last_tick(now)).total_seconds()

    def _last_tick(self, now: datetime) -> datetime:
        tick = next(CronSim(self._expression, now.astimezone(UTC), reverse=True), None)
        return datetime.min.replace(tzinfo=UTC) if tick is None else tick


def is_repair_due(jobs: Sequence[Job], *, now: datetime, interval_seconds: float) -> bool:
    """Whether a store without an active snapshot deserves another run.

    `jobs` are the newest ones first. After a run that did not help the next waits a minute, after
    failures twice as long each time, up to the interval of the schedule.
    """
    if not jobs:
        return True
    if jobs[0].is_active:
        return False
    failures = 0
    while failures < len(jobs) and jobs[failures].state == "failed":
        failures += 1
    wait_seconds = min(
        REPAIR_SECONDS * 2 ** max(failures - 1, 0), max(REPAIR_SECONDS, interval_seconds)
    )
    ended = jobs[0].finished_at or jobs[0].created_at
    return not timedelta(0) <= now - ended < timedelta(seconds=wait_seconds)
