"""What caches ask: codings weighed against each other, tags compared, both within bounds."""

from __future__ import annotations

import pytest

from api.caching import Negotiator, is_match
from shared.errors import NotAcceptable


def test_outcomes_of_a_negotiation_are_remembered_within_bounds() -> None:
    negotiator = Negotiator((b"gzip", b"identity"))
    for number in range(5_000):
        assert negotiator.choose(b"gzip, x-%d" % number) == b"gzip"
    assert len(negotiator._chosen) <= 256
    with pytest.raises(NotAcceptable):
        negotiator.choose(b"identity;q=0, br")


def test_a_long_list_of_tags_takes_no_time() -> None:
    assert not is_match(b'"a" ' * 8_000, b'"b"')
    assert not is_match(b" " * 32_000, b'"b"')
    assert not is_match(b'W/"' * 10_000, b'"b"')
    assert is_match(b'"a,",' * 6_000 + b'"b"', b'"b"')
