"""Memory and CPU of a process and of all that it starts, as the kernel counts them."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import psutil

Tree = list[psutil.Process]


def process_tree(pid: int) -> Tree:
    """The process and its descendants; empty where it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def cpu_seconds(tree: Tree) -> float:
    """Of processes and of their children that have ended."""
    total = 0.0
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def ended_children_cpu_seconds() -> float:
    """Of this process's children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def resident_mb(pid: int) -> tuple[float, float]:
    """Resident set now and at its highest, MiB; zeros for a process that is gone."""
    found = {"VmRSS": 0.0, "VmHWM": 0.0}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value.split()[0]) / 1024
    return found["VmRSS"], found["VmHWM"]
