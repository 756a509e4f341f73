"""The byte budget of a precompute: what it leaves for k, blocks and heads, and what a run needs.

The figures of a plan follow from counts alone. What it predicts is the resident memory of the
whole process tree in its largest stage; every term stands beside the arrays it pays for. Nothing
here needs numpy, so a plan can be printed without loading it.
"""

from dataclasses import dataclass, replace

from shared.errors import BudgetError

MIB = 1 << 20

PARENT_MB = 72
"""The worker or command that waits for the child."""
CHILD_MB = 98
"""The child with numpy, scipy, database driver and store client loaded, before any data."""
REFRESHER_MB = 128
"""The process that refreshes lists, beside a run: the rows that it holds are bounded."""

SPARE_MB = 22
"""Left over: what allocators keep back, or the client of a Dask cluster."""

MAX_K = 500
MIN_K = 20
"""Entries a restaurant keeps in the item filter. Below the least, ranking falls apart."""
MIN_RANK = 16
"""Patterns of the sharpened filter, at least; below, the plain graph does as well."""
RANK_STEP = 32
MIN_HEAD = 20

DISTINCT_SHARE = 0.75
"""Interactions in an order, where they have not been counted yet."""

ORDER_BYTES = 8
INTERACTION_BYTES = 10
ID_BYTES = 4
"""A restaurant of an interaction in user rows, or a user in restaurant rows."""
TRANSPOSING_BYTES = 6
FILTER_BYTES = 8
USER_BYTES = 40
"""Id, offset in the matrix, city, place and source of the lists, degree, weight."""
RESTAURANT_BYTES = 600
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
NUMBER_BYTES = 4
TILE_ROWS = 128
TILE_ENTRIES = 1 << 23
TILE_COPIES = 1.25
"""A tile, and what is computed beside it."""
SAMPLED_ENTRIES = 1 << 23
GATHERED_USERS = 64
SLOTS = 1 << 21
CANDIDATES = 1 << 16
CANDIDATE_BYTES = 200
"""A restaurant that a user might discover, and what speaks for it."""
POINT_BYTES = 16
"""A score of a block of users, and its share of the largest."""
POINTS_OF_AN_ENTRY = 6
MAX_PRODUCTS = 3_000_000_000
"""Interactions times k: what ranking all users may cost, about a minute of one core."""

_STORED_USER_BYTES = 15
_STORED_RESTAURANT_BYTES = 250
_STORED_NEIGHBOURS = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes a run keeps to, and what it will need."""

    k: int
    """Entries a restaurant keeps in the item filter."""
    rank: int
    """Patterns of the sharpened filter; 0 for the plain graph."""
    threads: int
    """Blocks computed at a time."""
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


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What memory depends on."""

    users: int
    restaurants: int
    orders: int
    pairs: int
    threads: int
    user_block: int
    block_entries: int
    extract_rows: int
    head_length: int


