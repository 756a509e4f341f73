"""`tastematch import`: counts, options and messages, on both databases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from tastematch import importer
from tests.services.datasets import two_tastes_dataset, write_dataset
from tests.services.processes import REPOSITORY
from tests.tastematch.importing import Importing, Outcome

Write = Callable[..., Path]

RESTAURANTS = "1,Nonna,Pizza,,4.5,2,Rome,,,,\n2,Mori,Ramen,,,,Osaka,,,,false\n"
USERS = "5,Ada,,Rome\n6,Bo,,Osaka\n"
ORDERS = "9,5,1,2026-01-31T18:30:00Z,12.50,4\n10,6,2,2026-02-01T12:00:00Z,,\n"
NOTHING: dict[str, list[tuple[object, ...]]] = {"restaurants": [], "users": [], "orders": []}


@pytest.fixture
def small_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are several merges."""
    monkeypatch.setattr(importer, "BLOCK_ROWS", 100)
    monkeypatch.setattr(importer, "MERGE_ROWS", 500)


def assert_one_line(outcome: Outcome, code: int) -> None:
    assert outcome.code == code, outcome.stderr
    assert outcome.stdout == ""
    assert outcome.stderr.startswith("tastematch: ")
    assert outcome.stderr.count("\n") == 1


def assert_all(outcome: Outcome, place: int, rows: dict[str, int]) -> None:
    """All rows of each file were imported (0), updated (1), unchanged (2) or rejected (3)."""
    expected = {f: tuple(n if i == place else 0 for i in range(4)) for f, n in rows.items()}
    assert (outcome.code, outcome.summary) == (0, expected), outcome.stderr


class TestCounts:
    def test_a_second_import_changes_nothing(self, importing: Importing, data: Write) -> None:
        folder = data(restaurants=RESTAURANTS, users=USERS, orders=ORDERS)
        rows = {"restaurants.csv": 2, "users.csv": 2, "orders.csv": 2}
        assert_all(importing(folder), 0, rows)
        stored = importing.everything()
        assert_all(importing(folder), 2, rows)
        assert importing.everything() == stored

    def test_changed_rows_are_updated(self, importing: Importing, data: Write) -> None:
        importing(data(restaurants=RESTAURANTS, users=USERS, orders=ORDERS))
        outcome = importing(
            data(
                restaurants=RESTAURANTS.replace("4.5", "") + "3,New,,,,,,,,,\n",
                users=USERS.replace("Osaka", "Kyoto"),
                orders=ORDERS.replace("12.50", "12.51").replace("12:00:00Z", "12:00:01Z"),
            )
        )
        assert outcome.summary == {
            "restaurants.csv": (1, 1, 1, 0),
            "users.csv": (0, 1, 1, 0),
            "orders.csv": (0, 2, 0, 0),
        }
        assert importing.stored("restaurants", "id rating") == [(1, None), (2, None), (3, None)]
        assert importing.stored("users", "id city") == [(5, "Rome"), (6, "Kyoto")]
        amounts = [row[0] for row in importing.stored("orders", "total_amount")]
        assert amounts[1] is None
        assert float(amounts[0]) == 12.51

    def test_amounts_are_kept_to_four_decimals(self, importing: Importing, data: Write) -> None:
        folder = data(
            restaurants=RESTAURANTS,
            users=USERS,
            orders="1,5,1,2026-01-01T00:00:00Z,9999999999.9999,\n"
            "2,5,1,2026-01-01T00:00:00.123456Z,0.1,\n",
        )
        importing(folder)
        amounts = [float(row[0]) for row in importing.stored("orders", "total_amount")]
        assert amounts == [9999999999.9999, 0.1]
        assert_all(importing(folder), 2, {"restaurants.csv": 2, "users.csv": 2, "orders.csv": 2})

    def test_orders_of_the_unknown_are_rejected(self, importing: Importing, data: Write) -> None:
        outcome = importing(
            data(
                restaurants=RESTAURANTS,
                users=USERS,
                orders="1,7,1,2026-01-01T00:00:00Z,,\n2,5,3,2026-01-01T00:00:00Z,,\n"
                "3,7,3,2026-01-01T00:00:00Z,,\n4,5,1,2026-01-01T00:00:00Z,,\n",
            )
        )
        assert outcome.summary["orders.csv"] == (1, 0, 0, 3)
        assert outcome.stderr.splitlines() == [
            "orders.csv, line 2: there is no user 7",
            "orders.csv, line 3: there is no restaurant 3",
            "orders.csv, line 4: there is no user 7",
        ]
        assert importing.ids("orders") == [4]

    def test_orders_may_name_what_an_earlier_folder_held(
        self, importing: Importing, data: Write
    ) -> None:
        importing(data(restaurants=RESTAURANTS, users=USERS))
        assert_all(importing(data(orders=ORDERS)), 0, {"orders.csv": 2})

    def test_without_a_users_file_users_are_added_by_id(
        self, importing: Importing, data: Write
    ) -> None:
        importing(data(restaurants=RESTAURANTS, users=USERS))
        outcome = importing(
            data(orders=ORDERS.replace("10,6", "10,8") + "11,77,3,2026-01-01T00:00:00Z,,\n")
        )
        assert outcome.summary == {"orders.csv": (2, 0, 0, 1)}
        assert outcome.stderr == "orders.csv, line 4: there is no restaurant 3\n"
        # The user of the rejected order is not among them.
        assert importing.stored("users") == [
            (5, "Ada", None, "Rome"),
            (6, "Bo", None, "Osaka"),
            (8, None, None, None),
        ]

    @pytest.mark.usefixtures("small_merges")
    def test_counts_over_several_merges(self, importing: Importing, tmp_path: Path) -> None:
        count = importer.MERGE_ROWS + importer.BLOCK_ROWS + 1
        lines = [f"{number},User {number}" for number in range(count, 0, -1)]
        lines[-1] = f"{count},again"
        (tmp_path / "big").mkdir()
        path = tmp_path / "big" / "users.csv"
        path.write_text("id,name\n" + "\n".join(lines))
        assert importing(path.parent).summary == {"users.csv": (count - 1, 0, 0, 1)}
        lines[0], lines[-2] = f"{count},changed", "2,changed"
        path.write_text("id,name\n" + "\n".join(lines))
        assert importing(path.parent).summary == {"users.csv": (0, 2, count - 3, 1)}
        assert importing.stored("users", "id name")[0] == (2, "changed")

    def test_a_generated_data_set(self, importing: Importing, tmp_path: Path) -> None:
        two_tastes_dataset(tmp_path / "tastes", users_per_group=20, restaurants_per_group=12)
        first = importing(tmp_path / "tastes")
        assert first.stderr == ""
        assert first.summary["restaurants.csv"] == (24, 0, 0, 0)
        assert first.summary["users.csv"] == (40, 0, 0, 0)
        assert first.summary["orders.csv"][0] == len(importing.ids("orders")) >= 240

    def test_unknown_columns_give_one_notice(self, importing: Importing, tmp_path: Path) -> None:
        folder = write_dataset(tmp_path / "set", users=[{"id": 1, "phone": "1"}])
        outcome = importing(folder)
        assert_all(outcome, 0, {"users.csv": 1})
        assert outcome.stderr == "users.csv: unknown columns are left out: 'phone'\n"


