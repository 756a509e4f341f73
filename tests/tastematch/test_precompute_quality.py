"""What a precompute measures of itself, and what keeps a version back whose quality collapsed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from shared.db.engine import sync_engine
from shared.settings import load_settings
from tests.services.datasets import two_tastes_dataset, write_dataset
from tests.services.in_process import Done

Command = Callable[..., Done]
Env = dict[str, str]


@pytest.fixture
def env(sqlite_url: str, tmp_path: Path) -> Env:
    return {"DATABASE_URL": sqlite_url, "TASTEMATCH_DATA_DIR": str(tmp_path / "data")}


def precomputed(tastematch: Command, env: Env) -> dict[str, Any]:
    done = tastematch("precompute", "--json", env=env)
    assert done.returncode == 0, done.stderr
    manifest: dict[str, Any] = json.loads(done.stdout)
    return manifest


def shuffle_newest(env: Env, *, share: float) -> None:
    """Sends the newest orders to restaurants drawn by chance: nothing foretells them."""
    chance = random.Random(5)
    engine = sync_engine(load_settings(env))
    with engine.begin() as connection:
        ids = list(connection.scalars(text("SELECT id FROM orders ORDER BY order_date DESC")))
        restaurants = list(connection.scalars(text("SELECT id FROM restaurants ORDER BY id")))
        for order in ids[: int(share * len(ids))]:
            connection.execute(
                text("UPDATE orders SET restaurant_id = :there WHERE id = :order"),
                {"there": chance.choice(restaurants), "order": order},
            )
    engine.dispose()


def test_a_version_whose_quality_collapsed_is_held(
    tastematch: Command, env: Env, tmp_path: Path
) -> None:
    towns = two_tastes_dataset(tmp_path / "set", users_per_group=300, restaurants_per_group=40)
    assert tastematch("import", towns.folder, env=env).returncode == 0
    before = precomputed(tastematch, env)
    assert (before["state"], before["held_because"]) == ("active", [])
    quality = before["quality"]
    assert quality["sampled_orders"] == before["counts"]["orders"]
    assert quality["cut_at"] < before["data_as_of"]
    for name in ("for_you", "discover"):
        assert quality[name]["targets"] >= 200
        assert quality[name]["ndcg_at_20"] > quality[name]["baseline"]["ndcg_at_20"]
    assert before["algorithm"]["blend_trials"].keys() >= {"targets", "tried"}

    shuffle_newest(env, share=0.11)
    done = tastematch("precompute", env=env)

    assert done.returncode == 0, done.stderr
    head, figures, *reasons = done.stdout.splitlines()
    version = head.split()[1]
    assert head.startswith(f"snapshot {version} is held: ")
    assert figures.startswith("  held-out NDCG@20: for_you 0.")
    assert figures.count("city popularity 0.") == 2
    figure = quality["for_you"]["ndcg_at_20"]
    fell = f"  held because held-out NDCG@20 of for_you fell from {figure:.4f} to 0."
    assert reasons[0].startswith(fell)
    listed = json.loads(tastematch("snapshots", "list", "--json", env=env).stdout)
    assert listed["active"] == before["version"]


def test_a_shop_without_anything_to_predict_says_so(
    tastematch: Command, env: Env, tmp_path: Path
) -> None:
    folder = write_dataset(
        tmp_path / "set", restaurants=[{"id": 1, "name": "One"}], users=[{"id": 1}], orders=[]
    )
    assert tastematch("import", folder, env=env).returncode == 0
    done = tastematch("precompute", env=env)
    assert done.returncode == 0, done.stderr
    assert "  held-out NDCG@20: nothing to measure yet" in done.stdout
