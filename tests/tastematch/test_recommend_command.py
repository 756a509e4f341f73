"""`tastematch recommend`: the lists of the snapshot, with the API down."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store
from tests.api.overlays import teller_of
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
from tests.services.in_process import Done
from tests.services.processes import run_tastematch
from tests.services.snapshots import UserSpec, publish_snapshot

Command = Callable[..., Done]
Recommend = Callable[..., str]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = load_settings({"TASTEMATCH_DATA_DIR": str(tmp_path_factory.mktemp("data"))})
    store = open_store(settings)
    publish_snapshot(store, SPEC)
    store.close()
    return settings


@pytest.fixture
def recommend(settings: Settings, tastematch: Command) -> Recommend:
    def run(*words: str) -> str:
        done = tastematch("recommend", *words, env=environment(settings.data_dir))
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


def environment(data_dir: Path) -> dict[str, str]:
    return {"TASTEMATCH_DATA_DIR": str(data_dir)}


def test_prints_an_id_a_line(settings: Settings) -> None:
    words = ("recommend", "--user", str(PERSONAL))
    done = run_tastematch(*words, env=environment(settings.data_dir))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines == [str(i) for i in (BEYOND_JAVASCRIPT, *OSAKA[:19])]


def test_prints_names(recommend: Recommend) -> None:
    lines = recommend("--user", str(PERSONAL), "--limit", "2", "--names").splitlines()
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
    recommend: Recommend, user: int, list_name: str, source: str, ids: list[int]
) -> None:
    words = ("--user", str(user), "--list", list_name, "--limit", "3", "--json")
    document = json.loads(recommend(*words))
    assert document["ids"] == ids
    assert document["source"] == source
    assert document["list"] == list_name
    assert document["user_id"] == user
    assert {"snapshot_version", "metadata_version"} <= set(document)
    named = json.loads(recommend(*words, "--names"))
    assert [restaurant["id"] for restaurant in named["restaurants"]] == ids


def test_lists_are_longer_than_a_page_of_the_api(recommend: Recommend) -> None:
    lines = recommend("--user", str(UNKNOWN), "--limit", "200").splitlines()
    assert lines == [str(i) for i in POPULAR]


def test_leaves_nothing_in_the_data_folder(settings: Settings, recommend: Recommend) -> None:
    recommend("--user", "1")
    assert not settings.snapshots_dir.exists()


@pytest.mark.parametrize(
    "words", [(), ("--user", "-1"), ("--user", "x"), ("--user", str(2**63)), ("--user", "1.0")]
)
def test_a_wrong_call_is_a_usage_error(
    settings: Settings, tastematch: Command, words: tuple[str, ...]
) -> None:
    done = tastematch("recommend", *words, env=environment(settings.data_dir))
    assert done.returncode == 2


def test_without_a_snapshot_it_says_so(tastematch: Command, tmp_path: Path) -> None:
    done = tastematch("recommend", "--user", "1", env=environment(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["tastematch: no snapshot has been published yet"]


def test_without_a_store_it_exits_with_4(
    settings: Settings, tastematch: Command, tmp_path: Path
) -> None:
    broken = tmp_path / "data"
    shutil.copytree(settings.data_dir, broken)
    shutil.rmtree(broken / "store")
    (broken / "store").write_text("no folder")
    done = tastematch("recommend", "--user", "1", env=environment(broken))
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1


def test_what_changed_since_the_snapshot_holds(tmp_path: Path, tastematch: Command) -> None:
    settings = load_settings({"TASTEMATCH_DATA_DIR": str(tmp_path)})
    store = open_store(settings)
    manifest = publish_snapshot(store, SPEC)
    store.close()
    lists = UserSpec("personal", "Osaka", for_you=(109, 107, 105), order_again=(105, 109))
    with teller_of(settings) as teller:
        teller.lists(manifest, SPEC, SHORT, lists, 4)
        teller.hides(SHORT, [107], 5)
        teller.closed(105)
        teller.erased(PERSONAL, 2)

    def told(*words: str) -> str:
        done = tastematch(*words, env=environment(tmp_path))
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert told("recommend", "--user", str(SHORT), "--limit", "1").split() == ["109"]
    assert told("recommend", "--user", str(SHORT), "--list", "order_again").split() == ["109"]
    unknown = told("recommend", "--user", str(UNKNOWN))
    assert told("recommend", "--user", str(PERSONAL)) == unknown
    explained = json.loads(told("explain", "--user", str(SHORT), "--limit", "2", "--json"))
    assert [item["id"] for item in explained["lists"]["for_you"]["items"]][:1] == [109]
    assert explained["is_known"]
    assert not json.loads(told("explain", "--user", str(PERSONAL), "--json"))["is_known"]
    assert not (tmp_path / "overlay").exists()
