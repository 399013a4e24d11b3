"""Access tokens that are almost right, and what tokens must never do."""

import base64
import dataclasses
import logging
from datetime import timedelta
from typing import Any
from uuid import uuid4

import jwt
import orjson
import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fleet import auth, clock, limits
from fleet.auth import Tokens
from fleet.config import Settings
from fleet.db import db
from fleet.errors import Unauthenticated
from tests.cast import PASSWORD, Answer, Cast, request


def show_me(cast: Cast, token: str) -> Answer:
    return request(cast.app, "GET", "/v1/auth/me", headers={"Authorization": f"Bearer {token}"})


def token_of(cast: Cast, headers: dict[str, Any] | None = None, key: Any = None, **claims: Any) -> str:
    """Ana's token, signed with the service's key, with some of what it says replaced (None: left out)."""
    said = {**jwt.decode(cast.ana.token, options={"verify_signature": False}), **claims}
    kept = {name: value for name, value in said.items() if value is not None}
    return signed(cast, orjson.dumps(kept), headers, key)


def signed(cast: Cast, payload: bytes, headers: dict[str, Any] | None = None, key: Any = None) -> str:
    tokens = cast.app.extensions["fleet"].tokens
    header = {"kid": tokens._kid, "typ": auth.TOKEN_TYPE, "alg": "ES256", **(headers or {})}
    return jwt.api_jws.encode(payload, key or tokens._key, algorithm=header["alg"], headers=header)


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = (base64.urlsafe_b64encode(orjson.dumps(part)).rstrip(b"=").decode() for part in (header, claims))
    return ".".join([*parts, ""])


def refused(answer: Answer, code: str = "unauthenticated") -> bool:
    return (
        (answer.status_code, answer.json["code"]) == (401, code)
        and answer.headers["WWW-Authenticate"].startswith("Bearer")
        and answer.mimetype == "application/problem+json"
    )


def test_a_token_of_ours_is_accepted(cast: Cast) -> None:
    assert show_me(cast, token_of(cast)).status_code == 200


def test_an_unsigned_token_is_refused(cast: Cast) -> None:
    claims = jwt.decode(cast.ana.token, options={"verify_signature": False})
    kid = jwt.get_unverified_header(cast.ana.token)["kid"]
    for algorithm in ("none", "None", "NONE", "ES256"):
        token = unsigned({"alg": algorithm, "typ": auth.TOKEN_TYPE, "kid": kid}, claims)
        assert refused(show_me(cast, token))
        assert refused(show_me(cast, token + "AAAA"))


def test_a_token_signed_with_another_algorithm_or_key_is_refused(cast: Cast) -> None:
    public = cast.app.extensions["fleet"].tokens.jwks()[0]["x"]
    assert refused(show_me(cast, token_of(cast, {"alg": "HS256"}, key=public * 2)))
    stranger = ec.generate_private_key(ec.SECP256R1())
    assert refused(show_me(cast, token_of(cast, key=stranger)))


def pem(key: ec.EllipticCurvePrivateKey, *, public: bool = False) -> str:
    if public:
        shown = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    else:
        shown = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return shown.decode()


def test_keys_are_changed_while_releases_with_either_take_each_others_tokens(settings: Settings) -> None:
    old, new = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def release(key: ec.EllipticCurvePrivateKey, *known: ec.EllipticCurvePrivateKey) -> Tokens:
        previous = "".join(pem(other, public=True) for other in known)
        return Tokens(dataclasses.replace(settings, jwt_private_key=pem(key), jwt_previous_keys=previous))

    def issued(by: Tokens) -> str:
        return by.issue(user_id=uuid4(), session_id=uuid4(), at=now)

    now = clock.now()
    before, between, after = release(old, new), release(new, old), release(new)
    for mine, others in ((between, before), (before, between), (after, between)):
        assert mine.verify(issued(others), at=now)
    with pytest.raises(Unauthenticated):
        after.verify(issued(before), at=now)


