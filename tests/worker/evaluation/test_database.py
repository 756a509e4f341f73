"""Splits of a real database, and every algorithm on them, as the child runs them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.errors import SchemaError, TasteMatchError
from shared.settings import load_settings
from tests.services.datasets import FIRST_ORDER_DATE, two_tastes_dataset, write_dataset
from tests.worker.test_precompute import execute, load_dataset
from worker.evaluation import child, database, held_out
from worker.evaluation.algorithms import ALGORITHMS

Env = dict[str, str]


@pytest.fixture
def env(database_url: str, tmp_path: Path) -> Env:
    return {"DATABASE_URL": database_url, "TASTEMATCH_DATA_DIR": str(tmp_path / "data")}


@pytest.fixture
def read(env: Env, tmp_path: Path) -> Callable[..., Any]:
    def run(**wanted: Any) -> Any:
        order = {
            "folder": str(tmp_path / "scratch"),
            "views": database.VIEWS,
            "train_share": 0.8,
            "validation_share": 0.1,
            "max_users": None,
            "seed": 1,
            **wanted,
        }
        Path(order["folder"]).mkdir()
        return child.read_database(order, load_settings(env), lambda done: None)

    return run


def run_algorithm(env: Env, folder: Path, answer: Any, name: str, split: str) -> Any:
    order = {"folder": str(folder), "algorithm": name, "split": split}
    order |= {"seed": 1, "counts": answer["counts"]}
    return child.run_algorithm(order, load_settings(env), lambda done: None)


def test_every_algorithm_runs_on_every_view(env: Env, read: Any, tmp_path: Path) -> None:
    two_tastes_dataset(tmp_path / "set")
    load_dataset(env, tmp_path / "set")
    answer = read()
    assert answer["counts"]["users"] == 80
    assert list(answer["splits"]) == ["time", "leave-last-out"]
    results = {}
    for split in answer["splits"]:
        for name in ALGORITHMS:
            for result in run_algorithm(env, tmp_path / "scratch", answer, name, split):
                results[split, name, result["list"]] = result
    assert len(results) == 2 * (2 * len(ALGORITHMS) - 1)
    for (split, name, list_name), result in results.items():
        users = answer["splits"][split]["users"]
        assert result["users"] == users or list_name == "discover"
        assert result["baseline"] == (name != "sharpened")
        if name == "popularity-city":
            # Nobody orders in the other group's city: half the restaurants are not in question.
            everywhere = results[split, "popularity", list_name]
            assert result["recall_at_20"] > everywhere["recall_at_20"]


def test_what_a_split_holds_is_what_the_database_says(env: Env, read: Any, tmp_path: Path) -> None:
    orders = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (3, 1), (1, 3), (1, 1), (2, 1), (3, 3)]
    folder = write_dataset(
        tmp_path / "set",
        restaurants=[
            {
                "id": 1,
                "name": "One",
                "city": "Osaka",
                "latitude": 34.5,
                "longitude": 135.5,
                "cuisine_type": "sushi|noodles",
            },
            {"id": 2, "name": "Two", "city": "Lima", "cuisine_type": "Sushi"},
            {"id": 3, "name": "Three", "is_active": False},
        ],
        users=[{"id": 1, "city": "lima"}, {"id": 2}, {"id": 3, "city": "Osaka"}],
        orders=[
            {
                "id": number,
                "user_id": user,
                "restaurant_id": restaurant,
                "order_date": FIRST_ORDER_DATE + timedelta(days=number),
            }
            for number, (user, restaurant) in enumerate(orders, start=1)
        ],
    )
    load_dataset(env, folder)
    answer = read(train_share=0.5, validation_share=0.2)
    scratch = tmp_path / "scratch"
    time = answer["splits"]["time"]
    assert (time["train_orders"], time["users"], time["repeat_share"]) == (7, 2, 1.0)
    assert time["inactive_targets"] == 1
    part = held_out.load(scratch / "time")
    assert (part.users.tolist(), part.targets.tolist()) == ([0, 1], [0, 0])
    window = held_out.load(scratch / "time-validation")
    assert (window.users.tolist(), window.targets.tolist()) == ([2], [0])
    assert window.train.orders == 5
    shop = database.load_shop(scratch, cuisine_cap=4)
    assert shop.user_cities.tolist() == [2, 0, 1]
    assert shop.restaurant_cities.tolist() == [1, 2, 0]
    assert shop.is_active.tolist() == [True, True, False]
    assert shop.cuisine_cap == 4
    facts = shop.facts
    assert np.array_equal(facts.latitudes, [34.5, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(facts.longitudes, [135.5, np.nan, np.nan], equal_nan=True)
    first, second, third = facts.cuisine_codes.tolist()
    assert first == second != third == 0


def test_users_to_judge_by_can_be_bounded(env: Env, read: Any, tmp_path: Path) -> None:
    two_tastes_dataset(tmp_path / "set")
    load_dataset(env, tmp_path / "set")
    answer = read(max_users=10)
    assert {split["judged_users"] for split in answer["splits"].values()} == {10}
    assert len(held_out.load(tmp_path / "scratch" / "time").users) == 10


def test_equal_data_give_equal_results(env: Env, read: Any, tmp_path: Path) -> None:
    two_tastes_dataset(tmp_path / "set")
    load_dataset(env, tmp_path / "set")
    found = []
    for name in ("one", "two"):
        folder = tmp_path / name
        answer = read(folder=str(folder), views=["time"], max_users=20)
        results = run_algorithm(env, folder, answer, "sharpened", "time")
        for result in results:
            assert result.pop("seconds") >= result.pop("fit_seconds") > 0
            assert result.pop("peak_rss_mb") > 20
        found.append((answer, results))
    assert found[0] == found[1]


def test_nothing_to_evaluate_is_said(env: Env, read: Any, tmp_path: Path) -> None:
    with pytest.raises(TasteMatchError, match="there are no orders to evaluate"):
        read(folder=str(tmp_path / "a"))
    folder = write_dataset(
        tmp_path / "set",
        restaurants=[{"id": 1, "name": "One"}],
        users=[{"id": 1}],
        orders=[{"id": 1, "user_id": 1, "restaurant_id": 1, "order_date": FIRST_ORDER_DATE}],
    )
    load_dataset(env, folder)
    with pytest.raises(TasteMatchError, match="nothing can be held out"):
        read(folder=str(tmp_path / "b"))
    execute(env, "DELETE FROM alembic_version")
    with pytest.raises(SchemaError):
        read(folder=str(tmp_path / "c"))


def test_one_user_with_two_orders_can_be_judged_by(env: Env, read: Any, tmp_path: Path) -> None:
    folder = write_dataset(
        tmp_path / "set",
        restaurants=[{"id": 1, "name": "One"}],
        users=[{"id": 2**62}],
        orders=[
            {
                "id": number,
                "user_id": 2**62,
                "restaurant_id": 1,
                "order_date": FIRST_ORDER_DATE + timedelta(days=number),
            }
            for number in (1, 2)
        ],
    )
    load_dataset(env, folder)
    answer = read()
    for split in answer["splits"]:
        part = held_out.load(tmp_path / "scratch" / split)
        assert (part.users.tolist(), part.targets.tolist()) == ([0], [0])
        assert np.array_equal(part.orders, [1])
        for name in ALGORITHMS:
            results = run_algorithm(env, tmp_path / "scratch", answer, name, split)
            assert [result["users"] for result in results] == [1, 0][: len(results)]
