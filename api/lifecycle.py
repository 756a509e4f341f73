"""What the process is doing, for those who must know: whether it drains, how much is in flight."""

from dataclasses import dataclass


@dataclass(slots=True)
class Lifecycle:
    """`in_flight` counts requests that may wait for a database, store or queue."""

    is_draining: bool = False
    in_flight: int = 0
