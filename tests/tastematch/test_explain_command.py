"""`tastematch explain`: history, lists and reasons of the snapshot, with the API down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store
from tests.services.in_process import Done
from tests.services.processes import run_tastematch
from tests.services.snapshots import SnapshotSpec, UserSpec, projection, publish_snapshot

Explain = Callable[..., Done]

REGULAR, FRESH, STRANGER = 42, 43, 99
SPEC = SnapshotSpec(
    restaurants={1: "Lima", 2: "Lima", 3: "Lima", 4: "Cusco", 5: None},
    users={
        REGULAR: UserSpec(
            "personal", "Lima", for_you=(1, 3, 4), discover=(3, 4), order_again=(1, 2)
        ),
        FRESH: UserSpec("preferences", "Cusco", for_you=(4,), discover=(4,)),
    },
    similar={1: (3,), 4: (2,)},
    names={1: "Zoë's\x1b[31m", 2: "Anticuchos " + "y más " * 20},
    cuisines={5: None},
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = load_settings({"TASTEMATCH_DATA_DIR": str(tmp_path_factory.mktemp("data"))})
    store = open_store(settings)
    publish_snapshot(store, SPEC)
    store.close()
    return settings


@pytest.fixture
def explain(settings: Settings, tastematch: Callable[..., Done]) -> Explain:
    def run(*words: str | int) -> Done:
        env = {"TASTEMATCH_DATA_DIR": str(settings.data_dir)}
        return tastematch("explain", *map(str, words), env=env)

    return run


def shown(done: Done | CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_document_holds_history_lists_and_reasons(settings: Settings) -> None:
    env = {"TASTEMATCH_DATA_DIR": str(settings.data_dir)}
    done = run_tastematch("explain", "--user", str(REGULAR), "--json", env=env)
    whole = json.loads(shown(done))
    assert (whole["city"], whole["source"], whole["is_known"]) == ("Lima", "personal", True)
    assert whole["history"] == {
        "restaurants": 2,
        "items": [projection(SPEC, 1), projection(SPEC, 2)],
    }
    assert list(whole["lists"]) == ["for_you", "discover"]
    items = whole["lists"]["for_you"]["items"]
    assert [(item["id"], item["source"], item["reason"]["code"]) for item in items] == [
        (1, "personal", "ordered-before"),
        (3, "personal", "similar-to"),
        (4, "personal", "similar-to"),
        (2, "popular-city", "popular-in-city"),
        (5, "popular", "popular"),
    ]
    assert items[2]["restaurant"] == projection(SPEC, 4)
    assert items[1]["reason"]["restaurant_names"] == [SPEC.names[1]]
    assert items[2]["reason"]["restaurant_ids"] == [2]
    assert [item["id"] for item in whole["lists"]["discover"]["items"]] == [3, 4, 5]


@pytest.mark.parametrize(
    ("user", "is_known", "codes"),
    [
        (FRESH, True, ["preference", "popular", "popular"]),
        (STRANGER, False, ["popular", "popular", "popular"]),
    ],
)
def test_users_without_orders_have_a_reason_too(
    explain: Explain, user: int, is_known: bool, codes: list[str]
) -> None:
    done = explain("--user", user, "--limit", 3, "--list", "for_you", "--json")
    whole = json.loads(shown(done))
    assert whole["is_known"] is is_known
    assert whole["history"] == {"restaurants": 0, "items": []}
    reasons = [item["reason"]["code"] for item in whole["lists"]["for_you"]["items"]]
    assert reasons == codes


def test_the_table_names_everything_on_short_lines(explain: Explain) -> None:
    words = ("--list", "discover", "--list", "order_again")
    lines = shown(explain("--user", REGULAR, "--limit", 1, *words)).splitlines()
    assert lines[0].startswith(f"User {REGULAR} of Lima, snapshot ")
    assert lines[2:] == [
        "history (2 restaurants)",
        "  1  Zoë's�[31m  Ramen  Lima",
        "  … and 1 more",
        "",
        "discover (personal)",
        "  3  Restaurant 3  Ramen  Lima  personal  similar to Zoë's�[31m",
        "",
        "order_again (personal)",
        "  1  Zoë's�[31m  Ramen  Lima  personal  ordered before",
    ]


def test_an_unknown_user_is_said_to_be_one(explain: Explain) -> None:
    lines = shown(explain("--user", STRANGER, "--list", "order_again")).splitlines()
    assert "(not in the snapshot)" in lines[0]
    assert lines[2:] == [
        "history (0 restaurants)",
        "  nothing",
        "",
        "order_again (popular)",
        "  nothing",
    ]


@pytest.mark.parametrize("words", [(), ("--user", "-1"), ("--user", "1", "--list", "best")])
def test_a_wrong_call_is_a_usage_error(explain: Explain, words: tuple[str, ...]) -> None:
    assert explain(*words).returncode == 2


def test_without_a_snapshot_it_says_so(tastematch: Callable[..., Done], tmp_path: Path) -> None:
    done = tastematch("explain", "--user", "1", env={"TASTEMATCH_DATA_DIR": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["tastematch: no snapshot has been published yet"]
