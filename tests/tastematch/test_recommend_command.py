"""`tastematch recommend`: the lists of the snapshot, with the API down."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store
from tests.api.running import (
    BEYOND_JAVASCRIPT,
    CITY_ONLY,
    OSAKA,
    PERSONAL,
    POPULAR,
    SHORT,
    SPEC,
    UNKNOWN,
)
from tests.services.processes import run_tastematch
from tests.services.snapshots import publish_snapshot


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = load_settings({"TASTEMATCH_DATA_DIR": str(tmp_path_factory.mktemp("data"))})
    store = open_store(settings)
    publish_snapshot(store, SPEC)
    store.close()
    return settings


def recommend(settings: Settings, *words: str) -> str:
    done = run_tastematch("recommend", *words, env={"TASTEMATCH_DATA_DIR": str(settings.data_dir)})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_prints_an_id_a_line(settings: Settings) -> None:
    lines = recommend(settings, "--user", str(PERSONAL)).splitlines()
    assert lines == [str(i) for i in (BEYOND_JAVASCRIPT, *OSAKA[:19])]


def test_prints_names(settings: Settings) -> None:
    lines = recommend(settings, "--user", str(PERSONAL), "--limit", "2", "--names").splitlines()
    assert lines == [
        f"{BEYOND_JAVASCRIPT}  Restaurant {BEYOND_JAVASCRIPT}, Ramen",
        "101  Restaurant 101, Ramen, Osaka",
    ]


@pytest.mark.parametrize(
    ("user", "list_name", "source", "ids"),
    [
        (SHORT, "order_again", "personal", [105, 101]),
        (SHORT, "discover", "personal", [102, 107, 103]),
        (CITY_ONLY, "for_you", "popular-city", [101, 103, 105]),
        (UNKNOWN, "for_you", "popular", list(POPULAR[:3])),
        (UNKNOWN, "order_again", "popular", []),
    ],
)
def test_prints_one_document(
    settings: Settings, user: int, list_name: str, source: str, ids: list[int]
) -> None:
    words = ("--user", str(user), "--list", list_name, "--limit", "3", "--json")
    document = json.loads(recommend(settings, *words))
    assert document["ids"] == ids
    assert document["source"] == source
    assert document["list"] == list_name
    assert document["user_id"] == user
    assert {"snapshot_version", "metadata_version"} <= set(document)
    named = json.loads(recommend(settings, *words, "--names"))
    assert [restaurant["id"] for restaurant in named["restaurants"]] == ids


def test_lists_are_longer_than_a_page_of_the_api(settings: Settings) -> None:
    lines = recommend(settings, "--user", str(UNKNOWN), "--limit", "200").splitlines()
    assert lines == [str(i) for i in POPULAR]


def test_leaves_nothing_in_the_data_folder(settings: Settings) -> None:
    recommend(settings, "--user", "1")
    assert not settings.snapshots_dir.exists()


@pytest.mark.parametrize(
    "words", [(), ("--user", "-1"), ("--user", "x"), ("--user", str(2**63)), ("--user", "1.0")]
)
def test_a_wrong_call_is_a_usage_error(settings: Settings, words: tuple[str, ...]) -> None:
    done = run_tastematch("recommend", *words, env={"TASTEMATCH_DATA_DIR": str(settings.data_dir)})
    assert done.returncode == 2


def test_without_a_snapshot_it_says_so(tmp_path: Path) -> None:
    done = run_tastematch("recommend", "--user", "1", env={"TASTEMATCH_DATA_DIR": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["tastematch: no snapshot has been published yet"]


def test_without_a_store_it_exits_with_4(settings: Settings, tmp_path: Path) -> None:
    broken = tmp_path / "data"
    shutil.copytree(settings.data_dir, broken)
    shutil.rmtree(broken / "store")
    (broken / "store").write_text("no folder")
    done = run_tastematch("recommend", "--user", "1", env={"TASTEMATCH_DATA_DIR": str(broken)})
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1
