"""Two versions side by side: users whose lists differ, and by how much; quality and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.snapshot.manifest import Manifest
from shared.snapshot.store import SnapshotReader
from tastematch.snapshot_tops import TOP, Record, UserTops

LISTS = ("for_you", "discover", "order_again")

_TELL_EVERY = 1000  # users


@dataclass(slots=True)
class ListDifference:
    users_affected: int = 0
    overlaps: float = 0.0

    def add(self, a: Sequence[int], b: Sequence[int]) -> bool:
        """Whether the two differ, in what they hold or in its order."""
        longer = max(len(a), len(b))
        self.overlaps += len(set(a).intersection(b)) / longer if longer else 1.0
        self.users_affected += a != b
        return a != b


@dataclass(slots=True)
class Difference:
    """Users are those of either version; who is in one alone gets popular lists in the other."""

    users: int = 0
    users_affected: int = 0
    users_only_in_a: int = 0
    users_only_in_b: int = 0
    restaurants_only_in_a: int = 0
    restaurants_only_in_b: int = 0
    lists: dict[str, ListDifference] = field(
        default_factory=lambda: {name: ListDifference() for name in LISTS}
    )

    def mean_overlap(self, name: str) -> float | None:
        """Of the first TOP restaurants: how many are in both, as a share of the longer list."""
        return round(self.lists[name].overlaps / self.users, 6) if self.users else None


def compare(
    store: SnapshotReader, a: Manifest, b: Manifest, *, tell: Callable[[float], None]
) -> Difference:
    """tell: is told how far it is (0-1). Raises what the store raises, and SnapshotDamaged."""
    sides = UserTops(store, a), UserTops(store, b)
    difference = Difference(
        restaurants_only_in_a=len(sides[0].known - sides[1].known),
        restaurants_only_in_b=len(sides[1].known - sides[0].known),
    )
    is_comparable = all(
        a.checksums.get(part) == b.checksums.get(part) for part in ("restaurants", "popular")
    )
    total = max(len(sides[0].users.ids) + len(sides[1].users.ids), 1)
    for number, (of_a, of_b) in enumerate(_pairs(*sides)):
        difference.users += 1
        difference.users_only_in_a += of_b is None
        difference.users_only_in_b += of_a is None
        if is_comparable and of_a == of_b:
            for each in difference.lists.values():
                each.overlaps += 1.0
        else:
            tops = [side.top(record) for side, record in zip(sides, (of_a, of_b), strict=True)]
            differs = [
                each.add(tops[0][at], tops[1][at])
                for at, each in enumerate(difference.lists.values())
            ]
            difference.users_affected += any(differs)
        if number % _TELL_EVERY == 0:
            tell(2 * number / total)
    return difference


def as_document(difference: Difference, a: Manifest, b: Manifest) -> dict[str, Any]:
    """JSON-ready: what differs, then figures of both side by side."""
    return {
        "a": a.version,
        "b": b.version,
        "users_affected": difference.users_affected,
        "mean_overlap_top_20": difference.mean_overlap("for_you"),
        "lists": {
            name: {
                "users_affected": each.users_affected,
                "mean_overlap_top_20": difference.mean_overlap(name),
            }
            for name, each in difference.lists.items()
        },
        "users": {
            "compared": difference.users,
            "only_in_a": difference.users_only_in_a,
            "only_in_b": difference.users_only_in_b,
        },
        "restaurants": {
            "only_in_a": difference.restaurants_only_in_a,
            "only_in_b": difference.restaurants_only_in_b,
        },
        "counts": _side_by_side(a.counts, b.counts),
        "quality": {
            name: _side_by_side(_figures(a, name), _figures(b, name))
            for name in ("for_you", "discover")
        },
        "bytes": {"a": sum(a.bytes.values()), "b": sum(b.bytes.values())},
        "data_as_of": {name: m.as_dict()["data_as_of"] for name, m in (("a", a), ("b", b))},
    }


def as_lines(document: dict[str, Any]) -> Iterator[str]:
    """The document for a person."""
    users, restaurants = document["users"], document["restaurants"]
    affected, compared = document["users_affected"], users["compared"]
    yield f"a: {document['a']}"
    yield f"b: {document['b']}"
    share = f" ({affected / compared:.1%})" if compared else ""
    yield f"users affected: {affected:,} of {compared:,}{share}"
    for name, found in (("users", users), ("restaurants", restaurants)):
        yield f"{name} only in a: {found['only_in_a']:,}, only in b: {found['only_in_b']:,}"
    lists = {
        name: (f"{each['users_affected']:,}", _shown(each["mean_overlap_top_20"]))
        for name, each in document["lists"].items()
    }
    yield from _table(("users affected", f"mean overlap of the top {TOP}"), lists)
    figures = {**document["counts"], "bytes": document["bytes"]}
    for name, found in document["quality"].items():
        figures |= {f"{name} {figure}": values for figure, values in found.items()}
    shown = {name: (_shown(each["a"]), _shown(each["b"])) for name, each in figures.items()}
    yield from _table(("a", "b"), shown)


def _pairs(a: UserTops, b: UserTops) -> Iterator[tuple[Record | None, Record | None]]:
    """What both versions hold of each user of either."""
    sides, at = (a, b), [0, 0]
    while True:
        heads = [
            side.users.ids[place] if place < side.users.count else None
            for side, place in zip(sides, at, strict=True)
        ]
        known = [head for head in heads if head is not None]
        if not known:
            break
        records: list[Record | None] = [None, None]
        for number, side in enumerate(sides):
            if heads[number] == min(known):
                records[number] = side.record(side.users.entry(at[number]))
                at[number] += 1
        yield records[0], records[1]
    a.end()
    b.end()


def _figures(manifest: Manifest, name: str) -> dict[str, Any]:
    """A manifest may come from another release, without figures."""
    found = manifest.quality.get(name)
    return found if isinstance(found, dict) else {}


def _side_by_side(a: dict[str, Any], b: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The numbers of both, by name; None where one does not state it."""
    names = dict.fromkeys([*a, *b])
    return {
        name: {"a": a.get(name), "b": b.get(name)}
        for name in names
        if all(_is_number(each.get(name)) or name not in each for each in (a, b))
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(figure: float | None) -> str:
    if figure is None:
        return "-"
    return f"{figure:,}" if isinstance(figure, int) else f"{figure:.4f}"


def _table(head: tuple[str, ...], rows: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    lines = [("", *head), *((name, *cells) for name, cells in rows.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *cells in lines:
        shown = [name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]
        yield "  ".join(shown).rstrip()