@pytest.mark.parametrize("name", ["entree", "nyc-visits"])
def test_the_sample_data(importing: Importing, name: str) -> None:
    folder = REPOSITORY / "data" / name
    outcome = importing(folder)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert {counts[1:] for counts in outcome.summary.values()} == {(0, 0, 0)}
    stored = importing.everything()
    for table, rows in stored.items():
        assert outcome.summary[f"{table}.csv.gz"][0] == len(rows) > 3000

    dirty = importing(folder / "dirty")

    assert_all(dirty, 3, {"orders.csv": 300})
    assert dirty.stderr.count("\n") == 300
    assert importing.everything() == stored


class TestOptions:
    @pytest.mark.usefixtures("small_merges")
    def test_strict_stops_at_the_first_bad_row_and_writes_nothing(
        self, importing: Importing, data: Write
    ) -> None:
        many = "".join(f"{number},User,,\n" for number in range(100, 100 + importer.MERGE_ROWS))
        folder = data(
            restaurants=RESTAURANTS, users=USERS + many, orders=ORDERS + "x,5,1,,,\ny,5,1,,,\n"
        )
        outcome = importing(folder, "--strict")
        assert_one_line(outcome, 5)
        assert "orders.csv, line 4: id 'x' is not a whole number" in outcome.stderr
        assert importing.everything() == NOTHING

    @pytest.mark.parametrize("orders", ["9,5,3,2026-01-31T18:30:00Z,,\n", ORDERS + ORDERS])
    def test_strict_stops_at_what_needs_other_rows(
        self, importing: Importing, data: Write, orders: str
    ) -> None:
        folder = data(restaurants=RESTAURANTS, users=USERS, orders=orders)
        assert_one_line(importing(folder, "--strict"), 5)
        assert importing.everything() == NOTHING

    def test_strict_with_good_rows_imports_them(self, importing: Importing, data: Write) -> None:
        folder = data(restaurants=RESTAURANTS, users=USERS, orders=ORDERS)
        rows = {"restaurants.csv": 2, "users.csv": 2, "orders.csv": 2}
        assert_all(importing(folder, "--strict"), 0, rows)
        assert_all(importing(folder, "--strict"), 2, rows)

    def test_dry_run_counts_and_writes_nothing(self, importing: Importing, data: Write) -> None:
        folder = data(
            restaurants=RESTAURANTS, orders=ORDERS + "11,5,3,2026-01-01T00:00:00Z,,\n11,,,,,\n"
        )
        outcome = importing(folder, "--dry-run")
        assert outcome.code == 0
        assert outcome.summary == {"restaurants.csv": (2, 0, 0, 0), "orders.csv": (2, 0, 0, 2)}
        assert "(dry run)" in outcome.stdout
        assert importing.everything() == NOTHING
        importing(folder)
        stored = importing.everything()
        changed = data(restaurants=RESTAURANTS.replace("Nonna", "Nonno"), orders=ORDERS)
        assert importing(changed, "--dry-run").summary["restaurants.csv"] == (0, 1, 1, 0)
        assert importing.everything() == stored

    def test_errors_keeps_every_bad_row(
        self, importing: Importing, data: Write, tmp_path: Path
    ) -> None:
        path = tmp_path / "bad.jsonl"
        outcome = importing(data(users="1,,,\n" + "x,,,\n" * 1500 + "1,,,\n"), "--errors", path)
        assert outcome.summary == {"users.csv": (1, 0, 0, 1501)}
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row["line"] for row in rows] == list(range(3, 1504))
        assert rows[-1] == {
            "file": "users.csv",
            "line": 1503,
            "reason": "id 1 stands on an earlier line too",
        }

    def test_strict_keeps_the_bad_row_it_stops_at(
        self, importing: Importing, data: Write, tmp_path: Path
    ) -> None:
        path = tmp_path / "bad.jsonl"
        outcome = importing(data(users="1,,,\nx,,,\ny,,,\n"), "--strict", "--errors", path)
        assert_one_line(outcome, 5)
        assert [json.loads(line)["line"] for line in path.read_text().splitlines()] == [3]

    def test_json_is_one_document(self, importing: Importing, data: Write) -> None:
        folder = data(restaurants=RESTAURANTS, users=USERS, orders=ORDERS + "x,,,,,\n")
        outcome = importing(folder, "--json")
        document = json.loads(outcome.stdout)
        counts = [(f["file"], f["imported"], f["rejected"]) for f in document["files"]]
        assert counts == [("restaurants.csv", 2, 0), ("users.csv", 2, 0), ("orders.csv", 2, 1)]
        assert [(row["file"], row["line"]) for row in document["bad_rows"]] == [("orders.csv", 4)]
        assert document["dry_run"] is False
        assert 0 < document["peak_rss_mb"] < 1000
        assert 0 < document["files"][2]["seconds"] < document["seconds"]


