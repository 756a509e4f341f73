"""Runs tasks on an executor and gives their results in order, never far ahead of who takes them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

R = TypeVar("R")


def run_ordered(
    executor: Executor,
    task: Callable[..., R],
    arguments: Iterable[tuple[object, ...]],
    *,
    ahead: int,
) -> Iterator[R]:
    """Yields task(*a) for each a of `arguments`, in order.

    At most `ahead` tasks are begun or done and not yet taken, so that results do not pile up where
    they are made faster than used. A task that raises ends it; those not begun are cancelled.
    """
    assert ahead > 0
    waiting: deque[Future[R]] = deque()
    try:
        for argument in arguments:
            if len(waiting) == ahead:
                yield waiting.popleft().result()
            waiting.append(executor.submit(task, *argument))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
