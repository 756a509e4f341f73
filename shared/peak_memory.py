"""Resident memory, as the kernel counts it."""

import os
import resource
import sys
from pathlib import Path

_PROCESSES = Path("/proc")


def peak_rss_mb() -> float:
    """The largest resident set this process has had, in MiB.

    Linux carries `ru_maxrss` of a parent over to its child, so its own account of the process is
    read there.
    """
    peak = _high_water_mb("self")
    if peak is not None:
        return peak
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1024 * 1024) if sys.platform == "darwin" else used / 1024


def peak_rss_with_parent_mb() -> float:
    """The same, and that of the process that waits for this one; of this one where unknown."""
    return peak_rss_mb() + (_high_water_mb(str(os.getppid())) or 0.0)


def rss_mb() -> float:
    """What is resident of this process now, mapped files too, in MiB."""
    return _status_mb("self", "VmRSS:") or peak_rss_mb()


def _high_water_mb(process: str) -> float | None:
    return _status_mb(process, "VmHWM:")


def _status_mb(process: str, name: str) -> float | None:
    try:
        lines = (_PROCESSES / process / "status").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return None