def make_plan(
    *,
    users: int,
    restaurants: int,
    orders: int,
    interactions: int | None = None,
    rank: int = 0,
    threads: int = 1,
    budget_mb: float,
    store_budget_mb: float,
    head_length: int,
) -> Plan:
    """Chooses the largest rank, k and heads that the budgets allow.

    interactions: distinct pairs of user and restaurant; estimated when None. rank: patterns that
    suit the data. Raises BudgetError where the data do not fit, with the megabytes that would be
    needed.
    """
    free = max(0, (budget_mb - SPARE_MB - PARENT_MB - CHILD_MB) * MIB)
    sizes = _Sizes(
        users=users,
        restaurants=restaurants,
        orders=orders,
        pairs=round(orders * DISTINCT_SHARE) if interactions is None else interactions,
        threads=threads,
        user_block=_clamp(free / 32 / SLOT_BYTES / max(head_length, 1) / threads, 64, 256),
        block_entries=_clamp(free / 24 / ENTRY_BYTES / threads, 1 << 14, 1 << 18),
        extract_rows=_clamp(free / 24 / ROW_BYTES, 1_000, 20_000),
        head_length=head_length,
    )
    most = min(MAX_K, max(1, restaurants - 1))
    least = min(MIN_K, most)
    while True:
        beside = _bytes_beside_filter(sizes)
        for_filter = min(free - beside, budget_mb * MIB / 3)
        k = min(most, max(least, int(for_filter / FILTER_BYTES / max(restaurants, 1)) - 1))
        k = min(k, max(least, MAX_PRODUCTS // max(sizes.pairs, 1)))
        needed = max(beside + _filter_bytes(sizes, k, rank), _fitting_bytes(sizes, rank))
        peak_mb = PARENT_MB + CHILD_MB + needed / MIB
        if peak_mb + SPARE_MB <= budget_mb:
            break
        if rank:
            rank = max(rank - RANK_STEP, MIN_RANK) if rank > MIN_RANK else 0
        elif sizes.threads > 1:
            sizes = replace(sizes, threads=sizes.threads - 1)
        else:
            raise BudgetError(
                f"a precompute of {orders} orders needs about {peak_mb + SPARE_MB:.0f} MB; "
                f"TASTEMATCH_WORKER_MEMORY_MB allows {budget_mb:.0f}"
            )
    head, store_bytes = _heads(
        users=users,
        restaurants=restaurants,
        pairs=sizes.pairs,
        head_length=min(head_length, max(restaurants, 1)),
        store_budget_mb=store_budget_mb,
    )
    return Plan(
        k=k,
        rank=rank,
        threads=sizes.threads,
        item_block=256,
        user_block=sizes.user_block,
        block_entries=sizes.block_entries,
        extract_rows=sizes.extract_rows,
        head_length=head,
        peak_mb=round(peak_mb, 1),
        store_bytes=store_bytes,
    )


def _lasting_bytes(sizes: _Sizes) -> float:
    return sizes.users * USER_BYTES + sizes.restaurants * RESTAURANT_BYTES


def _reached(sizes: _Sizes) -> int:
    """Pairs of restaurants that share a user."""
    return SKEW * sizes.pairs * sizes.pairs // max(sizes.users, 1)


def _filter_bytes(sizes: _Sizes, k: int, rank: int) -> float:
    entries = sizes.restaurants * k if rank else min(sizes.restaurants * k, _reached(sizes))
    return (entries + sizes.restaurants) * FILTER_BYTES


def _bytes_beside_filter(sizes: _Sizes) -> float:
    """While users are ranked: the blocks of all threads; histories come and go with them."""
    places = min(SLOTS, GATHERED_USERS * sizes.restaurants) * NUMBER_BYTES
    candidates = CANDIDATES * CANDIDATE_BYTES
    points = min(
        POINTS_OF_AN_ENTRY * sizes.block_entries,
        min(sizes.user_block, sizes.users) * sizes.restaurants,
    )
    ranked = min(sizes.user_block, sizes.users) * sizes.head_length * SLOT_BYTES
    scratch = places + candidates + points * POINT_BYTES + ranked
    return _lasting_bytes(sizes) + sizes.threads * scratch


def _fitting_bytes(sizes: _Sizes, rank: int) -> float:
    """The largest stage before users are ranked."""
    building = (
        max(sizes.orders * ORDER_BYTES, sizes.pairs * INTERACTION_BYTES)
        + min(sizes.orders, SCRATCH_ORDERS) * SCRATCH_ORDER_BYTES
        + min(sizes.extract_rows, sizes.orders) * ROW_BYTES
    )
    transposing = sizes.pairs * (ID_BYTES + TRANSPOSING_BYTES)
    block = (
        min(sizes.block_entries, _reached(sizes)) * ENTRY_BYTES
        + min(2 * sizes.block_entries, sizes.pairs) * GATHERED_BYTES
    )
    matrix = sizes.pairs * 2 * ID_BYTES
    stages: list[float] = [building, transposing, matrix + block]
    if rank:
        restaurants = sizes.restaurants
        rows = min(TILE_ROWS, max(1, TILE_ENTRIES // max(restaurants, 1)))
        tile = rows * restaurants * NUMBER_BYTES * TILE_COPIES
        patterns = rank * restaurants * NUMBER_BYTES
        stages += [
            matrix + patterns + sizes.threads * (tile + block),
            matrix + 2 * (patterns + 16 * restaurants * NUMBER_BYTES) + _iterating_bytes(sizes),
            matrix + patterns + SAMPLED_ENTRIES * NUMBER_BYTES + block,
        ]
    return _lasting_bytes(sizes) + max(stages)


def _iterating_bytes(sizes: _Sizes) -> float:
    """Three times 32 patterns, and a block of interactions, a thread."""
    return sizes.threads * (3 * 32 * sizes.restaurants * NUMBER_BYTES + 8 * MIB)


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
