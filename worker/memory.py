"""The byte budget of a precompute: what it leaves for k, blocks and heads, and what a run needs.

The figures of a plan follow from counts alone. What it predicts is the resident memory of the
whole process tree in its largest stage; every term stands beside the arrays it pays for. Nothing
here needs numpy, so a plan can be printed without loading it.
"""

from dataclasses import dataclass

from shared.errors import BudgetError

MIB = 1 << 20

PARENT_MB = 70
"""The worker or command that waits for the child."""
CHILD_MB = 105
"""The child with numpy, scipy, database driver and store client loaded, before any data."""

MAX_K = 500
MIN_K = 20
"""Neighbours a restaurant keeps in the item graph. Below the least, ranking falls apart."""
MIN_HEAD = 20

DISTINCT_SHARE = 0.75
"""Interactions in an order, where they have not been counted yet."""

ORDER_BYTES = 8
INTERACTION_BYTES = 10
TRANSPOSED_BYTES = 4
TRANSPOSING_BYTES = 6
GRAPH_BYTES = 8
USER_BYTES = 40
"""Id, offset in the matrix, city, place and source of the lists, degree, weight."""
RESTAURANT_BYTES = 400
"""Columns of the catalogue as Python objects, and the arrays beside them."""
GATHERED_BYTES = 28
"""One interaction of a block's guests: its place, id and factor."""
SKEW = 4
"""Pairs of restaurants in the histories, against as many histories of average length."""
ROW_BYTES = 300
"""One row of an extract block as Python objects, and its copy in columns."""
ENTRY_BYTES = 50
"""One scratch entry of a sparse block: index, sum, score, key and what computes them."""
SLOT_BYTES = 40
"""One place in the rankings of a block of users."""
SCRATCH_ORDERS = 1 << 19
SCRATCH_ORDER_BYTES = 40
"""Staged orders, and one slice of a bucket while building."""

_STORED_USER_BYTES = 15
_STORED_RESTAURANT_BYTES = 250
_STORED_NEIGHBOURS = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes a run keeps to, and what it will need."""

    k: int
    """Neighbours a restaurant keeps in the item graph."""
    item_block: int
    """Restaurants of a block of the graph, at most."""
    user_block: int
    """Users of a scored block, at most."""
    block_entries: int
    """Scratch entries of either block, at most."""
    extract_rows: int
    """Rows fetched from the database at a time."""
    head_length: int
    """Ids a user's record holds of for_you and of discover, at most."""
    peak_mb: float
    """Predicted peak of the process tree, MiB."""
    store_bytes: int
    """Predicted bytes of the snapshot, an upper bound."""


def make_plan(
    *,
    users: int,
    restaurants: int,
    orders: int,
    interactions: int | None = None,
    budget_mb: float,
    store_budget_mb: float,
    head_length: int,
) -> Plan:
    """Chooses the largest k and heads that the budgets allow.

    interactions: distinct pairs of user and restaurant; estimated when None. Raises BudgetError
    where the data do not fit, with the megabytes that would be needed.
    """
    pairs = round(orders * DISTINCT_SHARE) if interactions is None else interactions
    free = max(0, (budget_mb - PARENT_MB - CHILD_MB) * MIB)
    block_entries = _clamp(free / 24 / ENTRY_BYTES, 1 << 14, 1 << 18)
    user_block = _clamp(free / 32 / SLOT_BYTES / max(head_length, 1), 64, 1024)
    extract_rows = _clamp(free / 24 / ROW_BYTES, 1_000, 20_000)

    lasting = users * USER_BYTES + restaurants * RESTAURANT_BYTES
    building = (
        max(orders * ORDER_BYTES, pairs * INTERACTION_BYTES)
        + min(orders, SCRATCH_ORDERS) * SCRATCH_ORDER_BYTES
        + min(extract_rows, orders) * ROW_BYTES
    )
    transposing = pairs * (INTERACTION_BYTES + TRANSPOSING_BYTES)
    reached = SKEW * pairs * pairs // max(users, 1)
    block = min(block_entries, reached) * ENTRY_BYTES
    gathered = min(2 * block_entries, pairs) * GATHERED_BYTES
    fitting = pairs * (INTERACTION_BYTES + TRANSPOSED_BYTES) + block + gathered
    ranked = min(user_block, users) * head_length * SLOT_BYTES
    scoring = pairs * INTERACTION_BYTES + block + ranked
    beside_graph = max(fitting, scoring)

    most = min(MAX_K, max(1, restaurants - 1))
    least = min(MIN_K, most)
    for_graph = min(free - lasting - beside_graph, budget_mb * MIB / 3)
    k = min(most, max(least, int(for_graph / GRAPH_BYTES / max(restaurants, 1)) - 1))
    graph = min(restaurants * k, reached) + restaurants
    stages = (building, transposing, beside_graph + graph * GRAPH_BYTES)
    peak_mb = PARENT_MB + CHILD_MB + (lasting + max(stages)) / MIB
    if peak_mb > budget_mb:
        raise BudgetError(
            f"a precompute of {orders} orders needs about {peak_mb:.0f} MB; "
            f"TASTEMATCH_WORKER_MEMORY_MB allows {budget_mb:.0f}"
        )
    head, store_bytes = _heads(
        users=users,
        restaurants=restaurants,
        pairs=pairs,
        head_length=min(head_length, max(restaurants, 1)),
        store_budget_mb=store_budget_mb,
    )
    return Plan(
        k=k,
        item_block=256,
        user_block=user_block,
        block_entries=block_entries,
        extract_rows=extract_rows,
        head_length=head,
        peak_mb=round(peak_mb, 1),
        store_bytes=store_bytes,
    )


def _heads(
    *, users: int, restaurants: int, pairs: int, head_length: int, store_budget_mb: float
) -> tuple[int, int]:
    """(head length, bytes of the snapshot) within the store's budget."""
    width = 2 if restaurants < 65_536 else 4
    fixed = (
        users * (_STORED_USER_BYTES + 2 * width)
        + pairs * width
        + restaurants * (_STORED_RESTAURANT_BYTES + (_STORED_NEIGHBOURS + 4) * width)
    )
    for_heads = store_budget_mb * MIB - fixed
    per_id = max(1, 2 * users * width)
    head = min(head_length, max(min(MIN_HEAD, head_length), int(for_heads / per_id)))
    needed = fixed + head * per_id
    if needed > store_budget_mb * MIB:
        raise BudgetError(
            f"a snapshot of {users} users needs about {needed / MIB:.0f} MB in the store; "
            f"TASTEMATCH_SNAPSHOT_MB allows {store_budget_mb:.0f}"
        )
    return head, needed


def _clamp(value: float, low: int, high: int) -> int:
    return int(min(max(value, low), high))
