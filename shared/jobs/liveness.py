"""When a worker counts as alive, in plain SQL: for a process that does without SQLAlchemy.

`workers.py` tells the same of each worker; a test compares the two.
"""

from typing import Final

SEEN_WITHIN_SECONDS: Final = 30.0

COUNT_POSTGRESQL: Final = f"""
    SELECT count(*) FROM workers
    WHERE seen_at >= clock_timestamp() - interval '{SEEN_WITHIN_SECONDS:g} seconds'
"""  # noqa: S608
COUNT_SQLITE: Final = f"""
    SELECT count(*) FROM workers
    WHERE seen_at >= strftime('%Y-%m-%d %H:%M:%f', 'now', '-{SEEN_WITHIN_SECONDS:g} seconds')
"""  # noqa: S608
