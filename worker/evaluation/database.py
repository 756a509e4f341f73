"""Reads a database into splits: one read transaction, then everything from a scratch file."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from shared.db.engine import database_errors, sync_engine
from shared.db.schema import check_schema
from shared.errors import TasteMatchError
from shared.settings import Settings
from worker import extract
from worker.catalogue import CatalogueColumns
from worker.evaluation import held_out, splits
from worker.evaluation.context import Shop
from worker.order_log import OrderLog
from worker.ranking.array_files import load_array, load_fields, save_array, save_fields
from worker.ranking.surroundings import RestaurantFacts

EXTRACT_ROWS = 10_000

TIME = "time"
VALIDATION = "time-validation"
LEAVE_LAST_OUT = "leave-last-out"
VIEWS = (TIME, LEAVE_LAST_OUT)

_FACTS = "shop"
_USER_CITIES = "shop-cities"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which splits to make. Shares are of all orders, by count."""

    views: tuple[str, ...]
    train_share: float
    validation_share: float
    max_users: int | None
    seed: int


def write_splits(
    settings: Settings,
    folder: Path,
    *,
    now: datetime,
    wanted: Wanted,
    on_progress: Callable[[float], None],
) -> dict[str, Any]:
    """Writes the splits into folders of their names, and `shop` beside them.

    Returns {"counts": ..., "splits": {view: what it holds}, "skipped": reasons}. Raises
    DatabaseUnavailable, SchemaError, or TasteMatchError where nothing can be held out.
    """
    skipped: Counter[str] = Counter()
    engine = sync_engine(settings)
    try:
        with database_errors(), extract.reading(engine) as connection:
            check_schema(connection)
            counts = extract.counts(connection)
            cities = extract.Cities()
            columns = CatalogueColumns()
            for row in extract.restaurants(connection, block_rows=EXTRACT_ROWS, skipped=skipped):
                columns.add(row, city=cities.add(row.city))
            catalogue = columns.catalogue()
            users = extract.users(connection, cities, block_rows=EXTRACT_ROWS)
            with OrderLog(
                folder / "orders",
                user_ids=users.ids,
                restaurant_ids=catalogue.ids,
            ) as log:
                read = 0
                for block in extract.orders(
                    connection, block_rows=EXTRACT_ROWS, now=now, skipped=skipped
                ):
                    log.append(block)
                    read += len(block.user_ids)
                    on_progress(0.7 * read / max(1, counts["orders"]))
    finally:
        engine.dispose()
    if not log.orders:
        raise TasteMatchError("there are no orders to evaluate: import some first")
    shop = Shop(user_cities=users.cities, facts=catalogue.facts)
    _save_shop(shop, folder)
    described = {}
    for number, (view, described_view) in enumerate(
        _write_views(log, folder, shop, wanted), start=1
    ):
        described[view] = described_view
        on_progress(0.7 + 0.3 * number / len(wanted.views))
    if log.skipped:
        skipped["orders of unknown users or restaurants"] += log.skipped
    if not any(view["judged_users"] for view in described.values()):
        raise TasteMatchError(
            "nothing can be held out: no user has an order to be judged by at a restaurant that "
            "earlier orders know"
        )
    return {
        "counts": {
            "users": len(users.ids),
            "restaurants": len(catalogue.ids),
            "orders": log.orders,
        },
        "splits": described,
        "skipped": {reason: number for reason, number in sorted(skipped.items()) if number},
    }


def load_shop(folder: Path, *, cuisine_cap: int) -> Shop:
    """What `write_splits` left in that folder."""
    return Shop(
        user_cities=load_array(folder / _USER_CITIES),
        facts=load_fields(folder, _FACTS, RestaurantFacts),
        cuisine_cap=cuisine_cap,
    )


def _save_shop(shop: Shop, folder: Path) -> None:
    save_array(folder / _USER_CITIES, shop.user_cities)
    save_fields(folder, _FACTS, shop.facts)


def _write_views(
    log: OrderLog, folder: Path, shop: Shop, wanted: Wanted
) -> Iterator[tuple[str, dict[str, Any]]]:
    """One matrix in memory at a time."""
    if TIME in wanted.views:
        cuts = splits.cut(
            log, train_share=wanted.train_share, validation_share=wanted.validation_share
        )
        if cuts.validation_from < cuts.test_from:
            part, _ = splits.hold_out_next(
                log, is_active=shop.is_active, start=cuts.validation_from, stop=cuts.test_from
            )
            held_out.save(part, folder / VALIDATION)
            del part
        part, counts = splits.hold_out_next(log, is_active=shop.is_active, start=cuts.test_from)
        yield TIME, _save(part, counts, folder / TIME, wanted, cuts)
        del part
    if LEAVE_LAST_OUT in wanted.views:
        part, counts = splits.hold_out_last(log, is_active=shop.is_active)
        yield LEAVE_LAST_OUT, _save(part, counts, folder / LEAVE_LAST_OUT, wanted, None)


def _save(
    part: held_out.HeldOut,
    counts: splits.Counts,
    folder: Path,
    wanted: Wanted,
    cuts: splits.Cuts | None,
) -> dict[str, Any]:
    if wanted.max_users is not None:
        part = held_out.sample_users(part, limit=wanted.max_users, seed=wanted.seed)
    held_out.save(part, folder)
    described = {**counts.as_dict(), "judged_users": len(part.users)}
    if cuts is not None:
        described |= {
            "train_share": wanted.train_share,
            "validation_share": wanted.validation_share,
            "validation_from_epoch": cuts.validation_from,
            "test_from_epoch": cuts.test_from,
        }
    return described
