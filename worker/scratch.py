"""Where a precompute builds its parts: a folder for each run, removed when the run ends."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.errors import JobFailed

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SCARCE_BYTES = 64 * 1024


@contextmanager
def scratch_folder(home: Path) -> Iterator[Path]:
    """A folder of this run's own in `home`; what killed runs left behind is removed.

    Raises JobFailed where the folder cannot be made, and where its disk gets full.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        for left in home.iterdir():
            if not _is_running(left.name.split("-")[0]):
                shutil.rmtree(left, ignore_errors=True)
        # Absolute: workers of a cluster stand in folders of their own.
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=home.absolute()))
    except OSError as error:
        raise JobFailed(f"TASTEMATCH_DATA_DIR cannot be written ({error.strerror})") from None
    try:
        yield folder
    except OSError as error:
        if _is_full(error, folder):
            raise JobFailed(
                "the disk of TASTEMATCH_DATA_DIR is full: a run builds its snapshot there, and "
                "keeps its model"
            ) from None
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_full(error: OSError, folder: Path) -> bool:
    """numpy states no errno where a file took less than it was given."""
    with suppress(OSError):
        return error.errno in _FULL or (
            error.errno is None and shutil.disk_usage(folder).free < _SCARCE_BYTES
        )
    return False


def _is_running(pid: str) -> bool:
    return pid.isdigit() and Path(f"/proc/{pid}").exists()