class TestFailures:
    def test_no_such_folder(self, importing: Importing, tmp_path: Path) -> None:
        outcome = importing(tmp_path / "missing")
        assert_one_line(outcome, 1)
        assert "there is no folder" in outcome.stderr

    def test_an_errors_file_that_cannot_be_written(
        self, importing: Importing, data: Write, tmp_path: Path
    ) -> None:
        outcome = importing(data(users=USERS), "--errors", tmp_path / "missing" / "bad.jsonl")
        assert_one_line(outcome, 1)
        assert "bad.jsonl cannot be written" in outcome.stderr
        assert importing.everything() == NOTHING

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
    def test_an_errors_file_on_a_full_disk(self, importing: Importing, data: Write) -> None:
        outcome = importing(data(users="x,,,\n" * 3), "--errors", "/dev/full")
        assert outcome.code == 1
        assert outcome.stderr.splitlines()[-1] == (
            "tastematch: /dev/full cannot be written: No space left on device"
        )

    def test_a_database_without_tables(self, importing: Importing, data: Write) -> None:
        with importing.engine.begin() as connection:
            of_users = ("orders", "preferences", "idempotency_keys", "hidden_restaurants")
            for table in (*of_users, "users", "restaurants", "alembic_version"):
                connection.execute(text(f"DROP TABLE {table}"))
        outcome = importing(data(users=USERS))
        assert_one_line(outcome, 1)
        assert "run `tastematch migrate`" in outcome.stderr

    def test_cut_off_gzip_data_keeps_the_rows_before(
        self, importing: Importing, tmp_path: Path
    ) -> None:
        folder = tmp_path / "cut"
        folder.mkdir()
        source = REPOSITORY / "data" / "entree" / "users.csv.gz"
        shutil.copyfile(source, folder / "users.csv.gz")
        (folder / "users.csv.gz").write_bytes(source.read_bytes()[: source.stat().st_size // 2])
        outcome = importing(folder)
        assert_one_line(outcome, 1)
        assert "users.csv.gz: the gzip data is damaged or cut off" in outcome.stderr
