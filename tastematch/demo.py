"""`make demo`: the main job on the embedded default, from an empty folder to served lists.

Runs the same commands a user would type, one after the other, and tells the seconds of each. A
second run finds the snapshot and serves it at once.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from shared.db.engine import sync_engine
from shared.db.models import Order
from shared.errors import TasteMatchError
from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store
from shared.tokens import issue_user_token

HOME = Path(__file__).resolve().parent.parent
SAMPLES = ("entree", "nyc-visits")
ANSWER_SECONDS = 30.0
TOKEN_SECONDS = 24 * 3600
SHOWN_NAMES = 5
STOP_SECONDS = 12.0


def main() -> int:
    """Exit code: 0 after Ctrl-C, 1 when a stage failed, 128 + n where signal n ended it."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, _end)
    # The demo is the embedded default whatever the shell it is typed in points at.
    for name in ("DATABASE_URL", "REDIS_URL", "TASTEMATCH_ENV"):
        os.environ.pop(name, None)
    try:
        return _run(load_settings())
    except TasteMatchError as error:
        print(f"demo: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return 0


def _run(settings: Settings) -> int:
    started = time.perf_counter()
    _check_port(settings.port)
    if _has_snapshot(settings):
        print("the sample data and its snapshot are there already; serving them")
    else:
        with _stage("create the database") as said:
            said.extend(_command(settings, "migrate"))
        for sample in SAMPLES:
            with _stage(f"import data/{sample}") as said:
                said.extend(_command(settings, "import", str(HOME / "data" / sample)))
        with _stage("precompute a snapshot") as said:
            said.extend(_command(settings, "precompute"))
    server = subprocess.Popen(
        [sys.executable, "-m", "tastematch", "serve", "--with-worker"],
        cwd=HOME,
        env=_environment(settings),
    )
    try:
        user_id = _well_known_user(settings)
        token = issue_user_token(
            settings, user_id=user_id, ttl_seconds=TOKEN_SECONDS, now=time.time()
        )
        url = f"http://127.0.0.1:{settings.port}"
        with _stage("serve and answer"):
            names = _first_answer(server, url, token)
        print(f"\nready in {time.perf_counter() - started:.1f} s at {url}")
        _print_lines(settings, url, user_id=user_id, token=token, names=names)
        return server.wait()
    finally:
        _stop(server)


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise TasteMatchError(
                f"port {port} is taken; choose another: make demo PORT={port + 1}"
            ) from None


def _has_snapshot(settings: Settings) -> bool:
    if not settings.store_dir.exists():
        return False
    store = open_store(settings)
    try:
        return store.pointer().version is not None
    finally:
        store.close()


@contextmanager
def _stage(name: str) -> Iterator[list[str]]:
    """Prints the stage with its seconds, then the lines that are put into the list."""
    started = time.perf_counter()
    said: list[str] = []
    yield said
    print(f"{name:<28} {time.perf_counter() - started:6.1f} s", flush=True)
    for line in said:
        print(f"  {line}", flush=True)


def _environment(settings: Settings) -> dict[str, str]:
    return {
        # What is served is printed below; of the log only what is wrong is worth a line.
        "TASTEMATCH_LOG_LEVEL": "WARNING",
        **os.environ,
        # The commands run in the repository's folder, a relative path is the caller's.
        "TASTEMATCH_DATA_DIR": str(settings.data_dir.absolute()),
    }


def _command(settings: Settings, *arguments: str) -> list[str]:
    """Runs a subcommand and returns what it printed."""
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "tastematch", *arguments],
        cwd=HOME,
        env=_environment(settings),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TasteMatchError(f"`tastematch {arguments[0]}` failed, see above")
    return done.stdout.splitlines()


def _well_known_user(settings: Settings) -> int:
    """Somebody with a history worth looking at: neither a beginner nor a robot."""
    engine = sync_engine(settings)
    statement = (
        select(Order.user_id)
        .group_by(Order.user_id)
        .having(func.count().between(12, 30))
        .order_by(func.count(Order.restaurant_id.distinct()).desc(), Order.user_id)
        .limit(1)
    )
    with engine.connect() as connection:
        user_id = connection.scalar(statement)
    engine.dispose()
    if user_id is None:
        raise TasteMatchError("the database in TASTEMATCH_DATA_DIR does not hold the sample data")
    return user_id


def _first_answer(server: "subprocess.Popen[bytes]", url: str, token: str) -> list[str]:
    """Names of the first restaurants recommended, joined as a frontend joins them."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        if server.poll() is not None:
            raise TasteMatchError("the server ended before its first answer, see above")
        try:
            ids = _get(f"{url}/api/recommendations", token)
            break
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise TasteMatchError("the server gave no answer in 30 seconds") from None
            time.sleep(0.05)
    metadata = _get(f"{url}/api/restaurants/metadata", token)
    names = {row["id"]: row["name"] for row in metadata["restaurants"]}
    return [f"{names[i]} ({i})" for i in ids[:SHOWN_NAMES]]


def _get(url: str, token: str) -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
        return json.load(answer)


def _print_lines(
    settings: Settings, url: str, *, user_id: int, token: str, names: list[str]
) -> None:
    service = settings.service_token
    assert service is not None, "development settings have a service token"
    users_url = f"{url}/api/users/{user_id}/recommendations"
    print(
        f"""
user {user_id} may like: {", ".join(names)}

  API documentation  {url}/docs
  readiness          {url}/ready

The list of user {user_id} (bare ids, best first), with a token that ends {_tomorrow()}:
  curl -H 'Authorization: Bearer {token}' {url}/api/recommendations

The same as an operator or scheduler, with the service token:
  curl -H 'Authorization: Bearer {service.get_secret_value()}' {users_url}

The names behind the ids:
  curl --compressed {url}/api/restaurants/metadata

Ctrl-C stops it.""",
        flush=True,
    )


def _tomorrow() -> str:
    return datetime.fromtimestamp(time.time() + TOKEN_SECONDS, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _end(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)  # on its way the server is stopped


def _stop(server: "subprocess.Popen[bytes]") -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt, SystemExit):
        server.kill()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
