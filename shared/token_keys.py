"""The keys that user tokens are verified with, each with the one algorithm it is good for.

The kind of key in the settings pins the algorithm (RFC 8725, 3.1): HS256 for a secret; RS256,
ES256 or EdDSA by the type of a public key, given as PEM or in a JWKS file. HS256 stands on the
standard library; PyJWT, and with it `cryptography` (9 MB of memory), is imported only where a
public key is configured. What a token says is not read here.
"""

import binascii
import hashlib
import hmac
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from shared.errors import SettingsError
from shared.settings import Settings

MIN_RSA_BITS: Final = 2048
MAX_JWKS_BYTES: Final = 256 * 1024
JWKS_CHECK_SECONDS: Final = 1.0

_PEM = "TASTEMATCH_JWT_PUBLIC_KEY"
_JWKS = "TASTEMATCH_JWKS_FILE"


@dataclass(frozen=True, slots=True)
class Key:
    """`verify(message, signature)` tells whether the signature is this key's."""

    algorithm: str
    verify: Callable[[bytes, bytes], bool]


class KeyRing:
    """The keys of the settings; those of a JWKS file are read again when the file changes.

    Raises SettingsError, naming the variable, where a key cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._jwks_file = settings.jwks_file
        self._file_mark: tuple[int, int, int] | None = None
        self._checked_at = -math.inf
        self._revision = 0
        # Identity providers name the key in every token; a PEM is the only key there is.
        self._takes_any_name = settings.jwt_public_key is not None
        self._keys: dict[str | None, Key]
        if settings.jwks_file is not None:
            self._file_mark = _mark(settings.jwks_file)
            self._keys = _read_jwks(settings.jwks_file)
        elif settings.jwt_public_key is not None:
            self._keys = {None: _pem_key(settings.jwt_public_key.get_secret_value())}
        elif settings.jwt_secret is not None:
            self._keys = {None: _secret_key(settings.jwt_secret.get_secret_value())}
        else:
            raise SettingsError("TASTEMATCH_JWT_SECRET: is not set, nor is a public key")

    def find(self, kid: object) -> Key | None:
        """The key a token means by its `kid`; a token without one means the only key there is.

        A secret has no name, so a token that names a key is none of ours.
        """
        if kid is not None and not isinstance(kid, str):
            return None
        if self._takes_any_name:
            return self._keys[None]
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    def refresh(self, *, now: float) -> int:
        """Reads a changed JWKS file again. Returns a number that grows with every change of keys.

        The file is looked at once in JWKS_CHECK_SECONDS (`now` in epoch seconds); one that cannot
        be read leaves the keys as they were.
        """
        if self._jwks_file is None or abs(now - self._checked_at) < JWKS_CHECK_SECONDS:
            return self._revision
        self._checked_at = now
        mark = _mark(self._jwks_file)
        if mark != self._file_mark:
            self._file_mark = mark
            try:
                self._keys = _read_jwks(self._jwks_file)
                self._revision += 1
            except SettingsError as error:
                # After `shared/logs.py`, which sees to what is loaded with it.
                import structlog

                log = structlog.get_logger(logger_name=__name__)
                log.warning("token_keys.kept", reason=error.message)
        return self._revision


def sign(secret: str, message: bytes) -> bytes:
    """The HS256 signature (RFC 7518, 3.2): 32 bytes."""
    return hmac.digest(secret.encode(), message, hashlib.sha256)


def _secret_key(secret: str) -> Key:
    if "-----BEGIN" in secret:
        raise SettingsError(f"TASTEMATCH_JWT_SECRET: holds a PEM key; that belongs into {_PEM}")

    def verify(message: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(sign(secret, message), signature)

    return Key("HS256", verify)


def _pem_key(pem: str) -> Key:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        # Environments that cannot hold line breaks write them as \n.
        public_key = load_pem_public_key(pem.replace("\\n", "\n").encode())
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(f"{_PEM}: is not a public key in PEM form") from None
    return _public_key(public_key, variable=_PEM)


def _public_key(public_key: Any, *, variable: str) -> Key:
    """Raises SettingsError for anything but an RSA, P-256 or Ed25519 public key."""
    import jwt
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(public_key, rsa.RSAPublicKey):
        if public_key.key_size < MIN_RSA_BITS:
            raise SettingsError(f"{variable}: RSA keys need at least {MIN_RSA_BITS} bits")
        name = "RS256"
    elif isinstance(public_key, ec.EllipticCurvePublicKey) and public_key.curve.name == "secp256r1":
        name = "ES256"
    elif isinstance(public_key, ed25519.Ed25519PublicKey):
        name = "EdDSA"
    else:
        raise SettingsError(f"{variable}: takes RSA, P-256 and Ed25519 public keys")
    algorithm = jwt.get_algorithm_by_name(name)
    return Key(name, lambda message, signature: algorithm.verify(message, public_key, signature))


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read_jwks(path: Path) -> dict[str | None, Key]:
    """The file's public signature keys by `kid`; other kinds of keys are passed over.

    Raises SettingsError where it is no key set or holds no usable key.
    """
    try:
        with path.open("rb") as file:
            listed = orjson.loads(file.read(MAX_JWKS_BYTES + 1))["keys"]
        candidates = [jwk for jwk in listed if jwk.get("use", "sig") == "sig"]
    except OSError as error:
        raise SettingsError(f"{_JWKS}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise SettingsError(f"{_JWKS}: is not a JSON Web Key Set") from None
    keys: dict[str | None, Key] = {}
    for jwk in candidates:
        kid = jwk.get("kid")
        key = _jwk_key(jwk)
        if key is not None and isinstance(kid, str | None):
            keys[kid] = key
    if not keys:
        raise SettingsError(f"{_JWKS}: holds no RSA, P-256 or Ed25519 public key")
    return keys


def _jwk_key(jwk: dict[str, Any]) -> Key | None:
    from jwt import PyJWK, PyJWTError

    try:
        key = _public_key(PyJWK(jwk).key, variable=_JWKS)
    except (PyJWTError, SettingsError, ValueError, TypeError, KeyError, binascii.Error):
        return None
    return key if jwk.get("alg", key.algorithm) == key.algorithm else None
