"""The `tastematch` command: its subcommands, and what an error costs.

Exit codes: 0 done, 1 failed, 2 usage, 4 a dependency cannot be reached, 5 bad data under
`--strict`. A deliberate error ends in one line on stderr; nothing else is printed about it.
Subcommands are imported when they are called, so that `tastematch --help` costs nothing.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

import click

import shared.startup  # noqa: F401 - before what is large
from shared.errors import (
    DependencyError,
    StrictDataError,
    TasteMatchError,
)

EXIT_FAILED = 1
EXIT_UNREACHABLE = 4
EXIT_BAD_DATA = 5
EXIT_INTERRUPTED = 130

_COMMANDS = {
    "config": "the effective settings with their source",
    "evaluate": "measures ranking quality on held-out orders",
    "explain": "a user's lists with the reason for each restaurant",
    "import": "imports a data set folder",
    "migrate": "brings the database to the newest schema",
    "precompute": "computes and publishes one snapshot",
    "recommend": "reads a user's list from the snapshot",
    "serve": "the HTTP API",
    "snapshots": "the published versions: list, activate, compare, verify, move",
    "token": "prints a signed bearer token",
    "trigger": "triggers a precompute job over HTTP",
    "worker": "runs background jobs",
}
_MODULES = {"import": "import_dataset"}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"tastematch.commands.{_MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tastematch")
def group() -> None:
    """Restaurant recommendations from your own orders, on very small machines."""


def main() -> None:
    """Console script. Never returns: exits with the code the outcome deserves."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    try:
        _check_own_packages()
        group.main(arguments, prog_name="tastematch", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_FAILED
    except TasteMatchError as error:
        print(f"tastematch: {error.message}", file=sys.stderr)
        return exit_code_of(error)
    return 0


def exit_code_of(error: TasteMatchError) -> int:
    if isinstance(error, StrictDataError):
        return EXIT_BAD_DATA
    if isinstance(error, DependencyError):
        return EXIT_UNREACHABLE
    return EXIT_FAILED


def _check_own_packages() -> None:
    """A foreign `worker` or `api` package on the path must not run in place of ours."""
    home = Path(__file__).resolve().parent.parent
    for name in ("api", "shared", "worker"):
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent.parent if spec and spec.origin else None
        if found is not None and found != home:
            raise TasteMatchError(f"the package `{name}` comes from elsewhere: set PYTHONPATH")


if __name__ == "__main__":
    main()
