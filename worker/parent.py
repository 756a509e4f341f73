"""A process that computes for another: what it sees of its environment, and that it ends with it,
even when that one is killed."""

import os
import threading
from collections.abc import Callable

SWITCHING = threading.Lock()
"""Held for the moment in which a version becomes visible and the parent is told: who ends this
process waits for it, so that what is visible is known."""


def child_environment() -> dict[str, str]:
    """This process's own, with one thread of linear algebra.

    The product's own blocks set the parallelism, and a pool of threads that nobody uses costs a
    tenth of a second at each start.
    """
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1"}


def end_with_parent(*, on_word: Callable[[], object] = lambda: None) -> None:
    """Ends this process, from now on, when the parent's end of its stdin is closed.

    `on_word` is called, in a thread of its own, whenever the parent has written something there.
    """
    threading.Thread(target=_wait_for_the_end, args=(on_word,), daemon=True).start()


def _wait_for_the_end(on_word: Callable[[], object]) -> None:
    # Not through sys.stdin: its lock would be held by this thread when the interpreter ends.
    while os.read(0, 4096):
        on_word()
    with SWITCHING:
        os._exit(1)
