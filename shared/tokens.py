"""Bearer tokens of users: issuing one, and telling whether one is genuine.

A token is a JWT in compact form (RFC 7519) whose user claim holds the user's id as a decimal
string, and which expires. Only the configured key counts (`token_keys.py`): a token that brings a
key of its own, names a place to fetch one or asks for extensions is refused. One that names an
audience is refused unless the settings name it too (RFC 7519, 4.1.3). Who may do what with a token
is decided elsewhere.
"""

import base64
import binascii
import math
import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

from shared.errors import SettingsError, Unauthenticated
from shared.settings import Settings
from shared.token_keys import KeyRing, sign

MAX_TOKEN_BYTES: Final = 8 * 1024
LEEWAY_SECONDS: Final = 30
DAY_SECONDS: Final = 86_400
MAX_USER_ID: Final = 2**63 - 1

_USER_ID = re.compile(r"[0-9]{1,19}", re.ASCII)
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_REFUSED_HEADERS = frozenset({"crit", "b64", "jku", "jwk", "x5u", "x5c"})
_HS256_HEADER = b'{"alg":"HS256","typ":"JWT"}'
_INVALID = "the token is not valid"


@dataclass(frozen=True, slots=True)
class Claims:
    """`expires_at` is in epoch seconds; a token is good for LEEWAY_SECONDS more."""

    user_id: int
    expires_at: float


def issue_user_token(settings: Settings, *, user_id: int, ttl_seconds: int, now: float) -> str:
    """A token of that user, good for `ttl_seconds` from `now` (epoch seconds).

    Raises SettingsError where the settings hold no secret to sign with, or allow no token to live
    that long.
    """
    assert 0 <= user_id <= MAX_USER_ID, "ids are 64-bit integers"
    assert ttl_seconds > 0, "a token lives for some time"
    if settings.jwt_secret is None:
        raise SettingsError(
            "TASTEMATCH_JWT_SECRET: is not set; only the holder of the private key signs tokens"
        )
    if ttl_seconds > settings.jwt_max_lifetime_days * DAY_SECONDS:
        raise SettingsError(
            "TASTEMATCH_JWT_MAX_LIFETIME_DAYS: allows tokens of at most "
            f"{settings.jwt_max_lifetime_days} days"
        )
    issued_at = math.floor(now)
    claims: dict[str, Any] = {
        settings.jwt_user_claim: str(user_id),
        "iat": issued_at,
        "exp": issued_at + ttl_seconds,
    }
    if settings.jwt_audience is not None:
        claims["aud"] = settings.jwt_audience
    message = _encode(_HS256_HEADER) + b"." + _encode(orjson.dumps(claims))
    signature = sign(settings.jwt_secret.get_secret_value(), message)
    return (message + b"." + _encode(signature)).decode("ascii")


class TokenVerifier:
    """Verifies tokens against the keys of the settings.

    Raises SettingsError, naming the variable, where a key cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._keys = KeyRing(settings)
        self._user_claim = settings.jwt_user_claim
        self._audience = settings.jwt_audience
        self._max_lifetime_seconds = settings.jwt_max_lifetime_days * DAY_SECONDS

    def refresh(self, *, now: float) -> int:
        """A number that grows when keys change: whoever keeps verified tokens then drops them."""
        return self._keys.refresh(now=now)

    def verify(self, token: str, *, now: float) -> Claims:
        """`now` in epoch seconds. Raises Unauthenticated; its message repeats nothing of the token.

        The payload is not looked at before the signature is found to be good.
        """
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise Unauthenticated(_INVALID)
        segments = token.split(".")
        if len(segments) != 3:
            raise Unauthenticated(_INVALID)
        header = _json_object(segments[0])
        self._keys.refresh(now=now)
        key = self._keys.find(header.get("kid"))
        if key is None or header.get("alg") != key.algorithm:
            raise Unauthenticated(_INVALID)
        if not _REFUSED_HEADERS.isdisjoint(header):
            raise Unauthenticated(_INVALID)
        message = f"{segments[0]}.{segments[1]}".encode("ascii")
        if not key.verify(message, _decode(segments[2])):
            raise Unauthenticated(_INVALID)
        return self._claims(_json_object(segments[1]), now)

    def _claims(self, claims: dict[str, Any], now: float) -> Claims:
        expires_at = _instant(claims, "exp")
        issued_at = _instant(claims, "iat")
        not_before = _instant(claims, "nbf")
        if expires_at is None:
            raise Unauthenticated("the token has no expiry")
        if now >= expires_at + LEEWAY_SECONDS:
            raise Unauthenticated("the token has expired")
        if any(at is not None and at > now + LEEWAY_SECONDS for at in (issued_at, not_before)):
            raise Unauthenticated("the token is not valid yet")
        lives_from = now + LEEWAY_SECONDS if issued_at is None else issued_at
        if expires_at - lives_from > self._max_lifetime_seconds:
            raise Unauthenticated("the token is valid for longer than is allowed")
        self._check_audience(claims)
        user = claims.get(self._user_claim)
        if not isinstance(user, str) or not _USER_ID.fullmatch(user) or int(user) > MAX_USER_ID:
            raise Unauthenticated("the token names no user id")
        return Claims(user_id=int(user), expires_at=expires_at)

    def _check_audience(self, claims: dict[str, Any]) -> None:
        if "aud" not in claims and self._audience is None:
            return
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if self._audience is None or self._audience not in audiences:
            raise Unauthenticated("the token is meant for somebody else")


def _instant(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519, 2) in epoch seconds; None where the claim is absent."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float) or not math.isfinite(value):
        raise Unauthenticated(_INVALID)
    return float(value)


def _json_object(segment: str) -> dict[str, Any]:
    try:
        value = orjson.loads(_decode(segment))
    except orjson.JSONDecodeError:
        raise Unauthenticated(_INVALID) from None
    if not isinstance(value, dict):
        raise Unauthenticated(_INVALID)
    return value


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode(segment: str) -> bytes:
    """Base64url without padding, in the one spelling that its bytes have."""
    try:
        if not _BASE64URL.fullmatch(segment):
            raise ValueError
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (ValueError, binascii.Error):
        raise Unauthenticated(_INVALID) from None
    if _encode(data) != segment.encode("ascii"):
        raise Unauthenticated(_INVALID)
    return data
