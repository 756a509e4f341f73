"""`tastematch token`."""

import re
import time

import click

from shared.errors import SettingsError
from shared.settings import Settings, load_settings
from tastematch.user_id import UserId

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

_TTL = re.compile(r"([1-9][0-9]{0,8})([smhd])", re.ASCII)


class _Ttl(click.ParamType[int]):
    """Seconds, written as 30s, 15m, 1h or 7d."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        found = _TTL.fullmatch(str(value))
        if found is None:
            self.fail(f"{str(value)!r} is not a duration like 30s, 15m, 1h or 7d", param, ctx)
        return int(found[1]) * UNIT_SECONDS[found[2]]


@click.command(
    "token", epilog='Example: curl -H "Authorization: Bearer $(tastematch token --user 42)" …'
)
@click.option("--user", type=UserId(), metavar="ID", help="For that user.")
@click.option("--ttl", type=_Ttl(), default="1h", show_default=True, help="How long it is good.")
@click.option("--service", is_flag=True, help="The token of schedulers and backends.")
@click.option("--viewer", is_flag=True, help="The token that reads all and changes nothing.")
@click.pass_context
def command(ctx: click.Context, user: int | None, ttl: int, service: bool, viewer: bool) -> None:
    """Prints a bearer token: a signed one for a user, or the service or viewer token."""
    if [user is not None, service, viewer].count(True) != 1:
        raise click.UsageError("give one of --user ID, --service and --viewer")
    source = ctx.get_parameter_source("ttl")
    if user is None and source is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--ttl goes with --user: the other tokens do not expire")
    settings = load_settings()
    if user is None:
        click.echo(_fixed_token(settings, is_service=service))
        return
    from shared.tokens import issue_user_token

    click.echo(issue_user_token(settings, user_id=user, ttl_seconds=ttl, now=time.time()))


def _fixed_token(settings: Settings, *, is_service: bool) -> str:
    token = settings.service_token if is_service else settings.viewer_token
    if token is None:
        name = "TASTEMATCH_SERVICE_TOKEN" if is_service else "TASTEMATCH_VIEWER_TOKEN"
        raise SettingsError(f"{name}: is not set, so there is no such token")
    return token.get_secret_value()
