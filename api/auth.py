"""Who calls: the principal behind an Authorization header, and what it may do.

User tokens that were found genuine are remembered, keyed by the header's bytes, bounded in number
and in bytes; their expiry is looked at again on every use. Failures are never remembered. What a
token has to look like is `shared/tokens.py`'s.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

from shared.errors import Forbidden, Unauthenticated
from shared.metrics import auth_failed
from shared.settings import Settings
from shared.tokens import LEEWAY_SECONDS, TokenVerifier

MAX_REMEMBERED = 4096
MAX_REMEMBERED_BYTES = 2 * 1024**2

Role = Literal["user", "service", "viewer"]

OPERATORS: tuple[Role, ...] = ("service", "viewer")


@dataclass(frozen=True, slots=True)
class Principal:
    """`user_id` is set for the role `user` alone."""

    role: Role
    user_id: int | None = None


@dataclass(frozen=True, slots=True)
class _Remembered:
    principal: Principal
    expires_at: float


class Authenticator:
    """Turns Authorization headers into principals. Raises SettingsError for an unusable key."""

    def __init__(self, settings: Settings) -> None:
        self._verifier = TokenVerifier(settings)
        self._fixed = [
            (_digest(token.get_secret_value().encode()), Principal(role))
            for token, role in _fixed_tokens(settings)
        ]
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._remembered_bytes = 0
        self._key_revision = 0

    def principal(self, authorization: bytes | None, *, now: float | None = None) -> Principal:
        """`now` in epoch seconds, by default the present. Raises Unauthenticated."""
        if authorization is None:
            auth_failed("missing")
            raise Unauthenticated("send a bearer token in the Authorization header")
        at = time.time() if now is None else now
        revision = self._verifier.refresh(now=at)
        if revision != self._key_revision:
            self._key_revision = revision
            self._remembered.clear()
            self._remembered_bytes = 0
        known = self._remembered.get(authorization)
        if known is not None:
            if at < known.expires_at + LEEWAY_SECONDS:
                self._remembered.move_to_end(authorization)
                return known.principal
            self._forget(authorization)
        return self._verified(authorization, at)

    def _verified(self, authorization: bytes, now: float) -> Principal:
        scheme, _, token = authorization.partition(b" ")
        token = token.strip(b" ")
        if scheme.lower() != b"bearer" or not token:
            auth_failed("invalid")
            raise Unauthenticated("the Authorization header holds no bearer token")
        digest = _digest(token)
        found = None
        for expected, principal in self._fixed:  # all of them, in the same time for any token
            if hmac.compare_digest(digest, expected):
                found = principal
        if found is not None:
            return found
        try:
            # A byte outside ASCII becomes a character the verifier refuses.
            claims = self._verifier.verify(token.decode("latin-1"), now=now)
        except Unauthenticated as error:
            auth_failed("expired" if "expired" in error.message else "invalid")
            raise
        principal = Principal("user", claims.user_id)
        self._remember(authorization, _Remembered(principal, claims.expires_at))
        return principal

    def _remember(self, key: bytes, value: _Remembered) -> None:
        self._remembered[key] = value
        self._remembered_bytes += len(key)
        while (
            len(self._remembered) > MAX_REMEMBERED or self._remembered_bytes > MAX_REMEMBERED_BYTES
        ):
            oldest, _ = self._remembered.popitem(last=False)
            self._remembered_bytes -= len(oldest)

    def _forget(self, key: bytes) -> None:
        del self._remembered[key]
        self._remembered_bytes -= len(key)


def require_user(principal: Principal) -> int:
    """The id of the calling user. Raises Forbidden for any other token."""
    if principal.user_id is None:
        auth_failed("forbidden")
        raise Forbidden("this needs the token of a user")
    return principal.user_id


def require_role(principal: Principal, roles: tuple[Role, ...]) -> None:
    """Raises Forbidden."""
    if principal.role not in roles:
        auth_failed("forbidden")
        raise Forbidden(f"this needs the {' or '.join(roles)} token")


def require_user_or_operator(principal: Principal, user_id: int) -> None:
    """Lets that user and operators pass. Raises Forbidden."""
    if principal.role == "user" and principal.user_id != user_id:
        auth_failed("forbidden")
        raise Forbidden("this belongs to another user")


def _fixed_tokens(settings: Settings) -> list[tuple[SecretStr, Role]]:
    tokens: list[tuple[SecretStr, Role]] = []
    if settings.service_token is not None:
        tokens.append((settings.service_token, "service"))
    if settings.viewer_token is not None:
        tokens.append((settings.viewer_token, "viewer"))
    return tokens


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
