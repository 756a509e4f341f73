"""`tastematch migrate`."""

import click

from shared.settings import load_settings


@click.command("migrate", epilog="Example: DATABASE_URL=postgres://u@host/shop tastematch migrate")
def command() -> None:
    """Brings the database at DATABASE_URL to the newest schema. Safe to run twice at once."""
    from shared.db.migration import migrate

    before, after = migrate(load_settings())
    if before == after:
        click.echo(f"database is at {after}, nothing to do")
    else:
        click.echo(f"database migrated from {before or 'empty'} to {after}")
