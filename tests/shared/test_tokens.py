"""User tokens: what is accepted, and a table of attacks that are not."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SettingsError, Unauthenticated
from shared.settings import Settings, load_settings
from shared.tokens import LEEWAY_SECONDS, MAX_TOKEN_BYTES, TokenVerifier, issue_user_token

NOW = 1_795_000_000.0
SECRET = "a-secret-for-tests-of-thirty-two-bytes-or-more"
DAY = 86_400
GOOD = {"sub": "42", "iat": NOW, "exp": NOW + 3600}

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
PRIVATE_KEYS = {"RS256": RSA_KEY, "ES256": EC_KEY, "EdDSA": ED_KEY}


def settings(folder: Path, **variables: str) -> Settings:
    given_key = {"TASTEMATCH_JWT_PUBLIC_KEY", "TASTEMATCH_JWKS_FILE"} & set(variables)
    key = {} if given_key else {"TASTEMATCH_JWT_SECRET": SECRET}
    return load_settings({"TASTEMATCH_DATA_DIR": str(folder), **key, **variables})


@pytest.fixture
def verifier(tmp_path: Path) -> TokenVerifier:
    return TokenVerifier(settings(tmp_path))


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hs256(
    claims: Any = None, *, header: dict[str, Any] | None = None, secret: str | bytes = SECRET
) -> str:
    """A token signed as the header says or not: the payload may be any JSON text."""
    payload = claims if isinstance(claims, str) else json.dumps(GOOD if claims is None else claims)
    head = {"alg": "HS256", "typ": "JWT"} | (header or {})
    message = f"{b64(json.dumps(head).encode())}.{b64(payload.encode())}"
    key = secret.encode() if isinstance(secret, str) else secret
    signature = jwt.get_algorithm_by_name("HS256").sign(message.encode(), key)
    return f"{message}.{b64(signature)}"


def pem(private_key: Any) -> str:
    encoded: bytes = private_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded.decode()


def jwk(algorithm: str, **extra: Any) -> dict[str, Any]:
    public_key = PRIVATE_KEYS[algorithm].public_key()
    described: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(
        public_key, as_dict=True
    )
    return described | extra


def refuse(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        verifier.verify(token, now=NOW)
    return caught.value.message


def test_an_issued_token_names_its_user_until_it_expires(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    token = issue_user_token(configured, user_id=42, ttl_seconds=60, now=NOW)

    claims = TokenVerifier(configured).verify(token, now=NOW)

    assert (claims.user_id, claims.expires_at) == (42, NOW + 60)


def test_an_issued_token_is_what_other_libraries_read(tmp_path: Path) -> None:
    now = time.time()
    token = issue_user_token(settings(tmp_path), user_id=7, ttl_seconds=60, now=now)

    claims = jwt.decode(token, SECRET, algorithms=["HS256"])

    assert claims == {"sub": "7", "iat": int(now), "exp": int(now) + 60}


def test_tokens_of_other_libraries_are_read(verifier: TokenVerifier) -> None:
    token = jwt.encode(GOOD, SECRET, algorithm="HS256")

    assert verifier.verify(token, now=NOW).user_id == 42


@pytest.mark.parametrize("user_id", [0, 1, 2**31, 2**53 + 1, 2**63 - 1])
def test_every_64_bit_id_survives_the_way_round(tmp_path: Path, user_id: int) -> None:
    configured = settings(tmp_path)
    token = issue_user_token(configured, user_id=user_id, ttl_seconds=60, now=NOW)

    assert TokenVerifier(configured).verify(token, now=NOW).user_id == user_id


@pytest.mark.parametrize(
    "subject",
    ["", "0x1", "1.0", " 1", "1 ", "+1", "-1", "1_0", "1e3", "٣", "¹", "1\n", "1\x00",
     str(2**63), "9" * 30, 42, 42.0, True, None, [], ["42"], {"id": "42"}],
)  # fmt: skip
def test_a_user_claim_that_is_no_id_is_refused(verifier: TokenVerifier, subject: object) -> None:
    assert "user id" in refuse(verifier, hs256(GOOD | {"sub": subject}))


def test_a_token_without_the_user_claim_is_refused(verifier: TokenVerifier) -> None:
    assert "user id" in refuse(verifier, hs256({"exp": NOW + 60}))


def test_the_user_claim_can_have_another_name(tmp_path: Path) -> None:
    configured = settings(tmp_path, TASTEMATCH_JWT_USER_CLAIM="shop_user")
    verifier = TokenVerifier(configured)
    issued = issue_user_token(configured, user_id=5, ttl_seconds=60, now=NOW)

    assert verifier.verify(issued, now=NOW).user_id == 5
    assert verifier.verify(hs256(GOOD | {"shop_user": "6", "sub": "auth0|x"}), now=NOW).user_id == 6
    assert "user id" in refuse(verifier, hs256(GOOD))


# Time


@pytest.mark.parametrize(
    "change",
    [
        {"exp": NOW},
        {"exp": NOW - LEEWAY_SECONDS + 1},
        {"exp": NOW + 0.5},
        {"exp": NOW + 60, "nbf": NOW + 10},
        {"exp": NOW + 60, "iat": NOW + 10},
        {"exp": NOW + 60, "nbf": NOW + LEEWAY_SECONDS},
        {"exp": NOW + 60, "iat": NOW - 29 * DAY},
        {"exp": NOW + 30 * DAY},
    ],
)
def test_clocks_may_differ_by_the_leeway(verifier: TokenVerifier, change: dict[str, Any]) -> None:
    assert verifier.verify(hs256(GOOD | change), now=NOW).user_id == 42


@pytest.mark.parametrize(
    "change",
    [
        {"exp": NOW - LEEWAY_SECONDS},
        {"exp": NOW - DAY, "iat": NOW - 2 * DAY},
        {"exp": 0},
        {"exp": -1},
        {"exp": str(int(NOW) + 60)},
        {"exp": [NOW + 60]},
        {"exp": True},
        {"exp": None},
        {"exp": 95_617_584_000},
        {"exp": 10**400},
        {"exp": NOW + 31 * DAY},
        {"exp": NOW + 60, "iat": NOW - 30 * DAY},
        {"exp": NOW + 60, "iat": 0},
        {"iat": NOW + LEEWAY_SECONDS + 1},
        {"nbf": NOW + LEEWAY_SECONDS + 1},
        {"iat": "now"},
        {"nbf": {}},
        {"nbf": None},
    ],
)
def test_times_beyond_the_leeway_or_of_other_types_are_refused(
    verifier: TokenVerifier, change: dict[str, Any]
) -> None:
    refuse(verifier, hs256(GOOD | change))


@pytest.mark.parametrize("exp", ["1e400", "NaN", "Infinity", "-Infinity", "0x7fffffff", "1_0"])
def test_an_expiry_that_json_does_not_have_is_refused(verifier: TokenVerifier, exp: str) -> None:
    refuse(verifier, hs256(f'{{"sub":"42","exp":{exp}}}'))


def test_a_token_without_expiry_is_refused(verifier: TokenVerifier) -> None:
    assert "expiry" in refuse(verifier, hs256({"sub": "42"}))


def test_a_token_without_issue_time_may_not_outlive_the_cap(verifier: TokenVerifier) -> None:
    assert verifier.verify(hs256({"sub": "1", "exp": NOW + 30 * DAY}), now=NOW).user_id == 1
    refuse(verifier, hs256({"sub": "1", "exp": NOW + 30 * DAY + 2 * LEEWAY_SECONDS}))


def test_a_setting_raises_the_cap(tmp_path: Path) -> None:
    long_lived = hs256({"sub": "1", "exp": NOW + 100 * DAY})
    raised = settings(tmp_path, TASTEMATCH_JWT_MAX_LIFETIME_DAYS="100")

    refuse(TokenVerifier(settings(tmp_path)), long_lived)
    assert TokenVerifier(raised).verify(long_lived, now=NOW).user_id == 1


# Form and signature


def test_no_change_of_a_single_character_is_accepted(verifier: TokenVerifier) -> None:
    token = hs256()
    for position, character in enumerate(token):
        for other in ("A", "b", "_", ".", "="):
            if other != character:
                refuse(verifier, token[:position] + other + token[position + 1 :])


def test_no_truncated_token_is_accepted(verifier: TokenVerifier) -> None:
    token = hs256()
    for length in range(len(token)):
        refuse(verifier, token[:length])


def test_another_spelling_of_the_same_bytes_is_refused(verifier: TokenVerifier) -> None:
    token = hs256()
    header, payload, signature = token.split(".")
    # 32 bytes leave two bits of the last character unused: four spellings, one of them right.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    group = alphabet.index(signature[-1]) // 4 * 4
    spellings = [signature[:-1] + alphabet[group + i] for i in range(4)]
    assert signature in spellings
    variants = [f"{header}.{payload}.{other}" for other in spellings if other != signature]
    variants += [f"{token}=", f"{token}==", f"{token}\n", f" {token}", f"{token}.", f".{token}"]
    variants += [f"{header}=.{payload}.{signature}", f"{header}.{payload}\n.{signature}"]
    variants += [token.replace(".", ".."), f"{header}.{payload}.{signature[:20]}\n{signature[20:]}"]
    for variant in variants:
        refuse(verifier, variant)


@given(st.text(max_size=200))
def test_no_text_is_a_token(text: str) -> None:
    refuse(_FUZZED, text)


@given(st.lists(st.binary(max_size=60), min_size=3, max_size=3))
def test_no_segments_of_noise_are_a_token(segments: list[bytes]) -> None:
    refuse(_FUZZED, ".".join(map(b64, segments)))


def test_a_token_above_the_size_limit_is_refused(verifier: TokenVerifier) -> None:
    fitting = GOOD | {"pad": "x" * 5_000}
    assert len(hs256(fitting)) <= MAX_TOKEN_BYTES
    assert verifier.verify(hs256(fitting), now=NOW).user_id == 42
    refuse(verifier, hs256(GOOD | {"pad": "x" * MAX_TOKEN_BYTES}))
    refuse(verifier, "e" * 10_000_000)


@pytest.mark.parametrize(
    "payload", ["[]", "null", '"42"', "", "{", "[" * 2_000, '{"sub":"\\ud800"']
)
def test_a_payload_that_is_no_object_is_refused(verifier: TokenVerifier, payload: str) -> None:
    refuse(verifier, hs256(payload))


def test_a_header_deeply_nested_is_refused(verifier: TokenVerifier) -> None:
    refuse(verifier, f"{b64(b'[' * 3_000)}.{b64(b'{}')}.{b64(b'x' * 32)}")


def test_another_secret_is_refused(verifier: TokenVerifier) -> None:
    for secret in ("x", SECRET[:-1], SECRET + "x", SECRET.upper()):
        refuse(verifier, hs256(secret=secret))


# Algorithms and keys


@pytest.mark.parametrize(
    "algorithm", ["none", "nOnE", "NONE", "", None, "HS384", "HS512", "hs256", "RS256", ["HS256"]]
)
def test_only_the_pinned_algorithm_is_taken(verifier: TokenVerifier, algorithm: object) -> None:
    refuse(verifier, hs256(header={"alg": algorithm}))
    message = f"{b64(json.dumps({'alg': algorithm}).encode())}.{b64(json.dumps(GOOD).encode())}"
    refuse(verifier, f"{message}.")
    refuse(verifier, message)


def test_a_header_without_algorithm_is_refused(verifier: TokenVerifier) -> None:
    refuse(verifier, f"{b64(b'{}')}.{b64(json.dumps(GOOD).encode())}.")


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "other"},
        {"kid": "../../dev/null"},
        {"kid": "' OR 1=1--"},
        {"kid": "k" * 10_000},
        {"kid": ["a"]},
        {"kid": 7},
        {"kid": ""},
        {"jku": "http://127.0.0.1:9/keys"},
        {"x5u": "http://127.0.0.1:9/cert"},
        {"x5c": ["MIIB"]},
        {"jwk": {"kty": "oct", "k": b64(b"mine")}},
        {"crit": ["exp"]},
        {"crit": ["unknown"], "unknown": 1},
        {"crit": []},
        {"b64": False},
    ],
)
def test_a_header_cannot_choose_or_bring_a_key(
    verifier: TokenVerifier, header: dict[str, Any]
) -> None:
    refuse(verifier, hs256(header=header))


@pytest.mark.parametrize("algorithm", list(PRIVATE_KEYS))
def test_a_public_key_takes_its_own_algorithm_only(tmp_path: Path, algorithm: str) -> None:
    public = pem(PRIVATE_KEYS[algorithm])
    verifier = TokenVerifier(settings(tmp_path, TASTEMATCH_JWT_PUBLIC_KEY=public))

    for other, private_key in PRIVATE_KEYS.items():
        token = jwt.encode(GOOD, private_key, algorithm=other, headers={"kid": "any"})
        if other == algorithm:
            assert verifier.verify(token, now=NOW).user_id == 42
            refuse(verifier, token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB"))
        else:
            refuse(verifier, token)


@pytest.mark.parametrize("algorithm", list(PRIVATE_KEYS))
def test_a_public_key_is_no_secret(tmp_path: Path, algorithm: str) -> None:
    public = pem(PRIVATE_KEYS[algorithm])
    verifier = TokenVerifier(settings(tmp_path, TASTEMATCH_JWT_PUBLIC_KEY=public))

    for key in (public, public.strip(), public.encode()):
        refuse(verifier, hs256(secret=key))
        refuse(verifier, hs256(secret=key, header={"alg": algorithm}))
    refuse(verifier, hs256())


def test_a_key_with_written_out_line_breaks_is_read(tmp_path: Path) -> None:
    public = pem(EC_KEY).replace("\n", "\\n")
    verifier = TokenVerifier(settings(tmp_path, TASTEMATCH_JWT_PUBLIC_KEY=public))

    assert verifier.verify(jwt.encode(GOOD, EC_KEY, algorithm="ES256"), now=NOW).user_id == 42


WEAK_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
OTHER_CURVE = ec.generate_private_key(ec.SECP384R1())


@pytest.mark.parametrize(
    "key",
    ["nonsense", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", pem(WEAK_KEY),
     pem(OTHER_CURVE)],
    ids=["nonsense", "empty", "weak", "other-curve"],
)  # fmt: skip
def test_a_useless_public_key_stops_the_start(tmp_path: Path, key: str) -> None:
    with pytest.raises(SettingsError, match=r"^TASTEMATCH_JWT_PUBLIC_KEY: ") as caught:
        TokenVerifier(settings(tmp_path, TASTEMATCH_JWT_PUBLIC_KEY=key))
    assert key not in caught.value.message


def test_a_pem_in_place_of_the_secret_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^TASTEMATCH_JWT_SECRET: "):
        TokenVerifier(settings(tmp_path, TASTEMATCH_JWT_SECRET=pem(RSA_KEY)))


# Key sets


def write_keys(path: Path, *keys: object) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"keys": list(keys)}))
    fresh.replace(path)


def signed(algorithm: str, kid: object) -> str:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(GOOD, PRIVATE_KEYS[algorithm], algorithm=algorithm, headers=headers)


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    write_keys(path, *(jwk(name, kid=f"key-{name}") for name in PRIVATE_KEYS))
    return path


def test_a_key_set_is_searched_by_key_id(tmp_path: Path, jwks: Path) -> None:
    verifier = TokenVerifier(settings(tmp_path, TASTEMATCH_JWKS_FILE=str(jwks)))

    for name in PRIVATE_KEYS:
        assert verifier.verify(signed(name, f"key-{name}"), now=NOW).user_id == 42
        for kid in (
            "key-other",
            "",
            "../keys.json",
            "key-" + next(iter(set(PRIVATE_KEYS) - {name})),
        ):
            refuse(verifier, signed(name, kid))
        refuse(verifier, signed(name, None))
    refuse(verifier, hs256())
    refuse(verifier, hs256(header={"kid": "key-RS256"}))


def test_the_only_key_of_a_set_needs_no_name(tmp_path: Path, jwks: Path) -> None:
    write_keys(jwks, jwk("ES256", kid="only"))
    verifier = TokenVerifier(settings(tmp_path, TASTEMATCH_JWKS_FILE=str(jwks)))

    assert verifier.verify(signed("ES256", None), now=NOW).user_id == 42
    refuse(verifier, signed("ES256", "other"))


def test_keys_for_other_purposes_are_passed_over(tmp_path: Path, jwks: Path) -> None:
    write_keys(
        jwks,
        jwk("RS256", kid="encryption", use="enc"),
        jwk("RS256", kid="other-algorithm", alg="PS256"),
        {"kty": "oct", "kid": "secret", "k": b64(SECRET.encode()), "alg": "HS256"},
        {"kty": "EC", "kid": "broken", "crv": "P-256"},
        {"kty": "unknown", "kid": "new"},
        jwk("EdDSA", kid="good", use="sig"),
    )
    verifier = TokenVerifier(settings(tmp_path, TASTEMATCH_JWKS_FILE=str(jwks)))

    assert verifier.verify(signed("EdDSA", "good"), now=NOW).user_id == 42
    refuse(verifier, signed("RS256", "encryption"))
    refuse(verifier, signed("RS256", "other-algorithm"))
    refuse(verifier, hs256(header={"kid": "secret"}))


def test_a_changed_key_set_is_read_again(tmp_path: Path, jwks: Path) -> None:
    verifier = TokenVerifier(settings(tmp_path, TASTEMATCH_JWKS_FILE=str(jwks)))
    before = verifier.refresh(now=NOW)
    old = signed("RS256", "key-RS256")
    assert verifier.verify(old, now=NOW).user_id == 42

    write_keys(jwks, jwk("ES256", kid="rotated"))

    assert verifier.verify(signed("ES256", "rotated"), now=NOW + 2).user_id == 42
    assert verifier.refresh(now=NOW + 2) > before
    with pytest.raises(Unauthenticated):
        verifier.verify(old, now=NOW + 2)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"keys":[]}', '{"keys":[7]}', "\ud800"])
def test_an_unreadable_key_set_leaves_the_keys_as_they_were(
    tmp_path: Path, jwks: Path, content: str | None
) -> None:
    verifier = TokenVerifier(settings(tmp_path, TASTEMATCH_JWKS_FILE=str(jwks)))
    if content is None:
        jwks.unlink()
    else:
        jwks.write_bytes(content.encode("utf-8", "surrogatepass"))

    assert verifier.verify(signed("RS256", "key-RS256"), now=NOW + 2).user_id == 42


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", '{"keys":[]}', '{"keys":{}}', '{"keys":[7]}']
)
def test_a_useless_key_set_stops_the_start(tmp_path: Path, jwks: Path, content: str) -> None:
    jwks.write_text(content)

    with pytest.raises(SettingsError, match=r"^TASTEMATCH_JWKS_FILE: "):
        TokenVerifier(settings(tmp_path, TASTEMATCH_JWKS_FILE=str(jwks)))


# Audience


def test_an_audience_is_refused_until_it_is_configured(tmp_path: Path) -> None:
    for audience in ("tastematch", ["tastematch"], [], None, 7):
        message = refuse(TokenVerifier(settings(tmp_path)), hs256(GOOD | {"aud": audience}))
        assert "somebody else" in message


def test_a_configured_audience_must_be_named(tmp_path: Path) -> None:
    configured = settings(tmp_path, TASTEMATCH_JWT_AUDIENCE="tastematch")
    verifier = TokenVerifier(configured)
    issued = issue_user_token(configured, user_id=3, ttl_seconds=60, now=NOW)

    assert verifier.verify(issued, now=NOW).user_id == 3
    for audience in ("tastematch", ["shop", "tastematch"]):
        assert verifier.verify(hs256(GOOD | {"aud": audience}), now=NOW).user_id == 42
    for audience in ("shop", ["shop"], [], "TasteMatch", "tastematch2", None):
        refuse(verifier, hs256(GOOD | {"aud": audience}))
    refuse(verifier, hs256(GOOD))


# Issuing


def test_who_holds_only_a_public_key_cannot_issue(tmp_path: Path, jwks: Path) -> None:
    for variables in (
        {"TASTEMATCH_JWT_PUBLIC_KEY": pem(ED_KEY)},
        {"TASTEMATCH_JWKS_FILE": str(jwks)},
    ):
        with pytest.raises(SettingsError, match="private key"):
            issue_user_token(settings(tmp_path, **variables), user_id=1, ttl_seconds=1, now=NOW)


def test_no_token_is_issued_that_would_be_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="30 days"):
        issue_user_token(settings(tmp_path), user_id=1, ttl_seconds=31 * DAY, now=NOW)


def test_a_secret_needs_no_cryptography_in_memory(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from shared.settings import load_settings\n"
        "from shared.tokens import TokenVerifier, issue_user_token\n"
        "settings = load_settings()\n"
        "token = issue_user_token(settings, user_id=1, ttl_seconds=9, now=5)\n"
        "assert TokenVerifier(settings).verify(token, now=5).user_id == 1\n"
        "print(sorted({'jwt', 'cryptography'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={"TASTEMATCH_DATA_DIR": str(tmp_path), "PATH": os.environ["PATH"]},
    )
    assert done.stdout.strip() == "[]"


_FUZZED = TokenVerifier(
    Settings.model_validate({"TASTEMATCH_JWT_SECRET": SECRET, "TASTEMATCH_DATA_DIR": "unused"})
)
