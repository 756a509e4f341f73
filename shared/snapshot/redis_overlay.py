"""The overlay in Redis: two keys a log, changed and read by scripts that are whole or nothing.

A log is a sorted set (key -> place) and a hash (key -> sealed record) whose field without a name
holds the last place and the bytes. Where a server dropped one of the two, the log counts as lost:
it reads as empty, and the next append begins it anew. Keys are in docs/snapshot-format.md.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import SnapshotDamaged
from shared.snapshot.overlay import (
    ENTRY_BYTES,
    MAX_RECORD_BYTES,
    MAX_RECORDS,
    READ_BYTES,
    SEAL_BYTES,
    Entry,
    seal,
    unseal,
)
from shared.snapshot.redis_connection import RedisConnection

_STATE = re.compile(rb"([0-9]{1,16}) ([0-9]{1,16})")

# In each script the first write is refused where memory ran out; the rest then does not happen.
# A script that has written comes to its end, so an append is whole.

# KEYS places, records. The state, or nothing where the log is lost: last place, bytes.
_LOOK = """
local last, size = string.match(redis.call('HGET', KEYS[2], '') or '', '^(%d+) (%d+)$')
last, size = tonumber(last), tonumber(size)
local is_whole = size and redis.call('ZCARD', KEYS[1]) == redis.call('HLEN', KEYS[2]) - 1
"""

# KEYS places, records, logs. ARGV log, bytes beside each entry, then key, record, ...
_APPEND = (
    _LOOK
    + """
if not is_whole then size = 0 end
local time = redis.call('TIME')
local place = math.max((last or 0) + 1, time[1] * 1000000 + time[2]) - 1
for i = 3, #ARGV, 2 do
  size = size + #ARGV[i] + #ARGV[i + 1] + ARGV[2]
  local old = is_whole and redis.call('HGET', KEYS[2], ARGV[i])
  if old then size = size - #ARGV[i] - #old - ARGV[2] end
end
local state = string.format('%.0f %.0f', place + (#ARGV - 2) / 2, math.max(size, 0))
redis.call('SADD', KEYS[3], ARGV[1])
if not is_whole then redis.call('UNLINK', KEYS[1], KEYS[2]) end
redis.call('HSET', KEYS[2], '', state)
for i = 3, #ARGV, 2 do
  place = place + 1
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  redis.call('ZADD', KEYS[1], string.format('%.0f', place), ARGV[i])
end
return string.format('%.0f', place)
"""
)

# KEYS places, records. ARGV after, limit, bytes of an answer, bytes of a record.
_READ = (
    _LOOK
    + """
if not is_whole then return {} end
local answer, room = {}, tonumber(ARGV[3])
local found = redis.call('ZRANGE', KEYS[1], '(' .. ARGV[1], '+inf', 'BYSCORE',
                         'LIMIT', 0, ARGV[2], 'WITHSCORES')
for i = 1, #found, 2 do
  local length = redis.call('HSTRLEN', KEYS[2], found[i])
  room = room - length
  if i > 1 and room < 0 then break end
  local fits = #found[i] < 256 and length <= tonumber(ARGV[4])
  table.insert(answer, fits and found[i] or '')
  table.insert(answer, found[i + 1])
  table.insert(answer, fits and redis.call('HGET', KEYS[2], found[i]) or '')
end
return answer
"""
)

# KEYS places, records. ARGV bytes beside each entry, then keys.
_REMOVE = (
    _LOOK
    + """
if not is_whole then return 0 end
local removed = 0
for i = 2, #ARGV do
  local length = redis.call('HSTRLEN', KEYS[2], ARGV[i])
  if redis.call('ZREM', KEYS[1], ARGV[i]) == 1 then
    redis.call('HDEL', KEYS[2], ARGV[i])
    size, removed = size - #ARGV[i] - length - ARGV[1], removed + 1
  end
end
if removed > 0 then
  redis.call('HSET', KEYS[2], '', string.format('%.0f %.0f', last, math.max(size, 0)))
end
return removed
"""
)


@dataclass(frozen=True, slots=True)
class OverlayKeys:
    """Names of what the overlay holds. `namespace` has no colon and no wildcard."""

    namespace: str

    @property
    def logs(self) -> str:
        return f"{self.namespace}:overlay:logs"

    def places(self, log: str) -> str:
        return f"{self.namespace}:overlay:places:{log}"

    def records(self, log: str) -> str:
        return f"{self.namespace}:overlay:records:{log}"


class RedisOverlay:
    """Implements `OverlayWriter`. Threads may share it."""

    def __init__(self, url: str, *, namespace: str) -> None:
        self._keys = OverlayKeys(namespace)
        self._connection = RedisConnection(url)

    def read(self, log: str, *, after: int, limit: int) -> list[Entry]:
        arguments = (after, min(limit, MAX_RECORDS), READ_BYTES, MAX_RECORD_BYTES + SEAL_BYTES)
        command = ("EVAL", _READ, 2, self._keys.places(log), self._keys.records(log), *arguments)
        (answer,) = self._connection.read(command)
        found = iter(answer)
        return [_entry(*each) for each in zip(found, found, found, strict=True)]

    def append(self, log: str, records: Mapping[str, bytes]) -> int:
        assert 0 < len(records) <= MAX_RECORDS
        arguments: list[str | bytes | int] = [log, ENTRY_BYTES]
        for key, record in records.items():
            arguments += (key, seal(key, record))
        names = (self._keys.places(log), self._keys.records(log), self._keys.logs)
        (place,) = self._connection.write(("EVAL", _APPEND, 3, *names, *arguments))
        return int(place)

    def logs(self) -> list[str]:
        (names,) = self._connection.read(("SMEMBERS", self._keys.logs))
        return sorted(name.decode("utf-8", "replace") for name in names)

    def size_bytes(self, log: str) -> int:
        (state,) = self._connection.read(("HGET", self._keys.records(log), ""))
        found = _STATE.fullmatch(state or b"")
        return 0 if found is None else int(found[2])

    def remove(self, log: str, keys: Sequence[str]) -> None:
        names = (self._keys.places(log), self._keys.records(log))
        for start in range(0, len(keys), MAX_RECORDS):
            batch = keys[start : start + MAX_RECORDS]
            self._connection.write(("EVAL", _REMOVE, 2, *names, ENTRY_BYTES, *batch))

    def drop(self, log: str) -> None:
        # In this order: what was struck off the list of logs and is still there, nobody would drop.
        self._connection.write(
            ("UNLINK", self._keys.records(log), self._keys.places(log)),
            ("SREM", self._keys.logs, log),
        )

    def close(self) -> None:
        self._connection.close()


def _entry(key: bytes, place: bytes, sealed: Any) -> Entry:
    try:
        name, number = key.decode("ascii"), int(place)
    except ValueError:
        raise SnapshotDamaged("an overlay has a key of an unknown form") from None
    return Entry(number, name, unseal(name, sealed or b""))
