"""Milliseconds in which one user's lists are computed anew from a snapshot's model.

Each user twice: new to a process that has served others, and warm, right after that.
`bench_scale` runs it as a process of its own: `python -m benchmarks.one_user MODELS VERSION URL`.
Prints a JSON object: medians and 95th percentiles in milliseconds, peak RSS in MiB.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import psycopg2

from shared.peak_memory import peak_rss_mb
from worker.refresh import Refresher
from worker.refresher_reading import UserState

USERS = 500
WARM_UP = 500


def main() -> None:
    home, version, url = sys.argv[1:]
    refresher = Refresher(Path(home) / version)
    seconds: dict[str, list[float]] = {"new": [], "warm": []}
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT max(id) FROM users")
        (last,) = cursor.fetchone()
        for number, user in enumerate(np.linspace(1, last, WARM_UP + USERS).astype(int).tolist()):
            cursor.execute(
                "SELECT restaurant_id, floor(extract(epoch from order_date))::bigint"
                " FROM orders WHERE user_id = %s",
                (user,),
            )
            orders = np.array(cursor.fetchall(), np.int64).reshape(-1, 2)
            cursor.execute("SELECT city FROM users WHERE id = %s", (user,))
            state = UserState(True, cursor.fetchone()[0], has_orders=True)
            state.restaurant_ids, state.epoch_seconds = orders.T
            for taken in seconds.values():
                started = time.perf_counter()
                refresher.refresh([state])
                if number >= WARM_UP:
                    taken.append(time.perf_counter() - started)
    figures = {"peak_mb": peak_rss_mb()}
    for name, taken in seconds.items():
        figures[f"{name}_median"] = 1000 * float(np.median(taken))
        figures[f"{name}_p95"] = 1000 * float(np.percentile(taken, 95))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
