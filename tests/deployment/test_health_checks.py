"""The health checks of the images, run against the real processes; and how these listen."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment import dockerfile
from tests.services.processes import run_tastematch, start_serve, start_worker


def _run_check(target: str, variables: dict[str, str]) -> int:
    program, *arguments = dockerfile.stages()[target].health_command()
    assert program == "python"
    environment = {"PATH": os.environ.get("PATH", os.defpath), **variables}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, timeout=10, check=False
    ).returncode


def test_api_is_healthy_only_while_it_serves(free_port: int) -> None:
    variables = {"PORT": str(free_port)}
    assert _run_check("api", variables) != 0
    with start_serve(port=free_port):
        assert _run_check("api", variables) == 0
    assert _run_check("api", variables) != 0


def test_worker_is_healthy_only_while_it_runs(free_port: int, tmp_path: Path) -> None:
    variables = {
        "TASTEMATCH_METRICS_PORT": str(free_port),
        "TASTEMATCH_DATA_DIR": str(tmp_path),
        "TASTEMATCH_PRECOMPUTE_CRON": "",
    }
    assert run_tastematch("migrate", env=variables).returncode == 0
    assert _run_check("worker", variables) != 0
    with start_worker(env=variables):
        assert _run_check("worker", variables) == 0
    assert _run_check("worker", variables) != 0


def test_host_of_the_images_takes_ipv4_and_ipv6(free_port: int) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    host = dockerfile.stages()["api"].environment()["TASTEMATCH_HOST"]
    with start_serve("--host", host, port=free_port):
        for address in ("127.0.0.1", "::1"):
            connection = http.client.HTTPConnection(address, free_port, timeout=5)
            with contextlib.closing(connection):
                connection.request("GET", "/health")
                assert connection.getresponse().status == 200


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False
