"""Trouble that goes on is said in the log once a minute, not at each look."""

from __future__ import annotations

import time
from typing import Any

LOG_SECONDS = 60.0
MAX_SUBJECTS = 100


class OncePerMinute:
    """`log` is a logger of `shared.logs`. Each event and subject has a minute of its own."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._logged: dict[tuple[str, str], float] = {}

    def __call__(self, event: str, subject: str, **fields: object) -> None:
        now = time.monotonic()
        if now - self._logged.get((event, subject), -LOG_SECONDS) >= LOG_SECONDS:
            if len(self._logged) > MAX_SUBJECTS:
                self._logged.clear()
            self._logged[event, subject] = now
            self._log.warning(event, **fields)

    def forget(self, event: str, subject: str) -> None:
        """It is over: the next time is said at once."""
        self._logged.pop((event, subject), None)
