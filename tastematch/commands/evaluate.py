"""`tastematch evaluate`: how good the lists are, on orders that were held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import orjson

from shared.settings import load_settings
from worker.evaluation.run import ALGORITHMS, VIEWS, Choice, evaluate

FIGURES = (
    ("recall@20", "recall_at_20"),
    ("NDCG@20", "ndcg_at_20"),
    ("hit@10", "hit_rate_at_10"),
    ("MRR", "mrr"),
)
EXPOSURE = ("coverage", "novelty", "popular")
WIDE = 110
"""Columns of a terminal that shows what stands in the lists beside how good they are."""


@click.command(
    "evaluate",
    epilog="Example: tastematch evaluate --data yelp2018 --json",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="A folder with train.txt and test.txt (or .gz), a user and its items a line. "
    "Without it the database is evaluated.",
)
@click.option(
    "--algorithm",
    "algorithms",
    type=click.Choice(ALGORITHMS),
    multiple=True,
    help="Only this one; may be given several times.",
)
@click.option(
    "--view",
    "views",
    type=click.Choice(VIEWS),
    multiple=True,
    help="Only this split of the database; may be given several times.",
)
@click.option(
    "--train-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.8,
    show_default=True,
    help="Share of all orders, the oldest, that is learnt from.",
)
@click.option(
    "--validation-share",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Share after it on which parameters are chosen; then learnt from too. "
    "Each user's next order after both is the target.",
)
@click.option(
    "--max-users",
    type=click.IntRange(1),
    help="Judge by at most so many users, drawn by the seed.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Draws users and the resamples of the intervals.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(
    *,
    data: Path | None,
    algorithms: tuple[str, ...],
    views: tuple[str, ...],
    train_share: float,
    validation_share: float,
    max_users: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Measures ranking quality on held-out orders, beside simple baselines."""
    if train_share + validation_share > 1 - 1e-9:
        raise click.UsageError("--train-share and --validation-share leave nothing to test on")
    choice = Choice(
        data=data,
        algorithms=algorithms or ALGORITHMS,
        views=[view for view in VIEWS if not views or view in views],
        train_share=train_share,
        validation_share=validation_share,
        max_users=max_users,
        seed=seed,
    )
    with _progress_bar() as on_step:
        document = evaluate(load_settings(), choice, on_step=on_step)
    if as_json:
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    else:
        _print_document(document)


def _print_document(document: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    # A file or a pipe has no width of its own to keep to.
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    is_wide = console.width >= WIDE
    for split, about in document["splits"].items():
        console.print(_describe(split, about), soft_wrap=True)
        results = [result for result in document["results"] if result["split"] == split]
        for list_name in dict.fromkeys(result["list"] for result in results):
            shown = [result for result in results if result["list"] == list_name]
            users = f"{shown[0]['users']:,} users"
            table = Table(
                title=users if list_name is None else f"{list_name}: {users}",
                title_justify="left",
                box=box.SIMPLE_HEAD,
                show_edge=False,
                padding=(0, 1, 0, 0),
            )
            table.add_column("algorithm", no_wrap=True)
            for name, _ in FIGURES:
                table.add_column(name, justify="right", min_width=len(".123-.456"))
            for name in (*(EXPOSURE if is_wide else ()), "seconds", "peak MB"):
                table.add_column(name, justify="right")
            for result in shown:
                table.add_row(*_cells(result, is_wide=is_wide))
            console.print(table)
            console.print()
    reasons = ", ".join(f"{number:,} {what}" for what, number in document["skipped"].items())
    if reasons:
        console.print(f"left out: {reasons}", soft_wrap=True)


def _describe(split: str, about: dict[str, Any]) -> str:
    if split == "lightgcn":
        return f"{split}: {about['users']:,} users with {about['targets']:,} held-out items"
    what = (
        f"{split}: {about['train_orders']:,} orders learnt from, {about['users']:,} users with a "
        f"next order, {100 * about['repeat_share']:.1f} % of them repeats"
    )
    left_out = [
        (about["new_users"], "users without an earlier order"),
        (about["unseen_targets"], "next orders at restaurants without an earlier one"),
        (about["inactive_targets"], "at inactive restaurants"),
        (about["single_order_users"], "users with a single order"),
    ]
    reasons = ", ".join(f"{number:,} {reason}" for number, reason in left_out if number)
    return f"{what}; left out: {reasons}" if reasons else what


def _cells(result: dict[str, Any], *, is_wide: bool) -> Iterator[str]:
    yield result["algorithm"]
    for _, key in FIGURES:
        low, high = result["intervals"][key]
        yield f"{_share(result[key], 4)}\n{_share(low, 3)}-{_share(high, 3)}"
    if is_wide:
        yield f"{100 * result['coverage']:.1f} %"
        yield f"{result['novelty']:.2f}"
        yield f"{result['mean_popularity']:.1f}"
    yield f"{result['seconds']:.1f}"
    yield f"{result['peak_rss_mb']:.0f}"


def _share(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".removeprefix("0")


@contextmanager
def _progress_bar() -> Iterator[Callable[[str, float], None]]:
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step, done: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[step]}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("evaluate", total=1.0, step="")
        yield lambda step, done: progress.update(task, completed=done, step=step)
