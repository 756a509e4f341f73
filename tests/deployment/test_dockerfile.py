"""The Dockerfile: what each image installs, holds, runs as, and that the linter finds nothing."""

import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.deployment import dockerfile

ROOT = dockerfile.PATH.parent
PROCESSES = ("api", "worker")
WORKER_ONLY = {"numpy", "scipy", "threadpoolctl"}


def test_linter_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint is not None, "hadolint is one of the development requirements"
    result = subprocess.run(
        [hadolint, str(dockerfile.PATH)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (0, "")


def test_has_a_target_for_each_process() -> None:
    assert set(PROCESSES) <= set(dockerfile.stages())


@pytest.mark.parametrize("target", PROCESSES)
def test_installs_only_what_a_lock_file_pins_by_hash(target: str) -> None:
    runs = "\n".join(dockerfile.stages()[target].values("RUN"))
    installs = re.findall(r"pip install([^&]*)", runs)
    locks = [line for line in installs if "--requirement" in line]
    own = [line for line in installs if "--requirement" not in line]
    assert [re.findall(r"--requirement (\S+)", line) for line in locks] == [
        [f"requirements/{target}.lock"]
    ]
    assert "--require-hashes" in locks[0]
    # The product itself: nothing is fetched for it, not even what builds it.
    assert all("--no-deps" in line and "--no-build-isolation" in line for line in own)
    assert "setuptools" in _pinned(f"requirements/{target}.lock")


def test_api_image_lacks_what_only_the_worker_needs() -> None:
    assert not WORKER_ONLY & _pinned("requirements/api.lock")
    assert _pinned("requirements/worker.lock") >= WORKER_ONLY


@pytest.mark.parametrize("target", PROCESSES)
def test_runs_as_an_unprivileged_user_who_owns_the_data_folder(target: str) -> None:
    stage = dockerfile.stages()[target]
    assert stage.values("USER") == ["10001"]
    assert stage.environment()["TASTEMATCH_DATA_DIR"] == "/data"
    assert any(
        "--owner=10001" in run and run.endswith("--mode=0700 /data") for run in stage.values("RUN")
    )


@pytest.mark.parametrize("target", PROCESSES)
def test_our_packages_come_first(target: str) -> None:
    stage = dockerfile.stages()[target]
    assert stage.values("WORKDIR") == ["/app"]
    assert stage.environment()["PYTHONPATH"] == "/app"
    assert stage.environment()["MALLOC_ARENA_MAX"] == "2"


def test_linear_algebra_has_one_thread() -> None:
    assert dockerfile.stages()["worker"].environment()["OPENBLAS_NUM_THREADS"] == "1"


def test_base_image_is_the_oldest_python_we_support() -> None:
    assert {stage.image for stage in dockerfile.stages().values()} == {"python:3.11-slim"}
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("target", [*PROCESSES, "seed"])
def test_build_context_holds_what_is_copied(target: str) -> None:
    kept = [
        line[1:].strip("/")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    for source in dockerfile.stages()[target].copied():
        assert (ROOT / source).exists(), f"{source} is copied but does not exist"
        assert source.split("/")[0] in kept, f"{source} is copied but ignored"


def test_build_context_leaves_out_everything_else() -> None:
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    for name in (".git", ".venv", ".data", ".env", "tests"):
        assert not any(fnmatch(name, line[1:]) for line in lines if line.startswith("!"))


def test_sample_data_is_in_no_production_image() -> None:
    for target in PROCESSES:
        assert not any(source.startswith("data") for source in dockerfile.stages()[target].copied())


def _pinned(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9.-]+)(?:\[[a-z,]+\])?==", (ROOT / lock).read_text(), re.M))
