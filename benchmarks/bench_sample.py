"""The main job on the sample data: seconds, memory, and how many users get lists of their own.

Runs the same commands as `make demo` in a fresh data dir. Seconds are wall clock of whole
commands, interpreter start included; memory is the kernel's count (VmHWM of processes that have
ended, PSS of the serving API after its reads).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent.parent
SAMPLES = ("entree", "nyc-visits")
READS = 2000
FIRST_USER = 100001
ANSWER_SECONDS = 30.0


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tastematch-bench-") as folder:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "PYTHONPATH": str(HOME),
            "TASTEMATCH_DATA_DIR": str(Path(folder) / "data"),
            "TASTEMATCH_LOG_LEVEL": "WARNING",
        }
        seconds: dict[str, float] = {}
        with _timed(seconds, "migrate"):
            _command(env, "migrate")
        imports = []
        with _timed(seconds, "import"):
            for sample in SAMPLES:
                imports.append(_document(env, "import", str(HOME / "data" / sample), "--json"))
        with _timed(seconds, "precompute"):
            manifest = _document(env, "precompute", "--json")
        token = _command(env, "token", "--service").strip()
        user = _document(env, "recommend", "--user", str(FIRST_USER), "--json")
        started = time.perf_counter()
        with _serving(env) as (server, url):
            ids = _first_list(server, f"{url}/api/users/{FIRST_USER}/recommendations", token)
            seconds["first answer"] = time.perf_counter() - started
            assert ids == user["ids"], "HTTP and the command read the same snapshot"
            for number in range(READS):
                _get(f"{url}/api/users/{FIRST_USER + number}/recommendations?limit=50", token)
            pss_mb, heavy = _memory(server.pid)
            job = _get(f"{url}/api/jobs?limit=1", token)["items"][0]
    counts = manifest["counts"]
    five, personal = (
        counts["users_with_five_restaurants"],
        counts["users_with_five_restaurants_and_personal_lists"],
    )
    own = sum(seconds.values())
    rows = [
        ("own work: migrate, import, precompute, first answer", f"{own:.1f} s", "15 s"),
        *((f"  {name}", f"{value:.1f} s", "") for name, value in seconds.items()),
        ("peak RSS of import", f"{max(i['peak_rss_mb'] for i in imports):.0f} MB", "200 MB"),
        ("peak RSS of precompute, command and child", f"{job['peak_rss_mb']:.0f} MB", "200 MB"),
        ("PSS of the serving API", f"{pss_mb:.0f} MB", "90 MB"),
        ("numpy or scipy in the API's maps", "yes" if heavy else "no", "no"),
        (
            "users with orders at 5 or more restaurants on `personal`",
            f"{100 * personal / five:.1f} %",
            "99 %",
        ),
    ]
    print("| figure | measured | bound |\n| --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def _command(env: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tastematch", *arguments],
        env=env,
        cwd=HOME,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def _document(env: dict[str, str], *arguments: str) -> Any:
    return json.loads(_command(env, *arguments))


@contextmanager
def _serving(env: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "tastematch", "serve"], env={**env, "PORT": str(port)}, cwd=HOME
    )
    try:
        yield server, f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(15)


def _first_list(server: subprocess.Popen[bytes], url: str, token: str) -> Any:
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            return _get(url, token)
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline or server.poll() is not None:
                raise
            time.sleep(0.02)


def _get(url: str, token: str) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
        return json.load(answer)


def _memory(pid: int) -> tuple[float, bool]:
    """(PSS in MB, whether numpy or scipy is mapped)."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    maps = Path(f"/proc/{pid}/maps").read_text()
    return pss / 1024, "numpy" in maps or "scipy" in maps


if __name__ == "__main__":
    main()
