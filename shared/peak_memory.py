"""Peak resident memory, as the kernel counted it."""

import resource


def peak_rss_mb() -> float:
    """The largest resident set this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
