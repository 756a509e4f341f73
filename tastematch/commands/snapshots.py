"""`tastematch snapshots`: list, activate, unpin, diff, verify, export, import.

Works on the store itself, with the API and the database down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from shared.errors import SnapshotDamaged, SnapshotError, SnapshotNotFound
from shared.settings import Settings, load_settings
from tastematch.job_progress import job_progress

if TYPE_CHECKING:
    from shared.db.audit import Action
    from shared.snapshot.store import CatalogEntry, Pointer, SnapshotStore

_COLUMNS = ("VERSION", "STATE", "CREATED", "USERS", "RESTAURANTS", "BYTES", "PINNED")

_EXAMPLE = "20261125T105812345678Z-3fa2"
_NEWER_EXAMPLE = "20261125T115812345678Z-9c1e"

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")


@click.group(
    "snapshots",
    invoke_without_command=True,
    epilog=f"Example: tastematch snapshots activate {_EXAMPLE} --pin",
)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """The published versions: list, roll back or forward, compare, check, move between machines.

    Without a subcommand it lists them.
    """
    if ctx.invoked_subcommand is None:
        _list(as_json=as_json)
    elif as_json:
        raise click.UsageError(f"write --json after {ctx.invoked_subcommand}")


@command.command("list", epilog="Example: tastematch snapshots list --json")
@json_option
def list_command(as_json: bool) -> None:
    """The published versions, newest first."""
    _list(as_json=as_json)


@command.command("activate", epilog=f"Example: tastematch snapshots activate {_EXAMPLE} --pin")
@click.argument("version")
@click.option("--pin", is_flag=True, help="Publish later snapshots without activating them.")
def activate_command(version: str, pin: bool) -> None:
    """Rolls back or forward to VERSION, after its bytes were verified. A pin stays as it is."""
    _check_form(version)
    settings = load_settings()
    with _open(settings) as store:
        pointer = store.activate(version, pin=pin)
    click.echo(f"active: {version}{_pin_note(pointer)}")
    _record(settings, action="snapshot.activate", subject=version, detail={"pin": pin})


@command.command("unpin", epilog="Example: tastematch snapshots unpin")
def unpin_command() -> None:
    """Lets the next snapshot be activated again. The active version stays as it is."""
    settings = load_settings()
    with _open(settings) as store:
        pointer = store.unpin()
    click.echo(f"active: {pointer.version or 'none'}, not pinned")
    _record(settings, action="snapshots.unpin", subject=pointer.version or "", detail={})


@command.command("verify", epilog="Example: tastematch snapshots verify --json")
@click.argument("version", required=False)
@json_option
def verify_command(version: str | None, as_json: bool) -> None:
    """Compares each part of VERSION, or of every version, with its checksum. Exit 1 on damage."""
    if version is not None:
        _check_form(version)
    with _open(load_settings()) as store:
        reports = [_verify(store, each) for each in _progress(_versions_to_verify(store, version))]
    if as_json:
        _print_json({"snapshots": reports})
    else:
        for report in reports:
            outcome = report["error"] or f"good, {report['parts']} parts, {report['bytes']:,} bytes"
            click.echo(f"{report['version']}  {outcome}")
        if not reports:
            click.echo("nothing has been published yet")
    damaged = [report["version"] for report in reports if report["error"]]
    if damaged:
        raise SnapshotDamaged(f"{len(damaged)} of {len(reports)} snapshots cannot be used")


@command.command("diff", epilog=f"Example: tastematch snapshots diff {_EXAMPLE} {_NEWER_EXAMPLE}")
@click.argument("a")
@click.argument("b")
@json_option
def diff_command(a: str, b: str, as_json: bool) -> None:
    """Compares two versions: users affected, overlap of their top 20, quality, counts."""
    from tastematch import snapshot_diff

    for version in (a, b):
        _check_form(version)
    with _open(load_settings()) as store, job_progress() as show:
        manifests = store.manifest(a), store.manifest(b)
        difference = snapshot_diff.compare(
            store, *manifests, tell=lambda done: show("comparing", done)
        )
    document = snapshot_diff.as_document(difference, *manifests)
    if as_json:
        _print_json(document)
        return
    for line in snapshot_diff.as_lines(document):
        click.echo(line)


@command.command("export", epilog=f"Example: tastematch snapshots export {_EXAMPLE} shop.snapshot")
@click.argument("version")
@click.argument("file")
def export_command(version: str, file: str) -> None:
    """Writes VERSION to FILE (`-`: standard output), which holds ids of users and their lists."""
    from tastematch.snapshot_files import PIPE, export_snapshot

    _check_form(version)
    settings = load_settings()
    with _open(settings) as store, job_progress() as show:
        manifest = export_snapshot(store, version, file, tell=show)
    size = sum(manifest.bytes.values())
    click.echo(f"exported {version}, {len(manifest.bytes)} parts, {size:,} bytes", err=file == PIPE)
    _record(settings, action="snapshot.export", subject=version, detail={"bytes": size})


@command.command("import", epilog="Example: tastematch snapshots import shop.snapshot")
@click.argument("file")
def import_command(file: str) -> None:
    """Puts the version in FILE (`-`: standard input) into the store. It is not activated."""
    from tastematch.snapshot_files import import_snapshot
    from tastematch.snapshot_notes import noted_differences

    settings = load_settings()
    with _open(settings) as store, job_progress() as show:
        manifest, outcome = import_snapshot(settings, store, file, tell=show)
        entries = store.versions()
        for line in noted_differences(settings, store, manifest):
            click.echo(line, err=True)
    version = manifest.version
    if outcome == "present":
        click.echo(f"{version} is there already: nothing was changed")
        return
    size = sum(manifest.bytes.values())
    click.echo(f"imported {version}, {size:,} bytes, held")
    click.echo(f"to serve it: tastematch snapshots activate {version}")
    newer = sum(entry.manifest.version > version for entry in entries)
    if newer >= settings.keep_snapshots:
        click.echo(
            f"{newer} newer versions are kept: unless it is active, the next precompute removes it"
        )
    _record(settings, action="snapshot.import", subject=version, detail={"bytes": size})


def _list(*, as_json: bool) -> None:
    with _open(load_settings()) as store:
        pointer = store.pointer()
        entries = store.versions()
    if as_json:
        items = [entry.manifest.as_dict() | {"state": entry.state} for entry in entries]
        _print_json({"items": items, "active": pointer.version, "pinned": pointer.is_pinned})
        return
    if not entries:
        click.echo("nothing has been published yet")
        return
    rows = [_COLUMNS, *(_row(entry, pointer) for entry in entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(map(str.ljust, row, widths)).rstrip())


def _row(entry: CatalogEntry, pointer: Pointer) -> tuple[str, ...]:
    manifest = entry.manifest
    is_pinned = pointer.is_pinned and entry.state == "active"
    return (
        manifest.version,
        entry.state,
        manifest.created_at.strftime("%Y-%m-%d %H:%M:%SZ"),
        f"{manifest.counts.get('users', 0):,}",
        f"{manifest.counts.get('restaurants', 0):,}",
        f"{sum(manifest.bytes.values()):,}",
        "pinned" if is_pinned else "",
    )


def _versions_to_verify(store: SnapshotStore, version: str | None) -> list[str]:
    """Besides the listed ones the active one: a damaged manifest keeps a version off the list."""
    if version is not None:
        return [version]
    active = store.pointer().version
    listed = [entry.manifest.version for entry in store.versions()]
    return listed if active is None or active in listed else [active, *listed]


def _verify(store: SnapshotStore, version: str) -> dict[str, Any]:
    from shared.snapshot.verification import verify_parts

    report: dict[str, Any] = {"version": version, "parts": 0, "bytes": 0, "error": None}
    try:
        manifest = store.manifest(version)
        report |= {"parts": len(manifest.bytes), "bytes": sum(manifest.bytes.values())}
        verify_parts(store, manifest)
    except SnapshotError as error:
        report["error"] = error.message
    return report


def _progress(versions: Sequence[str]) -> Iterator[str]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(
        versions,
        description="verifying",
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


@contextlib.contextmanager
def _open(settings: Settings) -> Iterator[SnapshotStore]:
    from shared.snapshot.opening import open_store

    store = open_store(settings)
    try:
        yield store
    finally:
        store.close()


def _check_form(version: str) -> None:
    from shared.snapshot.manifest import is_version

    if not is_version(version):
        raise SnapshotNotFound("there is no such snapshot; `tastematch snapshots` lists them")


def _pin_note(pointer: Pointer) -> str:
    return ", pinned: later snapshots are published but not activated" if pointer.is_pinned else ""


def _record(settings: Settings, *, action: Action, subject: str, detail: dict[str, Any]) -> None:
    """Notes what was done in the audit table; a rollback does not wait for a database."""
    from datetime import UTC, datetime

    from shared.db.audit import record_action
    from shared.db.engine import database_errors, sync_engine
    from shared.errors import DatabaseUnavailable, SchemaError

    if settings.lacks_database_file:
        return
    engine = sync_engine(settings, statement_timeout_seconds=settings.db_statement_timeout)
    try:
        with database_errors(), engine.begin() as connection:
            connection.execute(
                record_action(
                    at=datetime.now(UTC), actor="cli", action=action, subject=subject, detail=detail
                )
            )
    except (DatabaseUnavailable, SchemaError) as error:
        click.echo(f"tastematch: not noted in the audit table: {error.message}", err=True)
    finally:
        engine.dispose()


def _print_json(document: dict[str, Any]) -> None:
    import orjson

    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
