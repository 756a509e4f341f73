"""`tastematch token`, as an operator runs it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest

from shared.settings import load_settings
from shared.tokens import TokenVerifier
from tests.services.in_process import Done
from tests.services.processes import run_tastematch

Command = Callable[..., Done]

SECRET = "0123456789abcdef0123456789abcdef"


def env(folder: Path, **more: str) -> dict[str, str]:
    return {"TASTEMATCH_DATA_DIR": str(folder), "TASTEMATCH_JWT_SECRET": SECRET, **more}


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [(None, 3600), ("30s", 30), ("15m", 900), ("1h", 3600), ("7d", 604_800), ("30d", 2_592_000)],
)
def test_a_user_token_lives_as_long_as_asked(
    tastematch: Command, tmp_path: Path, ttl: str | None, seconds: int
) -> None:
    before = int(time.time())
    words = [] if ttl is None else ["--ttl", ttl]

    # The shortest call as an operator types it, the others without the start of a process.
    run = run_tastematch if ttl is None else tastematch
    done = run("token", "--user", "42", *words, env=env(tmp_path))

    assert (done.returncode, done.stderr) == (0, "")
    token = done.stdout.removesuffix("\n")
    claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    assert claims["sub"] == "42"
    assert claims["exp"] - claims["iat"] == seconds
    assert before <= claims["iat"] <= time.time()
    verifier = TokenVerifier(load_settings(env(tmp_path)))
    assert verifier.verify(token, now=time.time()).user_id == 42


def test_the_largest_id_keeps_its_digits(tastematch: Command, tmp_path: Path) -> None:
    done = tastematch("token", "--user", str(2**63 - 1), env=env(tmp_path))

    claims = jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"])
    assert claims["sub"] == "9223372036854775807"


def test_service_and_viewer_tokens_are_those_that_are_kept(
    tastematch: Command, tmp_path: Path
) -> None:
    printed = {
        option: tastematch("token", option, env={"TASTEMATCH_DATA_DIR": str(tmp_path)}).stdout
        for option in ("--service", "--viewer")
    }

    kept = json.loads((tmp_path / "secrets.json").read_text())
    assert printed == {
        "--service": f"{kept['service_token']}\n",
        "--viewer": f"{kept['viewer_token']}\n",
    }


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--service", "--viewer"],
        ["--user", "1", "--service"],
        ["--service", "--ttl", "1h"],
        ["--user", "-1"],
        ["--user", str(2**63)],
        ["--user", "x"],
        ["--user", "1", "--ttl", "90"],
        ["--user", "1", "--ttl", "0s"],
        ["--user", "1", "--ttl", "1w"],
        ["--user", "1", "--ttl", "-1h"],
        ["--user", "1", "--ttl", "1h30m"],
        ["--user", "1", "--ttl", ""],
    ],
)
def test_what_makes_no_token_is_a_usage_error(
    tastematch: Command, tmp_path: Path, words: list[str]
) -> None:
    done = tastematch("token", *words, env=env(tmp_path))

    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "more", "names"),
    [
        (["--user", "1", "--ttl", "31d"], {}, "TASTEMATCH_JWT_MAX_LIFETIME_DAYS"),
        (
            ["--user", "1"],
            {"TASTEMATCH_JWT_SECRET": "", "TASTEMATCH_JWT_PUBLIC_KEY": "pem"},
            "TASTEMATCH_JWT_SECRET",
        ),
        (
            ["--viewer"],
            {
                "TASTEMATCH_ENV": "production",
                "DATABASE_URL": "postgres://u@db/shop",
                "TASTEMATCH_SERVICE_TOKEN": SECRET[::-1],
            },
            "TASTEMATCH_VIEWER_TOKEN",
        ),
    ],
)
def test_a_token_that_the_settings_do_not_give_is_one_line(
    tastematch: Command, tmp_path: Path, words: list[str], more: dict[str, str], names: str
) -> None:
    done = tastematch("token", *words, env=env(tmp_path, **more))

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"tastematch: {names}: ")
    assert done.stderr.count("\n") == 1
    assert SECRET not in done.stderr