@pytest.mark.parametrize(
    "headers",
    [
        {"kid": "another"},
        {"kid": "../../etc/passwd"},
        {"kid": "' OR 1=1"},
        {"typ": "JWT"},
        {"typ": None},
        {"typ": "rt+jwt"},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"jwk": {"kty": "EC"}},
        {"crit": ["exp"]},
        {"b64": False},
    ],
)
def test_a_header_says_only_what_ours_say(cast: Cast, headers: dict[str, Any]) -> None:
    assert refused(show_me(cast, token_of(cast, headers)))


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "sid", "jti", "iat", "exp"])
def test_every_claim_is_needed(cast: Cast, claim: str) -> None:
    assert refused(show_me(cast, token_of(cast, **{claim: None})))


@pytest.mark.parametrize(
    ("claim", "literal"),
    [
        ("iss", '"another"'),
        ("aud", '"another-api"'),
        ("sub", '"not-a-uuid"'),
        ("sub", "[]"),
        ("sid", '"not-a-uuid"'),
        ("sid", "17"),
        ("exp", "9" * 400),
        ("exp", "9" * 5000),
        ("exp", "1e300"),
        ("exp", "Infinity"),
        ("exp", "true"),
        ("exp", "-1"),
        ("exp", '"4102444800"'),
        ("iat", "0"),
        ("iat", "9" * 400),
        ("iat", "NaN"),
    ],
    ids=lambda value: value[:20],
)
def test_a_claim_that_we_never_make_is_refused(cast: Cast, claim: str, literal: str) -> None:
    said = jwt.decode(cast.ana.token, options={"verify_signature": False})
    payload = orjson.dumps({**said, claim: "HERE"}).replace(b'"HERE"', literal.encode())
    assert refused(show_me(cast, signed(cast, payload)))


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"7", b"{", b"\xff", b"[" * 2000])
def test_a_token_that_says_nothing_of_ours_is_refused(cast: Cast, payload: bytes) -> None:
    assert refused(show_me(cast, signed(cast, payload)))


def test_the_service_caps_the_lifetime_whatever_the_token_says(cast: Cast) -> None:
    issued = int(clock.now().timestamp())
    assert refused(show_me(cast, token_of(cast, iat=issued, exp=issued + 901)))
    assert show_me(cast, token_of(cast, iat=issued, exp=issued + 900)).status_code == 200


def test_a_token_from_the_future_is_refused(cast: Cast) -> None:
    issued = int(clock.now().timestamp()) + 3600
    assert refused(show_me(cast, token_of(cast, iat=issued, exp=issued + 900)))


def test_a_token_ends_after_a_quarter_of_an_hour_and_says_so(cast: Cast) -> None:
    token = cast.ana.token
    assert show_me(cast, token).status_code == 200
    with time_machine.travel(clock.now() + timedelta(minutes=15), tick=False):
        assert refused(show_me(cast, token), "token_expired")


@pytest.mark.parametrize("junk", ["=", "==", ".", ".AAAA", "\t", " x", "%3D", "A" * 5000, "\x00", "é"])
def test_a_token_with_something_after_it_is_refused(cast: Cast, junk: str) -> None:
    assert refused(show_me(cast, cast.ana.token + junk))


def test_a_token_names_one_session_of_its_own_user(cast: Cast) -> None:
    assert refused(show_me(cast, token_of(cast, sub=str(cast.ben.user_id))))
    assert refused(show_me(cast, token_of(cast, sid=str(cast.ben.session_id))))


