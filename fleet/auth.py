"""Who acts, what each role may do, and the tokens that prove it. No Flask, no database."""

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jwt.algorithms import ECAlgorithm

from fleet import errors
from fleet.config import Settings, public_keys

EVERYBODY = frozenset({"auth.session", "branches.read", "vehicle_classes.read", "vehicles.read", "availability.read"})
CUSTOMER = EVERYBODY | {
    "customers.read", "customers.update", "customers.create_own", "customers.export", "rentals.read",
    "rentals.reserve", "rentals.confirm", "rentals.cancel", "invoices.read",
    "payments.read", "payments.create", "api_keys.manage",
}  # fmt: skip
DRIVER = EVERYBODY | {"second_factor.enrol"}
WORKSHOP = EVERYBODY | {
    "vehicles.status", "odometer.read", "odometer.record", "calendar.read", "blocks.manage", "api_keys.manage",
    "second_factor.enrol",
}  # fmt: skip
COUNTER = CUSTOMER | {
    "customers.read_all", "customers.read_identity", "customers.create", "customers.deactivate", "rentals.read_all",
    "rentals.update", "rentals.activate", "rentals.complete", "rentals.no_show", "rentals.charge", "invoices.read_all",
    "odometer.read", "odometer.record", "calendar.read", "blocks.manage", "notifications.read",
    "payments.read_all", "payments.record", "refunds.request", "second_factor.enrol",
}  # fmt: skip
MANAGER = COUNTER | WORKSHOP | {
    "branches.manage", "vehicle_classes.manage", "vehicles.create", "vehicles.update", "vehicles.delete",
    "rentals.backdate", "customers.erase", "ledger.read", "events.read", "queues.read", "refunds.approve",
    "circuit_breakers.read", "cache.read",
}  # fmt: skip
ACCOUNTANT = EVERYBODY | {
    "customers.read", "customers.read_all", "rentals.read", "rentals.read_all", "invoices.read", "invoices.read_all",
    "payments.read", "payments.read_all", "payments.create", "payments.record", "refunds.request", "refunds.approve",
    "ledger.read", "ledger.post", "ledger.accounts", "reconciliation.read", "notifications.read", "api_keys.manage",
    "events.read", "second_factor.enrol",
}  # fmt: skip
ADMIN = MANAGER | ACCOUNTANT | {
    "users.manage", "webhooks.manage", "audit.read", "dead_letters.read", "dead_letters.replay", "dead_letters.discard",
    "circuit_breakers.control", "cache.flush",
}  # fmt: skip

# The one table of who may do what; docs/api.md shows it and a test holds the two together.
ROLES: dict[str, frozenset[str]] = {
    "admin": ADMIN,
    "fleet_manager": MANAGER,
    "rental_agent": COUNTER,
    "maintenance_staff": WORKSHOP,
    "accountant": ACCOUNTANT,
    "driver": DRIVER,
    "customer": CUSTOMER,
}
PERMISSIONS = frozenset().union(*ROLES.values())

ACCESS_LIFETIME = timedelta(minutes=15)
SESSION_LIFETIME = timedelta(days=30)
API_KEY_PREFIX = "flt_"
ISSUER, AUDIENCE, TOKEN_TYPE = "fleet", "fleet-api", "at+jwt"
MAX_TOKEN_LENGTH = 4096
_REQUIRED_CLAIMS = ["iss", "aud", "sub", "sid", "jti", "iat", "exp"]


def permissions_of(roles: list[str]) -> frozenset[str]:
    """All that the roles allow together."""
    return frozenset().union(*(ROLES.get(role, frozenset()) for role in roles))


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks. `customer_id` is the renter's profile of that user, if there is one."""

    user_id: UUID
    roles: tuple[str, ...]
    permissions: frozenset[str]
    customer_id: UUID | None = None
    session_id: UUID | None = None
    api_key_id: UUID | None = None
    name: str = field(init=False, compare=False)
    """One name for counters and idempotency records: keys are apart from their owner's sessions."""

    def __post_init__(self) -> None:
        name = f"key:{self.api_key_id}" if self.api_key_id else f"user:{self.user_id}"
        object.__setattr__(self, "name", name)  # frozen for everybody else

    def can(self, permission: str) -> bool:
        return permission in self.permissions

    def must(self, permission: str) -> None:
        """Raises Forbidden when the actor lacks the permission."""
        if permission not in self.permissions:
            raise errors.Forbidden(f"It takes the permission {permission}")

    def must_have_session(self) -> UUID:
        """The session that the actor signed in with. Raises Forbidden for a machine key, which must not outgrow itself."""
        if self.session_id is None:
            raise errors.Forbidden("It takes a signed-in user, not an API key")
        return self.session_id


# --- passwords and opaque secrets -------------------------------------------------------------------------------------

MIN_PASSWORD_LENGTH = 12
MAX_PASSWORD_BYTES = 1024
# argon2id as OWASP's Password Storage Cheat Sheet sizes it: 19 MiB, two passes, one lane.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_ABSENT_ACCOUNT = _hasher.hash(secrets.token_hex(16))


