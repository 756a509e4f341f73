"""What a client asks of a list: which one, how filtered, which page. And the pages' addresses.

A page begins at a position in one version of the snapshot, in lists of one revision. Its cursor is
bound to the user, the route and the filters; `limit` may change from page to page.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, NamedTuple

from api.cursors import CursorParameter, PageCursors
from api.filters import FILTER_PARAMETERS, NO_FILTERS, Filters, filters_of, query_of
from api.parameters import ChoiceParameter, IntegerParameter, read_query
from api.serving import DEFAULT_LIMIT, LISTS, MAX_LIMIT, Position

MAX_KNOWN_QUERIES = 512
MAX_KNOWN_BYTES = 512  # of a query that is remembered

PARAMETERS = (
    IntegerParameter("limit", 1, MAX_LIMIT, DEFAULT_LIMIT, "How many restaurants at most."),
    ChoiceParameter(
        "list",
        LISTS,
        "`for_you`: repeats and discoveries together. `discover`: nothing ordered before. "
        "`order_again`: what was ordered, and nothing else.",
    ),
    *FILTER_PARAMETERS,
    CursorParameter(description="Where to go on: what the `Link` of the page before says."),
)

_CURSOR = b"&cursor="
_CURSOR_FORM = re.compile(rb"[A-Za-z0-9_-]+")


class ListQuery(NamedTuple):
    """`text` is the query in one form for all spellings, without limit and cursor.

    `tag` names list and limit in an ETag, `filter_tag` the filters.
    """

    list_name: str
    limit: int
    filters: Filters
    excluded: frozenset[int]
    text: bytes
    tag: bytes
    filter_tag: bytes


_known: dict[bytes, ListQuery] = {}


def read_list_query(raw: bytes) -> tuple[ListQuery, str | None]:
    """The query and its cursor. Raises InvalidInput, MalformedInput."""
    known = _known.get(raw)
    if known is not None:
        return known, None
    # As a `Link` has it: the rest may well be known.
    rest, mark, cursor = raw.rpartition(_CURSOR)
    is_last = bool(mark) and _CURSOR_FORM.fullmatch(cursor) is not None
    if is_last and (known := _known.get(rest)) is not None:
        return known, cursor.decode("ascii")
    values = read_query(raw, PARAMETERS)
    query = _query_of(values)
    kept = rest if is_last else raw
    if (is_last or values["cursor"] is None) and len(kept) <= MAX_KNOWN_BYTES:
        if len(_known) >= MAX_KNOWN_QUERIES:
            del _known[next(iter(_known))]
        _known[kept] = query
    return query, values["cursor"]


def seal_page(
    cursors: PageCursors,
    route: bytes,
    user_id: int,
    query: ListQuery,
    *,
    version: bytes,
    position: Position,
    revision: int = 0,
) -> bytes:
    """The cursor of the page that begins there, in the user's lists of that revision."""
    place = b"%b %d %d" % (version, *position)
    if revision:  # where it is 0, the release before reads the cursor too
        place += b" %d" % revision
    return cursors.seal(b"%b %d %b" % (route, user_id, query.text), place)


def open_page(
    cursors: PageCursors, route: bytes, user_id: int, query: ListQuery, cursor: str
) -> tuple[str, Position, int]:
    """The version, the position and the revision that were sealed. Raises MalformedInput."""
    place = cursors.open(b"%b %d %b" % (route, user_id, query.text), cursor)
    version, stage, offset, *revision = place.decode("ascii").split(" ")
    return version, Position(int(stage), int(offset)), int(revision[0]) if revision else 0


def _query_of(values: dict[str, Any]) -> ListQuery:
    filters = filters_of(values)
    excluded = frozenset(values["exclude"])
    filtered = query_of(filters, excluded).encode()
    list_name = values["list"].encode()
    return ListQuery(
        values["list"],
        values["limit"],
        NO_FILTERS if filters.is_empty else filters,
        excluded,
        text=b"list=" + list_name + (b"&" + filtered if filtered else b""),
        tag=b"%b.%d" % (list_name, values["limit"]),
        filter_tag=b".f%b" % hashlib.sha256(filtered).hexdigest()[:16].encode()
        if filtered
        else b"",
    )
