"""`tastematch evaluate` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services.datasets import two_tastes_dataset
from tests.services.in_process import Done
from tests.services.processes import run_tastematch
from tests.worker.test_precompute import load_dataset

Command = Callable[..., Done]

RESULT = {
    "algorithm",
    "list",
    "recall_at_20",
    "ndcg_at_20",
    "hit_rate_at_10",
    "mrr",
    "coverage",
    "novelty",
    "users",
    "seconds",
    "peak_rss_mb",
    "baseline",
}


@pytest.fixture
def env(sqlite_url: str, tmp_path: Path) -> dict[str, str]:
    settings = {"DATABASE_URL": sqlite_url, "TASTEMATCH_DATA_DIR": str(tmp_path / "data")}
    two_tastes_dataset(tmp_path / "set", users_per_group=15, restaurants_per_group=12)
    load_dataset(settings, tmp_path / "set")
    return settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "lightgcn"
    home.mkdir()
    (home / "train.txt").write_text("0 0 1 2\n1 0 1\n2 1 2 3\n")
    (home / "test.txt").write_text("0 3\n1 2 3\n")
    return home


def test_the_database_is_evaluated(env: dict[str, str], tmp_path: Path) -> None:
    words = ("--algorithm", "popularity-city", "--view", "time")
    done = run_tastematch("evaluate", "--json", *words, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (document["data"], document["split"]) == ("database", "time")
    shown = [(result["algorithm"], result["list"]) for result in document["results"]]
    assert shown == [("popularity-city", "for_you"), ("popularity-city", "discover")]
    for result in document["results"]:
        assert set(result) >= RESULT
        assert result["baseline"] is True
        assert result["peak_rss_mb"] > 20
        low, high = result["intervals"]["ndcg_at_20"]
        assert low <= result["ndcg_at_20"] <= high
    left = list((tmp_path / "data").rglob("*.npy"))
    assert left == [], "scratch files are gone"


def test_a_folder_is_evaluated(tastematch: Command, folder: Path) -> None:
    done = tastematch(
        *("evaluate", "--data", folder),
        *("--algorithm", "popularity", "--algorithm", "sharpened", "--algorithm", "own-frequency"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "lightgcn: 2 users with 3 held-out items" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    shown = {row[0]: row[1:5] for row in rows if len(row) > 8}
    # Without repeats and cities two of the algorithms make no sense.
    assert list(shown) == ["algorithm", "sharpened", "popularity"]
    # User 0 lacks item 3 alone, user 1 items 2 and 3; both algorithms find all three.
    assert shown["popularity"] == ["1.0000", "1.0000", "1.0000", "1.0000"]
    assert shown["sharpened"] == shown["popularity"]


def test_failures_are_one_line(tastematch: Command, folder: Path) -> None:
    (folder / "train.txt").write_text("0 1\n1 two\n")
    bad = tastematch("evaluate", "--data", folder)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr == "tastematch: train.txt, line 2: 'two' is not a number\n"

    away = tastematch("evaluate", env={"DATABASE_URL": "postgres://u:secret@127.0.0.1:1/shop"})
    assert away.returncode == 4
    assert away.stderr.count("\n") == 1
    assert "secret" not in away.stderr


def test_shares_that_leave_nothing_are_a_wrong_use(tastematch: Command) -> None:
    for words in (
        ("--train-share", "0.9", "--validation-share", "0.1"),
        ("--train-share", "0"),
        ("--algorithm", "magic"),
        ("--max-users", "0"),
    ):
        assert tastematch("evaluate", *words).returncode == 2
