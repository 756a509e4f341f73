"""What a precompute works on: catalogue, users, tastes and orders, read in one transaction.

Reads through `extract.py` and hands each stream to what keeps it: the matrix builder, the columns
of the catalogue, the file of the metadata projection.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Engine

from shared.db.changes import certain_since
from shared.db.schema import check_schema
from shared.errors import JobFailed
from shared.jobs.clock import database_time
from shared.settings import Settings
from worker import extract, lists, memory, projection
from worker.catalogue import Catalogue, CatalogueColumns
from worker.executors import thread_count
from worker.order_sample import OrderSample
from worker.progress import Progress
from worker.ranking.discovery import rank_for
from worker.ranking.matrix import InteractionMatrix, MatrixBuilder

THREADS_FROM = 200_000
"""Interactions; with fewer a second thread costs memory and gains no second."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the database held, read in one transaction."""

    catalogue: Catalogue
    cities: extract.Cities
    users: extract.UserColumns
    tastes: dict[int, extract.Taste]
    builder: MatrixBuilder
    sample: OrderSample
    """Orders to measure quality by, closed; its file lies in the scratch folder."""
    projection: projection.Projection
    plan: memory.Plan
    changes_since: datetime
    """What was noted before is contained (`shared/db/changes.py`)."""


def plan_for(
    settings: Settings, counts: dict[str, int], *, interactions: int | None = None
) -> memory.Plan:
    """interactions: as counted; estimated from the orders when None."""
    pairs = interactions
    if pairs is None:
        pairs = round(counts["orders"] * memory.DISTINCT_SHARE)
    return memory.make_plan(
        users=counts["users"],
        restaurants=counts["restaurants"],
        orders=counts["orders"],
        interactions=interactions,
        rank=rank_for(restaurants=counts["restaurants"], interactions=pairs),
        threads=thread_count() if pairs >= THREADS_FROM else 1,
        # The same with a Dask cluster as without, so that lists are, too.
        budget_mb=settings.worker_memory_mb,
        store_budget_mb=settings.snapshot_mb,
        head_length=lists.LIST_IDS,
    )


def plan_of(settings: Settings, matrix: InteractionMatrix) -> memory.Plan:
    """Sizes by the interactions as they were counted."""
    counts = {
        "users": len(matrix.user_ids),
        "restaurants": len(matrix.restaurant_ids),
        "orders": matrix.orders,
    }
    return plan_for(settings, counts, interactions=len(matrix.restaurants))


def read_inputs(
    engine: Engine,
    settings: Settings,
    folder: Path,
    *,
    scratch: Path,
    now: datetime,
    skipped: Counter[str],
    progress: Progress,
) -> Inputs:
    with extract.reading(engine) as connection:
        check_schema(connection)
        began = database_time(connection)
        counts = extract.counts(connection)
        chosen = plan_for(settings, counts)
        cities = extract.Cities()
        catalogue, shown = _catalogue(connection, cities, folder, chosen, skipped)
        users = extract.users(connection, cities, block_rows=chosen.extract_rows)
        tastes = extract.tastes(connection, cities, block_rows=chosen.extract_rows)
        builder = MatrixBuilder(user_ids=users.ids, restaurant_ids=catalogue.ids)
        sample = OrderSample(scratch, user_ids=users.ids, restaurant_ids=catalogue.ids)
        rows = 0
        for block in extract.orders(
            connection, block_rows=chosen.extract_rows, now=now, skipped=skipped
        ):
            builder.add(
                user_ids=block.user_ids,
                restaurant_ids=block.restaurant_ids,
                epoch_seconds=block.epoch_seconds,
            )
            sample.append(block)
            rows += len(block.user_ids)
            progress.at(rows / max(1, counts["orders"]))
        sample.close()
    if not shown.restaurants:
        raise JobFailed("there are no active restaurants to recommend: import some first")
    since = certain_since(began)
    return Inputs(catalogue, cities, users, tastes, builder, sample, shown, chosen, since)


def _catalogue(
    connection: Connection,
    cities: extract.Cities,
    folder: Path,
    chosen: memory.Plan,
    skipped: Counter[str],
) -> tuple[Catalogue, projection.Projection]:
    """Reads the restaurants once: columns stay, the metadata document goes to its file."""
    columns = CatalogueColumns()

    def noted() -> Iterator[extract.RestaurantRow]:
        for row in extract.restaurants(connection, block_rows=chosen.extract_rows, skipped=skipped):
            columns.add(row, city=cities.add(row.city))
            yield row

    shown = projection.write_metadata(noted(), folder)
    return columns.catalogue(), shown
