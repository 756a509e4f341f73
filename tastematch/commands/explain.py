"""`tastematch explain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from shared.settings import load_settings
from tastematch.active_snapshot import active_snapshot, changes_of
from tastematch.user_id import UserId

if TYPE_CHECKING:
    from api.changes import UserChanges
    from api.local_snapshot import LocalSnapshot

LISTS = ("for_you", "discover", "order_again")
MAX_LIMIT = 200
DEFAULT_LIMIT = 10
MAX_NAME_CHARS = 32

_SENTENCES = {
    "ordered-before": "ordered before",
    "similar-to": "similar to {}",
    "preference": "fits the preferences",
    "popular-in-city": "popular in {city}",
    "popular": "popular everywhere",
    "new": "new",
}


@click.command("explain", epilog="Example: tastematch explain --user 42 --list discover --limit 5")
@click.option("--user", "user_id", type=UserId(), required=True, help="User id.")
@click.option(
    "--list",
    "list_names",
    type=click.Choice(LISTS),
    multiple=True,
    help="Which list; may be given several times. Default: for_you and discover.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_LIMIT),
    default=DEFAULT_LIMIT,
    help=f"How many of each list and of the history, up to {MAX_LIMIT}; default {DEFAULT_LIMIT}.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(user_id: int, list_names: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Prints a user's history and lists with the reason for each restaurant.

    Reads the active snapshot, and what changed since, directly from the store: works with the API
    down.
    """
    import orjson

    settings = load_settings()
    with active_snapshot(settings) as snapshot:
        changes = changes_of(settings, snapshot, user_id)
        document = _explained(snapshot, user_id, list_names or LISTS[:2], limit, changes)
    if as_json:
        click.echo(orjson.dumps(document))
    else:
        _print(document)


def _explained(
    snapshot: LocalSnapshot,
    user_id: int,
    list_names: Sequence[str],
    limit: int,
    changes: UserChanges,
) -> dict[str, Any]:
    """The JSON document: the history, then the items of each list as the API's detailed form."""
    import orjson

    from api.explaining import explained_lists
    from api.serving import serve

    count = snapshot.restaurants.count
    ordered = serve(snapshot, user_id, list_name="order_again", limit=count, changes=changes)
    history = ordered.lists.order_again
    is_known = changes.refreshed is not None or (
        snapshot.users.find(user_id) is not None and not changes.is_erased
    )
    return {
        "user_id": user_id,
        "is_known": is_known,
        "city": snapshot.cities[ordered.city],
        "source": ordered.source,
        "snapshot_version": snapshot.version,
        "metadata_version": snapshot.manifest.metadata_version,
        "history": {
            "restaurants": len(history),
            "items": [orjson.loads(snapshot.projection(o)) for o in history[:limit]],
        },
        "lists": explained_lists(snapshot, user_id, list_names, limit=limit, changes=changes),
    }


def _print(document: Mapping[str, Any]) -> None:
    place = f" of {_shown(document['city'])}" if document["city"] else ""
    known = "" if document["is_known"] else " (not in the snapshot)"
    click.echo(f"User {document['user_id']}{place}{known}, snapshot {document['snapshot_version']}")
    history = document["history"]
    count = history["restaurants"]
    click.echo(f"\nhistory ({count} {'restaurant' if count == 1 else 'restaurants'})")
    _print_rows([_columns(restaurant) for restaurant in history["items"]])
    if count > len(history["items"]):
        click.echo(f"  … and {count - len(history['items'])} more")
    for name, shown in document["lists"].items():
        click.echo(f"\n{name} ({shown['source']})")
        _print_rows(
            [
                [
                    *_columns(item["restaurant"]),
                    item["source"],
                    _sentence(item["reason"], document["city"]),
                ]
                for item in shown["items"]
            ]
        )


def _columns(restaurant: Mapping[str, Any]) -> list[str]:
    texts = [_shown(restaurant[key] or "-") for key in ("name", "cuisine_type", "city")]
    return [str(restaurant["id"]), *texts]


def _sentence(reason: Mapping[str, Any], city: str | None) -> str:
    names = ", ".join(_shown(name) for name in reason["restaurant_names"])
    return _SENTENCES[reason["code"]].format(names, city=_shown(city or "the city"))


def _print_rows(rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        click.echo("  nothing")
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        click.echo("  " + "  ".join(cells).rstrip())


def _shown(text: str) -> str:
    """One short line that no terminal takes for a command."""
    line = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    return line if len(line) <= MAX_NAME_CHARS else line[: MAX_NAME_CHARS - 1] + "…"
