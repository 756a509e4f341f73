"""Validators and content negotiation: If-None-Match (RFC 9110, 13.1.2), Accept-Encoding (12.5.3).

Both are answered from prepared bytes: nothing here compresses or hashes a body per request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from shared.errors import NotAcceptable

IDENTITY = b"identity"
MAX_NEGOTIATED = 256  # distinct Accept-Encoding values whose outcome is remembered

_ENTITY_TAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_CODING = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)"
    rb"(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?"
)
_ALIASES = {b"x-gzip": b"gzip"}


def is_match(if_none_match: bytes | None, etag: bytes) -> bool:
    """Whether the client holds `etag` already, by weak comparison.

    if_none_match: the field's value, several lines joined by commas.
    """
    if if_none_match is None:
        return False
    if if_none_match == etag:
        return True
    return if_none_match.strip(b" \t") == b"*" or etag in _ENTITY_TAG.findall(if_none_match)


class Negotiator:
    """Chooses among the content codings of one resource, the preferred one first."""

    def __init__(self, codings: Sequence[bytes]) -> None:
        assert IDENTITY in codings, "every resource has an uncompressed form"
        self._codings = tuple(codings)
        self._chosen: dict[bytes, bytes] = {}

    def choose(self, accept_encoding: bytes | None) -> bytes:
        """The coding of highest quality that exists. Raises NotAcceptable when none is allowed.

        Without the field the answer is not encoded: a client that does not ask may not decode.
        """
        if accept_encoding is None:
            return IDENTITY
        chosen = self._chosen.get(accept_encoding)
        if chosen is None:
            chosen = _best(accept_encoding, self._codings)
            if len(self._chosen) < MAX_NEGOTIATED and len(accept_encoding) <= MAX_NEGOTIATED:
                self._chosen[accept_encoding] = chosen
        return chosen


def _best(accept_encoding: bytes, codings: Sequence[bytes]) -> bytes:
    qualities = _qualities(accept_encoding)
    anything_else = qualities.get(b"*")
    best, best_quality = b"", 0.0
    for coding in codings:
        quality = qualities.get(coding, anything_else)
        if quality is None:
            # Identity needs no mention to be acceptable, yet any coding asked for comes first.
            quality = 0.0001 if coding == IDENTITY else 0.0
        if quality > best_quality:
            best, best_quality = coding, quality
    if not best:
        raise NotAcceptable("Accept-Encoding allows none of " + b", ".join(codings).decode())
    return best


def _qualities(accept_encoding: bytes) -> dict[bytes, float]:
    """Members that are not well-formed are passed over."""
    qualities: dict[bytes, float] = {}
    for member in accept_encoding.split(b","):
        found = _CODING.fullmatch(member.strip(b" \t"))
        if found is not None:
            name = found[1].lower()
            quality = 1.0 if found[2] is None else float(found[2])
            qualities.setdefault(_ALIASES.get(name, name), quality)
    return qualities
