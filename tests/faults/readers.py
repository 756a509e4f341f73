"""Readers of an API while something fails behind it, and the judgement on what they got."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from tests.journeys.shop import Api

Whole = Mapping[str, bytes]  # path -> what a version answers


@dataclass(slots=True)
class Readings:
    """Every different answer that was given, by path and version; and how often one failed."""

    answers: set[tuple[str, str, bytes]] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    count: int = 0

    def are_whole(self, versions: Mapping[str, Whole]) -> None:
        """Fails unless every answer was that of one of these versions."""
        assert not self.failures, self.failures[:3]
        assert self.count > len(versions)
        for path, version, content in self.answers:
            assert version in versions, f"{path} came from {version}, which was never published"
            assert content == versions[version][path], f"{path} is not that of {version}"


def read_whole(api: Api, paths: Sequence[str]) -> Whole:
    return {path: api.as_service(path).content for path in paths}


@contextmanager
def reading(api: Api, paths: Sequence[str]) -> Iterator[Readings]:
    """Reads the paths in turn, again and again, for as long as the block."""
    readings, stop = Readings(), threading.Event()
    authorization = {"Authorization": f"Bearer {api.service_token}"}

    def read() -> None:
        with httpx.Client(base_url=api.url, headers=authorization) as client:
            # A pause, or the readers take the processor from what they are to outlast.
            while not stop.wait(0.2):
                for path in paths:
                    _note(readings, path, client)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield readings
    finally:
        stop.set()
        thread.join()


def _note(readings: Readings, path: str, client: httpx.Client) -> None:
    readings.count += 1
    try:
        answer = client.get(path)
    except httpx.HTTPError as error:
        readings.failures.append(f"{path}: {error!r}")
        return
    if answer.status_code != httpx.codes.OK:
        readings.failures.append(f"{path}: {answer.status_code} {answer.text}")
        return
    readings.answers.add((path, answer.headers["X-Snapshot-Version"], answer.content))
