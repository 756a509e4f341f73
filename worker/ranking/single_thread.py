"""One BLAS thread in this process: blocks run beside each other instead, and sums keep their order.

With more threads a product of matrices adds up in an order that depends on their number.
"""

from functools import cache

import threadpoolctl


@cache
def single_blas_thread() -> None:
    """Holds for the rest of the process; cheap to call again."""
    threadpoolctl.threadpool_limits(limits=1, user_api="blas")
