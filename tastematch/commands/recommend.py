"""`tastematch recommend`."""

from __future__ import annotations

from typing import Any

import click

from shared.settings import load_settings
from tastematch.active_snapshot import active_snapshot, changes_of
from tastematch.user_id import UserId

LISTS = ("for_you", "discover", "order_again")
MAX_LIMIT = 200
DEFAULT_LIMIT = 20


@click.command(
    "recommend", epilog="Example: tastematch recommend --user 42 --list discover --names"
)
@click.option("--user", "user_id", type=UserId(), required=True, help="User id.")
@click.option(
    "--list", "list_name", type=click.Choice(LISTS), default=LISTS[0], help="Default: for_you."
)
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_LIMIT),
    default=DEFAULT_LIMIT,
    help=f"How many at most, up to {MAX_LIMIT}; default {DEFAULT_LIMIT}.",
)
@click.option("--names", is_flag=True, help="With name, cuisine and city of each restaurant.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(user_id: int, list_name: str, limit: int, names: bool, as_json: bool) -> None:
    """Prints a user's list from the active snapshot and what changed since, read directly from the
    store."""
    import orjson

    from api.serving import serve

    settings = load_settings()
    with active_snapshot(settings) as snapshot:
        changes = changes_of(settings, snapshot, user_id)
        served = serve(snapshot, user_id, list_name=list_name, limit=limit, changes=changes)
        ids = [snapshot.restaurants.ids[ordinal] for ordinal in served.ordinals]
        restaurants = [orjson.loads(snapshot.projection(o)) for o in served.ordinals]
        document: dict[str, Any] = {
            "user_id": user_id,
            "list": list_name,
            "source": served.source,
            "snapshot_version": snapshot.version,
            "metadata_version": snapshot.manifest.metadata_version,
            "ids": ids,
        }
    if as_json:
        if names:
            document["restaurants"] = restaurants
        click.echo(orjson.dumps(document))
    elif names:
        for restaurant in restaurants:
            known = [restaurant[key] for key in ("name", "cuisine_type", "city") if restaurant[key]]
            click.echo(f"{restaurant['id']}  {', '.join(known)}")
    else:
        for restaurant_id in ids:
            click.echo(restaurant_id)
