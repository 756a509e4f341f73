"""Commands run as users run them: in an environment of their own, ended whatever they do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.services.processes import run_tastematch, start_worker


def settings_of(output: str) -> dict[str, str]:
    return {row["name"]: row["value"] for row in json.loads(output)}


def test_a_command_sees_its_own_environment_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TASTEMATCH_NAMESPACE", "of-the-test-run")
    done = run_tastematch("config", "--json", env={"TASTEMATCH_DATA_DIR": str(tmp_path)})

    assert done.returncode == 0, done.stderr
    assert settings_of(done.stdout)["TASTEMATCH_NAMESPACE"] == "tastematch"
    assert settings_of(done.stdout)["TASTEMATCH_DATA_DIR"] == str(tmp_path)


def test_a_command_without_a_data_folder_leaves_none() -> None:
    done = run_tastematch("config", "--json")

    assert done.returncode == 0, done.stderr
    folder = Path(settings_of(done.stdout)["TASTEMATCH_DATA_DIR"])
    assert folder.name == "data"
    assert not folder.parent.exists()


def test_a_command_that_takes_too_long_is_ended_and_named() -> None:
    with pytest.raises(AssertionError, match=r"'--help'.*still ran after 0\.01 s"):
        run_tastematch("--help", timeout_seconds=0.01)


def test_a_worker_that_ends_by_itself_fails_with_its_words() -> None:
    with (
        pytest.raises(AssertionError, match=r"ended by itself with status [12]") as caught,
        start_worker("--no-such-option"),
    ):
        pass
    assert "--- stderr ---" in "".join(caught.value.__notes__)