@pytest.mark.parametrize("scheme", ["", "Basic", "Token", "Bearer Bearer"])
def test_nothing_but_a_bearer_token_is_taken(cast: Cast, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {cast.ana.token}"}
    assert refused(request(cast.app, "GET", "/v1/auth/me", headers=headers))


def test_a_token_in_the_address_is_not_taken(cast: Cast) -> None:
    assert refused(request(cast.app, "GET", f"/v1/auth/me?access_token={cast.ana.token}"))


def test_the_published_keys_verify_our_tokens_and_hold_nothing_private(cast: Cast) -> None:
    answer = request(cast.app, "GET", "/.well-known/jwks.json")
    assert answer.status_code == 200
    (published,) = answer.json["keys"]
    assert set(published) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    key = jwt.PyJWK(published)
    assert key.key_id == jwt.get_unverified_header(cast.ana.token)["kid"]
    assert jwt.decode(cast.ana.token, key, algorithms=["ES256"], audience=auth.AUDIENCE)["sub"] == str(cast.ana.user_id)


# --- what comes in with a password ------------------------------------------------------------------------------------


def post(cast: Cast, path: str, body: bytes) -> Answer:
    return request(cast.app, "POST", path, body)


@pytest.mark.parametrize("escape", [b"\\u0000", b"\\ud800", b"\\udfff x"])
@pytest.mark.parametrize("path", ["/v1/auth/login", "/v1/auth/register"])
@pytest.mark.parametrize("field", ["email", "password"])
def test_what_cannot_be_stored_is_refused_at_the_door(cast: Cast, path: str, field: str, escape: bytes) -> None:
    body = b'{"email": "a@example.com", "password": "%s"}' % PASSWORD.encode()
    body = body.replace(b'"%s": "' % field.encode(), b'"%s": "%s' % (field.encode(), escape))
    answer = post(cast, path, body)
    assert (answer.status_code, answer.json["code"]) == (400, "malformed_json")


@pytest.mark.parametrize("path", ["/v1/auth/login", "/v1/auth/register"])
def test_a_megabyte_of_password_costs_no_hashing(cast: Cast, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unused:
        def verify(self, *_: Any) -> bool:
            raise AssertionError("hashed")

        hash = verify

    monkeypatch.setattr(auth, "_hasher", Unused())
    body = {"email": "a@example.com", "password": "x" * 1_000_000}
    if path.endswith("register"):
        body |= {"first_name": "A", "last_name": "B", "phone": "1"}
    answer = post(cast, path, orjson.dumps(body))
    assert answer.status_code == 422
    assert len(answer.data) < 2000


def test_signing_in_is_limited_by_address_whoever_asks(cast: Cast, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = dataclasses.replace(settings, ratelimit_auth_strict="5 per minute")
    monkeypatch.setattr(cast.app.extensions["fleet"], "limits", limits.Limits(strict))
    body = orjson.dumps({"email": "nobody@example.com", "password": PASSWORD})
    assert [post(cast, "/v1/auth/login", body).status_code for _ in range(4)] == [401] * 4
    wrong = {"current_password": "not the right password", "new_password": "another fine passphrase"}
    assert cast.ana.post("/v1/auth/password", wrong).status_code == 401
    limited = cast.ben.post("/v1/auth/password", wrong)
    assert (limited.status_code, limited.json["code"]) == (429, "rate_limited")
    assert int(limited.headers["Retry-After"]) > 0


def test_no_secret_reaches_the_log(cast: Cast, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    login = orjson.dumps({"email": cast.ana.email, "password": PASSWORD})
    tokens = post(cast, "/v1/auth/login", login).json
    old = orjson.dumps({"refresh_token": tokens["refresh_token"]})
    new = post(cast, "/v1/auth/refresh", old).json
    key = cast.ana.post("/v1/api-keys", {"name": "robot", "permissions": ["auth.session"]}).json["key"]
    show_me(cast, key)
    show_me(cast, tokens["access_token"] + "x")
    post(cast, "/v1/auth/refresh", old)
    assert db.one("SELECT 1 FROM user_session WHERE end_reason = 'refresh_token_reused'")
    assert "a used refresh token came back" in caplog.text
    logged = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    for secret in (PASSWORD, cast.ana.email, key, *_secrets(tokens), *_secrets(new)):
        assert secret not in logged


def _secrets(tokens: dict[str, str]) -> tuple[str, str]:
    return tokens["access_token"], tokens["refresh_token"]