def hash_password(password: str) -> str:
    return _hasher.hash(password)


def password_matches(password: str, stored: str | None) -> bool:
    """Compare in the same time whether or not there is an account: `stored` None is an unknown one."""
    try:
        _hasher.verify(stored or _ABSENT_ACCOUNT, password)
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None


def new_secret(prefix: str = "") -> str:
    """An unguessable opaque token of 256 bits."""
    return prefix + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> bytes:
    """What is stored of an opaque token. It has 256 bits of its own, so a plain digest suffices."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


# --- access tokens ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified access token says."""

    user_id: UUID
    session_id: UUID
    expires_at: float


class Tokens:
    """Signs and verifies access tokens: ES256 only, keys by `kid` from a fixed map (RFC 7515, RFC 9068)."""

    def __init__(self, settings: Settings) -> None:
        self._key, *derived = _signing_keys(settings)
        self._kid = _thumbprint(self._key.public_key())
        self._public = {self._kid: self._key.public_key()}
        for key in public_keys(settings.jwt_previous_keys) if settings.jwt_previous_keys else ():
            self._public[_thumbprint(key)] = key
        self._public |= {_thumbprint(key.public_key()): key.public_key() for key in derived}
        self._verified: dict[bytes, Claims] = {}

    def issue(self, *, user_id: UUID, session_id: UUID, at: datetime) -> str:
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "sid": str(session_id),
            "jti": secrets.token_hex(16),
            "iat": int(at.timestamp()),
            "exp": int((at + ACCESS_LIFETIME).timestamp()),
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._kid, "typ": TOKEN_TYPE})

    def verify(self, token: str, *, at: datetime) -> Claims:
        """What the token says. Raises Unauthenticated (`unauthenticated` or `token_expired`).

        Verified tokens are remembered by digest, because a signature check costs a tenth of a request. Whether the session
        behind it still lives is asked of the database each time, so nothing outlives a logout here.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        claims = self._verified.get(digest)
        if claims is None:
            claims = self._read(token, at)
            if len(self._verified) >= _REMEMBERED_TOKENS:
                self._verified.clear()
            self._verified[digest] = claims
        if claims.expires_at <= at.timestamp():
            raise errors.Unauthenticated("The access token has expired", code="token_expired")
        return claims

    def jwks(self) -> list[dict[str, Any]]:
        """The public keys, newest first, as others verify our tokens with them (RFC 7517)."""
        return [
            {**ECAlgorithm.to_jwk(key, as_dict=True), "kid": kid, "use": "sig", "alg": "ES256"}
            for kid, key in self._public.items()
        ]

    def _read(self, token: str, at: datetime) -> Claims:
        # Decoders skip what is not base64url, so that one signature would stand for any number of spellings.
        if len(token) > MAX_TOKEN_LENGTH or not _COMPACT.fullmatch(token):
            raise errors.Unauthenticated()
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != TOKEN_TYPE or set(header) - {"alg", "kid", "typ"}:
                raise errors.Unauthenticated()
            key = self._public[header["kid"]]
            options: Any = {"require": _REQUIRED_CLAIMS, "verify_exp": False, "verify_iat": False}
            said = jwt.decode(token, key, algorithms=["ES256"], audience=AUDIENCE, issuer=ISSUER, options=options)
            return _bounded(said, at)
        except (jwt.PyJWTError, KeyError, ValueError, TypeError, RecursionError):
            raise errors.Unauthenticated() from None


_REMEMBERED_TOKENS = 10_000
_COMPACT = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}", re.ASCII)
_CLOCK_SKEW_S = 60


def _bounded(said: dict[str, Any], at: datetime) -> Claims:
    """Refuse a token that claims more than this service ever gives: the lifetime is the server's, not the token's."""
    issued, expires = said["iat"], said["exp"]
    if not (isinstance(issued, int) and isinstance(expires, int)) or issued > at.timestamp() + _CLOCK_SKEW_S:
        raise ValueError("times")
    if not 0 < expires - issued <= ACCESS_LIFETIME.total_seconds():
        raise ValueError("lifetime")
    return Claims(UUID(str(said["sub"])), UUID(str(said["sid"])), float(expires))


def _signing_keys(settings: Settings) -> list[ec.EllipticCurvePrivateKey]:
    """The key that signs, and after it those derived from previous secrets, whose tokens are still alive."""
    previous = [_derived_key(secret) for secret in settings.secret_key_previous]
    if not settings.jwt_private_key:
        return [_derived_key(settings.secret_key), *previous]
    key = serialization.load_pem_private_key(settings.jwt_private_key.encode(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - checked when the settings were read
    return [key, *previous]


def _derived_key(secret_key: str) -> ec.EllipticCurvePrivateKey:
    material = HKDF(hashes.SHA256(), 40, salt=None, info=b"fleet access tokens").derive(secret_key.encode())
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    return ec.derive_private_key(int.from_bytes(material, "big") % (order - 1) + 1, ec.SECP256R1())


def _thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    numbers = key.public_numbers()
    return hashlib.sha256(f"{numbers.x:064x}{numbers.y:064x}".encode()).hexdigest()[:16]
