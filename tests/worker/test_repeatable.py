"""Equal data make equal bytes, whatever the database, the order of its rows and the process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.services.datasets import two_tastes_dataset
from tests.services.redis import RedisServer
from tests.worker.published import run_precompute
from tests.worker.test_precompute import load_dataset


def reverse_rows(folder: Path, *names: str) -> None:
    for name in names:
        header, *rows = (folder / f"{name}.csv").read_text().splitlines()
        (folder / f"{name}.csv").write_text("\n".join([header, *reversed(rows), ""]))


def test_equal_data_make_equal_parts(
    tmp_path: Path,
    sqlite_url: str,
    postgres_url: str,
    private_redis: Callable[..., RedisServer],
) -> None:
    """The second shop is on PostgreSQL and Redis, and its rows were written backwards."""
    server = private_redis()
    server.set_config("maxmemory-policy", "allkeys-lru")
    shops = {
        "first": {"DATABASE_URL": sqlite_url},
        "second": {"DATABASE_URL": postgres_url, "REDIS_URL": server.url()},
    }
    towns = two_tastes_dataset(tmp_path / "set", users_per_group=120, restaurants_per_group=40)
    outcomes = []
    for name, shop in shops.items():
        env = shop | {"TASTEMATCH_DATA_DIR": str(tmp_path / name)}
        load_dataset(env, towns.folder)
        outcomes.append(run_precompute(env))
        assert outcomes[-1].exit_status == 0, outcomes[-1].log
        reverse_rows(towns.folder, "users", "orders")
    first, second = (outcome.last["manifest"] for outcome in outcomes)

    assert first["checksums"].keys() >= {"users", "lists", "similar", "metadata_history"}
    assert second["checksums"] == first["checksums"]
    assert second["quality"] == first["quality"]
    assert second["algorithm"] == first["algorithm"]

    # The one difference is what the second store does when it is full.
    assert first["warnings"] == []
    (warning,) = second["warnings"]
    assert warning.endswith("(maxmemory-policy allkeys-lru): set noeviction")
    assert "store.hazard" in outcomes[1].log
    assert "store.hazard" not in outcomes[0].log
