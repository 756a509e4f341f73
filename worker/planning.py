"""What a run will need, by the counts of the database as it is."""

import math

from shared.db.engine import database_errors, sync_engine
from shared.db.schema import check_schema
from shared.errors import BudgetError
from shared.logs import get_logger
from shared.settings import Settings
from worker import extract, memory
from worker.inputs import plan_for

log = get_logger("worker.precompute")


def predict(settings: Settings) -> tuple[memory.Plan, dict[str, int]]:
    """The block sizes and predicted figures of a run, and the counts. Raises BudgetError."""
    counts = _counts(settings)
    return plan_for(settings, counts), counts


def with_reserve(settings: Settings, reserve_mb: float) -> Settings | None:
    """A budget that leaves so much to another process; None where the data need all of it."""
    smaller = settings.model_copy(
        update={"worker_memory_mb": settings.worker_memory_mb - math.ceil(reserve_mb)}
    )
    counts = _counts(settings)
    try:
        plan_for(smaller, counts, interactions=counts["orders"])  # there cannot be more
    except BudgetError as error:
        log.warning("precompute.alone", reason=error.message)
        return None
    return smaller


def _counts(settings: Settings) -> dict[str, int]:
    engine = sync_engine(settings)
    try:
        with database_errors(), extract.reading(engine) as connection:
            check_schema(connection)
            return extract.counts(connection)
    finally:
        engine.dispose()
