"""The progress bar of a job on a terminal; nothing where standard error is a file or a pipe."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def job_progress() -> Iterator[Callable[[str, float], None]]:
    """Gives a function that shows what the job does ("running lists") and how far it is (0-1)."""
    if not sys.stderr.isatty():
        yield lambda doing, progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("queued", total=1.0)
        yield lambda doing, progress: bar.update(task, completed=progress, description=doing)
