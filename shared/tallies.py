"""Counts of what every request does: recording one is an addition, nothing more.

The client library's own counters take a lock and some calls for each. Here one thread, that of
the event loop, adds to plain numbers; whoever reads the metrics collects them from there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class Count:
    """One series. `value += 1` is how it counts."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Durations:
    """One series of durations in seconds, by buckets."""

    __slots__ = ("_bounds", "counts", "seconds")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.seconds += seconds


class Counts(Collector):
    """A counter: its series by the values of its labels."""

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        self._name, self._meaning, self._labels = name, meaning, labels
        self._series: dict[tuple[str, ...], Count] = {}

    def of(self, *values: str) -> Count:
        """The series of these values, made where there is none."""
        assert len(values) == len(self._labels)
        return self._series.setdefault(values, Count())

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._meaning, labels=self._labels)
        for values, count in list(self._series.items()):
            family.add_metric(values, count.value)
        yield family


class Histograms(Collector):
    """A histogram: its series by the values of its labels."""

    def __init__(self, name: str, meaning: str, bounds: Sequence[float], *labels: str) -> None:
        self._name, self._meaning, self._labels = name, meaning, labels
        self._bounds: Final = tuple(float(bound) for bound in bounds)
        self._series: dict[tuple[str, ...], Durations] = {}

    def of(self, *values: str) -> Durations:
        """The series of these values, made where there is none."""
        assert len(values) == len(self._labels)
        return self._series.setdefault(values, Durations(self._bounds))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._meaning, labels=self._labels)
        names = [*map(str, self._bounds), "+Inf"]
        for values, durations in list(self._series.items()):
            buckets, below = [], 0
            for name, count in zip(names, list(durations.counts), strict=True):
                below += count
                buckets.append((name, below))
            family.add_metric(values, buckets, durations.seconds)
        yield family
