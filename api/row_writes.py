"""Many rows of one table in one request: read in blocks, written block by block, told line by line.

A block is a transaction. Where the database fails in the middle the request fails, and the blocks
before stay written: sent again, their lines are `unchanged`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastapi import Request

from api.answers import Answer
from api.database import in_transaction
from api.deps import Resources
from api.ndjson import Limits, Line, Outcome, outcomes_answer, received_lines
from api.row_bodies import read_row
from shared.columns import Column
from shared.errors import FieldError

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

    from shared.db.operator_writes import Written

BLOCK_LINES: Final = 500
DEADLINE_SECONDS: Final = 10.0
"""For one block, or one row of an operator: it may have to wait behind an import."""

_REJECTED = "rejected"

Row = tuple[Any, ...]
Write = Callable[["Connection", Sequence[Row]], "Written"]


async def write_rows(
    request: Request,
    resources: Resources,
    *,
    columns: Mapping[str, Column],
    limits: Limits,
    write: Write,
    written: Callable[[Written], None],
) -> Answer:
    """`write` gets rows of (columns..., line) in a transaction; `written` is called after each.

    The first line of an id counts, later ones are rejected.
    """
    outcomes: list[Outcome] = []
    seen: set[int] = set()
    engine = await resources.open_engine()
    async with received_lines(request, limits=limits, folder=resources.settings.data_dir) as lines:
        async for block in lines.blocks(partial(read_row, columns=columns), size=BLOCK_LINES):
            given = first_of_each_id(block, seen, outcomes)
            if rows := [(*row.values(), number) for number, row in given]:
                told = await in_transaction(
                    engine, partial(_run, write, rows), deadline_seconds=DEADLINE_SECONDS
                )
                written(told)
                outcomes += [Outcome(row.line, row.id, row.outcome) for row in told.rows]
    return await outcomes_answer(outcomes)


def first_of_each_id(
    block: Sequence[Line[dict[str, Any]]], seen: set[int], outcomes: list[Outcome]
) -> list[tuple[int, dict[str, Any]]]:
    """Number and row of the lines to write; what is wrong with others is added to `outcomes`."""
    rows = []
    for line in block:
        if line.row is None:
            outcomes.append(Outcome(line.number, line.id, _REJECTED, line.errors))
        elif line.row["id"] in seen:
            again = FieldError("body", "id", "stands on an earlier line too")
            outcomes.append(Outcome(line.number, line.id, _REJECTED, (again,)))
        else:
            seen.add(line.row["id"])
            rows.append((line.number, line.row))
    return rows


async def _run(write: Write, rows: Sequence[Row], connection: AsyncConnection) -> Written:
    return await connection.run_sync(write, rows)
