"""`tastematch config`."""

from contextlib import suppress

import click

from shared.settings import describe_settings, load_settings


@click.command("config", epilog="Example: tastematch config --json")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(as_json: bool) -> None:
    """Prints the effective settings with their source, secrets masked."""
    settings = load_settings()
    with suppress(ImportError):  # an image that serves nothing has not what keys are read with
        from shared.tokens import TokenVerifier

        TokenVerifier(settings)  # a key that cannot be used is named here, too
    rows = describe_settings(settings)
    if as_json:
        import orjson

        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        click.echo(f"{row['name']:<{width}}  {row['source']:<11}  {row['value']}")
