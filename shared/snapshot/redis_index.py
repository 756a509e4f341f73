"""The small keys of a Redis store: pointer, candidates, complete versions, and what moves them.

Every change is one script, so that it happens whole or not at all, whoever else writes. In each
script the first write needs no memory: a full Redis refuses a script's first write where it needs
memory, and lets a script that has written come to its end.
"""

from typing import Any

from shared.snapshot.layout import (
    MAX_POINTER_BYTES,
    Keys,
    encode_pointer,
    parse_generation,
)
from shared.snapshot.manifest import is_version
from shared.snapshot.redis_connection import RedisConnection
from shared.snapshot.store import Pointer

MOVED = b"moved"
"""Somebody else moved the pointer since it was seen."""
GONE = b"gone"
"""The version is not there any more: swept before, or pruned after its completion."""

_KEYS_PER_SCAN = 500

# KEYS pointer, candidate, versions. ARGV version, generation (0: hold), pointer as it was seen.
_COMPLETE = """
if redis.call('EXISTS', KEYS[2]) == 0 then return 'gone' end
if ARGV[2] == '0' then
  redis.call('UNLINK', KEYS[2])
else
  if redis.call('GETRANGE', KEYS[1], 0, 256) ~= ARGV[3] then return 'moved' end
  redis.call('RENAME', KEYS[2], KEYS[1])
end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
return 'done'
"""

# KEYS pointer, candidate, versions. ARGV version, generation, pointer as it was seen, new pointer.
_MOVE = """
if redis.call('GETRANGE', KEYS[1], 0, 256) ~= ARGV[3] then return 'moved' end
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then return 'gone' end
redis.call('UNLINK', KEYS[2])
redis.call('SET', KEYS[1], ARGV[4])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
return 'done'
"""

# KEYS pointer, versions. ARGV version.
_FORGET = """
local pointer = redis.call('GETRANGE', KEYS[1], 0, 256)
if string.find(pointer, ARGV[1], 1, true) then return 0 end
return redis.call('HDEL', KEYS[2], ARGV[1])
"""


class RedisIndex:
    def __init__(self, connection: RedisConnection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    def pointer_bytes(self) -> bytes:
        """Empty before the first activation."""
        key = self._keys.pointer
        (data,) = self._connection.read(("GETRANGE", key, 0, MAX_POINTER_BYTES))
        return bytes(data)

    def generations(self) -> dict[str, int]:
        """Each complete version with the generation at which it was last activated, or 0."""
        (records,) = self._connection.read(("HGETALL", self._keys.versions))
        named = {name.decode("ascii", "replace"): record for name, record in records.items()}
        return {
            name: parse_generation(record) for name, record in named.items() if is_version(name)
        }

    def keys_by_version(self) -> dict[str, list[str]]:
        """All keys that a publish wrote, complete or not. Walks the database once."""
        found: dict[str, list[str]] = {}
        pattern, cursor = f"{self._keys.prefix}*", 0
        while True:
            scan = ("SCAN", cursor, "MATCH", pattern, "COUNT", _KEYS_PER_SCAN)
            ((cursor, names),) = self._connection.read(scan)
            for name in (name.decode("utf-8", "replace") for name in names):
                if version := self._keys.version_of(name):
                    found.setdefault(version, []).append(name)
            if cursor == 0:
                return found

    def begin(self, candidate: Pointer) -> bool:
        """Writes the candidate; False where the version has one already."""
        assert candidate.version is not None
        key = self._keys.candidate(candidate.version)
        (is_new,) = self._connection.write(("SET", key, encode_pointer(candidate), "NX"))
        return bool(is_new)

    def is_going_on(self, version: str) -> bool:
        (has_candidate,) = self._connection.read(("EXISTS", self._keys.candidate(version)))
        return bool(has_candidate)

    def complete(self, version: str, *, generation: int, seen: bytes) -> bytes:
        """Makes a version visible, and its candidate the pointer unless `generation` is 0.

        Returns GONE, MOVED or what is neither.
        """
        return bytes(self._run(_COMPLETE, self._names(version), version, generation, seen))

    def move(self, new: Pointer, *, seen: bytes) -> bytes:
        """Writes the pointer. Returns GONE, MOVED or what is neither."""
        version, generation = new.version, new.generation
        assert version is not None
        arguments = (version, generation, seen, encode_pointer(new))
        return bytes(self._run(_MOVE, self._names(version), *arguments))

    def forget(self, version: str) -> bool:
        """Strikes a version off, whose keys are then an orphan's; never the active one."""
        names = (self._keys.pointer, self._keys.versions)
        return bool(self._run(_FORGET, names, version))

    def stop(self, version: str) -> bool:
        """Takes an unfinished publish its candidate; False where it completed before.

        Without it the publish can no longer complete, so it cannot do so between the two commands.
        """
        _, is_complete = self._connection.write(
            ("UNLINK", self._keys.candidate(version)),
            ("HEXISTS", self._keys.versions, version),
        )
        return not is_complete

    def _names(self, version: str) -> tuple[str, ...]:
        return self._keys.pointer, self._keys.candidate(version), self._keys.versions

    def _run(self, script: str, names: tuple[str, ...], *arguments: str | bytes | int) -> Any:
        (outcome,) = self._connection.write(("EVAL", script, len(names), *names, *arguments))
        return outcome
