"""Every setting, once: its name in the environment, its type, its default, and what makes it unsafe."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from limits import parse as parse_limit

from fleet.rules.languages import LANGUAGES

# Short ones for what is slow: what waits in the broker longer than its lease is published twice.
QUEUES = {"accounting": 200, "notifications": 20, "webhooks": 20, "maintenance": 200, "default": 20}
# What can be cached: fleet/cache.py.
CACHED = ("vehicles", "vehicle_classes", "branches", "availability")
Environment = Literal["development", "test", "production"]
DEVELOPMENT_SECRET = "development-only-secret-key-never-in-production"  # noqa: S105 - refused by production below
# Published in the README: it opens only a demo on one's own machine, which production refuses to make.
DEMO_PASSWORD = "fleet-demo-admin-2026"  # noqa: S105 - no secret
MAX_COST = 100
MIN_SECRET_LENGTH = 32
MIN_PASSWORD_LENGTH = 12
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
# Switches for development that no production may have on.
UNSAFE_SWITCHES = ("FLASK_DEBUG", "WEBHOOK_ALLOW_PRIVATE")
_BREAKER_RULES = {"failure_percent": int, "min_calls": int, "window_s": float, "open_s": float, "probe_s": float}
_BREAKER_OVERRIDE = re.compile(
    r"(broker|postgresql|redis|sms|smtp|stripe|webhooks)\."
    r"(?:((?:failure_percent|min_calls)=[1-9][0-9]{0,5})|((?:window|open|probe)_s=(?:[1-9][0-9]{0,4}(?:\.[0-9]{1,3})?|0\.[0-9]{0,2}[1-9])))"
)
_PEM_BLOCK = re.compile(r"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----\n?", re.S)


class ConfigError(Exception):
    """The environment is missing something or holds something unsafe. The message names variables, never values."""


def _text(raw: str) -> str:
    return raw


def _whole(raw: str) -> int:
    if not (raw.isascii() and raw.isdigit() and len(raw) < 10):
        raise ValueError("must be a whole number")
    return int(raw)


def _positive(raw: str) -> int:
    number = _whole(raw)
    if number == 0:
        raise ValueError("must be more than 0")
    return number


def _switch(raw: str) -> bool:
    if raw.lower() not in {"1", "0", "true", "false", "on", "off", "yes", "no"}:
        raise ValueError("must be true or false")
    return raw.lower() in {"1", "true", "on", "yes"}


def _names(raw: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in raw.split(",") if part.strip())


def _words(raw: str) -> tuple[str, ...]:
    return tuple(raw.split())


def _environment(raw: str) -> str:
    if raw not in get_args(Environment):
        raise ValueError("must be one of " + ", ".join(get_args(Environment)))
    return raw


def _url(*schemes: str) -> Callable[[str], str]:
    def read(raw: str) -> str:
        wanted = "must be a URL of the form " + " or ".join(f"{scheme}://" for scheme in schemes)
        try:
            known = urlsplit(raw).scheme in schemes
        except ValueError:
            # Its message may quote the address, password and all.
            raise ValueError(wanted) from None
        if not known:
            raise ValueError(wanted)
        return raw

    return read


def _database(raw: str) -> str:
    """Platforms hand out postgres://, which libpq reads too: one spelling inside."""
    return _url("postgresql", "postgres")(raw).replace("postgres://", "postgresql://", 1)


def _limit(raw: str) -> str:
    try:
        parse_limit(raw)
    except ValueError:
        raise ValueError("must be a limit such as 5 per minute") from None
    return raw


def _queue_limits(raw: str) -> str:
    """Such as notifications=20,webhooks=20."""
    for part in _names(raw):
        queue, _, limit = part.partition("=")
        if queue not in QUEUES:
            raise ValueError("must name queues among " + ", ".join(QUEUES))
        _positive(limit)
    return raw


def _costs(raw: str) -> str:
    """Such as invoices.document=20,calendar.free=5."""
    for part in _names(raw):
        operation, _, cost = part.partition("=")
        if not operation or _positive(cost) > MAX_COST:
            raise ValueError(f"must name operations, each with = and a cost of at most {MAX_COST}")
    return raw


def _breaker_overrides(raw: str) -> str:
    """Such as smtp.min_calls=3,webhooks.open_s=60."""
    for part in _names(raw):
        if not _BREAKER_OVERRIDE.fullmatch(part):
            raise ValueError("must be settings such as smtp.min_calls=3, of " + ", ".join(_BREAKER_RULES))
    return raw


def _cached(raw: str) -> tuple[str, ...]:
    """Such as vehicles,branches; or none."""
    chosen = () if raw == "none" else _names(raw)
    if not set(chosen) <= set(CACHED):
        raise ValueError("must be none, or names among " + ", ".join(CACHED))
    return chosen


def _credentials(raw: str) -> str:
    """One or more of user:password, with commas between."""
    for part in raw.split(","):
        user, _, password = part.partition(":")
        if not user or len(password) < MIN_PASSWORD_LENGTH:
            raise ValueError(f"must be user:password, with at least {MIN_PASSWORD_LENGTH} characters after the colon")
    return raw


def _level(raw: str) -> str:
    if raw.upper() not in LOG_LEVELS:
        raise ValueError("must be one of " + ", ".join(LOG_LEVELS))
    return raw.upper()


def _currency(raw: str) -> str:
    if not (len(raw) == 3 and raw.isascii() and raw.isupper()):
        raise ValueError("must be a three-letter currency code")
    return raw


def _language(raw: str) -> str:
    if raw not in LANGUAGES:
        raise ValueError("must be one of " + ", ".join(LANGUAGES))
    return raw


def _private_key(raw: str) -> str:
    pem = raw.replace("\\n", "\n")
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        raise ValueError("must be a private key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ValueError("must be a P-256 key")
    return pem


def public_keys(raw: str) -> list[ec.EllipticCurvePublicKey]:
    """The public halves of the P-256 keys in PEM blocks, private or public, one after the other. Raises ValueError."""
    blocks = _PEM_BLOCK.findall(raw.replace("\\n", "\n"))
    if not blocks:
        raise ValueError("must be keys in PEM")
    return [_public_key(block.encode()) for block in blocks]


def _public_key(pem: bytes) -> ec.EllipticCurvePublicKey:
    key: Any
    try:
        key = load_pem_private_key(pem, password=None).public_key() if b"PRIVATE" in pem else load_pem_public_key(pem)
    except (ValueError, TypeError):
        raise ValueError("must be keys in PEM") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise ValueError("must be P-256 keys")
    return key


def _previous_keys(raw: str) -> str:
    public_keys(raw)
    return raw


def _setting(name: str, read: Callable[[str], Any], default: Any = None) -> Any:
    return field(default=default, metadata={"name": name, "read": read})


@dataclass(frozen=True)
class Settings:
    """The service's settings. Read them with `load`; the names are those of the environment."""

    env: Environment = _setting("FLEET_ENV", _environment, "production")
    secret_key: str = _setting("SECRET_KEY", _text, "")
    secret_key_previous: tuple[str, ...] = _setting("SECRET_KEY_PREVIOUS", _words, ())
    licence_key: str = _setting("LICENCE_KEY", _text, "")
    licence_key_previous: tuple[str, ...] = _setting("LICENCE_KEY_PREVIOUS", _words, ())
    database_url: str = _setting("DATABASE_URL", _database, "")
    database_migration_url: str = _setting("DATABASE_MIGRATION_URL", _database, "")
    database_replica_url: str = _setting("DATABASE_REPLICA_URL", _database, "")
    database_replica_max_lag_ms: int = _setting("DATABASE_REPLICA_MAX_LAG_MS", _positive, 50)
    database_connect_timeout_ms: int = _setting("DATABASE_CONNECT_TIMEOUT_MS", _positive, 700)
    database_statement_timeout_ms: int = _setting("DATABASE_STATEMENT_TIMEOUT_MS", _positive, 1200)
    database_lock_timeout_ms: int = _setting("DATABASE_LOCK_TIMEOUT_MS", _positive, 1100)
    redis_url: str = _setting("REDIS_URL", _url("redis", "rediss"), "")
    broker_url: str = _setting("BROKER_URL", _url("redis", "rediss", "amqp", "amqps"), "")
    cache_namespaces: tuple[str, ...] = _setting("CACHE_NAMESPACES", _cached, CACHED)
    jwt_private_key: str = _setting("JWT_PRIVATE_KEY", _private_key, "")
    jwt_previous_keys: str = _setting("JWT_PREVIOUS_KEYS", _previous_keys, "")
    ratelimit_enabled: bool = _setting("RATELIMIT_ENABLED", _switch, True)
    ratelimit_auth_strict: str = _setting("RATELIMIT_AUTH_STRICT", _limit, "5 per minute")
    ratelimit_public: str = _setting("RATELIMIT_PUBLIC", _limit, "100 per minute")
    ratelimit_authenticated: str = _setting("RATELIMIT_AUTHENTICATED", _limit, "500 per minute")
    ratelimit_global: str = _setting("RATELIMIT_GLOBAL", _limit, "100000 per minute")
    ratelimit_costs: str = _setting("RATELIMIT_COSTS", _costs, "")
    trusted_hosts: tuple[str, ...] = _setting("TRUSTED_HOSTS", _names, ())
    trusted_proxies: int = _setting("TRUSTED_PROXIES", _whole, 0)
    cors_origins: tuple[str, ...] = _setting("CORS_ORIGINS", _names, ())
    request_deadline_ms: int = _setting("REQUEST_DEADLINE_MS", _positive, 6000)
    card_deadline_ms: int = _setting("CARD_DEADLINE_MS", _positive, 12_000)
    web_threads: int = _setting("WEB_THREADS", _positive, 8)
    web_queue_length: int = _setting("WEB_QUEUE_LENGTH", _positive, 1000)
    web_queue_wait_ms: int = _setting("WEB_QUEUE_WAIT_MS", _positive, 10_000)
    web_deferrable_threads: int = _setting("WEB_DEFERRABLE_THREADS", _whole, 0)
    docs_enabled: bool = _setting("FLEET_DOCS_ENABLED", _switch, True)
    billing_grace_minutes: int = _setting("BILLING_GRACE_MINUTES", _whole, 59)
    payment_terms_days: int = _setting("PAYMENT_TERMS_DAYS", _whole, 14)
    refund_approval_limit: int = _setting("REFUND_APPROVAL_LIMIT", _whole, 50_000)
    currency: str = _setting("FLEET_CURRENCY", _currency, "USD")
    relay_queue_limits: str = _setting(
        "RELAY_QUEUE_LIMITS", _queue_limits, ",".join(f"{queue}={limit}" for queue, limit in QUEUES.items())
    )
    worker_stuck_after_s: int = _setting("WORKER_STUCK_AFTER_S", _positive, 60)
    max_open_holds: int = _setting("MAX_OPEN_HOLDS", _whole, 5)
    max_open_reservations: int = _setting("MAX_OPEN_RESERVATIONS", _whole, 20)
    no_show_after_hours: int = _setting("NO_SHOW_AFTER_HOURS", _positive, 24)
    smtp_url: str = _setting("SMTP_URL", _url("smtp", "smtps"), "")
    mail_from: str = _setting("FLEET_MAIL_FROM", _text, "Fleet <no-reply@fleet.invalid>")
    mail_dir: str = _setting("FLEET_MAIL_DIR", _text, "var/mail")
    flower_address: str = _setting("FLOWER_ADDRESS", _text, "127.0.0.1")
    flower_port: int = _setting("FLOWER_PORT", _positive, 5555)
    flower_basic_auth: str = _setting("FLOWER_BASIC_AUTH", _credentials, "")
    sms_url: str = _setting("SMS_URL", _url("https", "http"), "")
    sms_token: str = _setting("SMS_TOKEN", _text, "")
    sms_sender: str = _setting("SMS_SENDER", _text, "Fleet")
    sms_key_honoured: bool = _setting("SMS_KEY_HONOURED", _switch, False)
    public_url: str = _setting("PUBLIC_URL", _url("https", "http"), "")
    default_language: str = _setting("DEFAULT_LANGUAGE", _language, "en")
    reminder_hours: int = _setting("REMINDER_HOURS", _whole, 24)
    overdue_notice_minutes: int = _setting("OVERDUE_NOTICE_MINUTES", _positive, 60)
    seller_name: str = _setting("SELLER_NAME", _text, "Fleet")
    seller_address: str = _setting("SELLER_ADDRESS", _text, "")
    seller_tax_id: str = _setting("SELLER_TAX_ID", _text, "")
    breaker_failure_percent: int = _setting("BREAKER_FAILURE_PERCENT", _positive, 50)
    breaker_min_calls: int = _setting("BREAKER_MIN_CALLS", _positive, 5)
    breaker_window_s: int = _setting("BREAKER_WINDOW_S", _positive, 30)
    breaker_open_s: int = _setting("BREAKER_OPEN_S", _positive, 10)
    breaker_overrides: str = _setting("BREAKER_OVERRIDES", _breaker_overrides, "")
    stripe_api_key: str = _setting("STRIPE_API_KEY", _text, "")
    stripe_api_base: str = _setting("STRIPE_API_BASE", _url("https", "http"), "https://api.stripe.com")
    card_calls_at_once: int = _setting("CARD_CALLS_AT_ONCE", _positive, 4)
    stripe_webhook_secret: str = _setting("STRIPE_WEBHOOK_SECRET", _text, "")
    metrics_token: str = _setting("FLEET_METRICS_TOKEN", _text, "")
    webhook_allow_private: bool = _setting("WEBHOOK_ALLOW_PRIVATE", _switch, False)
    audit_previous_secrets: tuple[str, ...] = _setting("AUDIT_PREVIOUS_SECRETS", _words, ())
    audit_keep_days: int = _setting("AUDIT_KEEP_DAYS", _whole, 0)
    log_level: str = _setting("LOG_LEVEL", _level, "INFO")

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read and check the environment. Raises ConfigError naming every variable that is wrong."""
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        wrong: list[str] = []
        for spec in fields(cls):
            raw = environ.get(spec.metadata["name"], "")
            if raw:
                try:
                    values[spec.name] = spec.metadata["read"](raw)
                except ValueError as error:
                    wrong.append(f"{spec.metadata['name']} {error}")
        settings = cls(**values)._with_fallbacks()
        wrong += settings._unsafe(environ)
        if wrong:
            raise ConfigError("refusing to start: " + "; ".join(wrong))
        return settings

    @property
    def secret_keys(self) -> tuple[str, ...]:
        """The key that signs and seals, and after it those whose work is still taken."""
        return (self.secret_key, *self.secret_key_previous)

    @property
    def licence_keys(self) -> tuple[str, ...]:
        """The keys by which a licence number may be found: the one in use, if there is one, and those beside it."""
        return tuple(filter(None, (self.licence_key, *self.licence_key_previous)))

    @property
    def production(self) -> bool:
        return self.env == "production"

    @property
    def queue_limits(self) -> dict[str, int]:
        """How many messages may wait in each queue; one that is not named keeps its usual limit."""
        chosen = dict(part.split("=") for part in _names(self.relay_queue_limits))
        return {queue: int(chosen.get(queue, usual)) for queue, usual in QUEUES.items()}

    @property
    def costs(self) -> dict[str, int]:
        """How many calls the named operations count as, where that differs from what they declare."""
        return {name: int(cost) for name, _, cost in (part.partition("=") for part in _names(self.ratelimit_costs))}

    @property
    def breaker_rules(self) -> dict[str, dict[str, float]]:
        """What BREAKER_OVERRIDES says of each dependency, by the name of the rule."""
        rules: dict[str, dict[str, float]] = {}
        for part in _names(self.breaker_overrides):
            name, rule, value = re.split("[.=]", part, maxsplit=2)
            rules.setdefault(name, {})[rule] = _BREAKER_RULES[rule](value)
        return rules

    def _with_fallbacks(self) -> "Settings":
        chosen = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        chosen["broker_url"] = self.broker_url or self.redis_url
        chosen["database_migration_url"] = self.database_migration_url or self.database_url
        if not self.production:
            chosen["secret_key"] = self.secret_key or DEVELOPMENT_SECRET
        return type(self)(**chosen)

    def _unsafe(self, environ: Mapping[str, str]) -> list[str]:
        wrong = [f"{name} is missing" for name, value in self._needed().items() if not value]
        for name, key in {"SECRET_KEY": self.secret_key, "LICENCE_KEY": self.licence_key}.items():
            wrong += self._unsafe_key(name, key, environ) if key else []
        wrong += self._unsafe_previous()
        if self.production:
            wrong += [f"{name} is for development" for name in UNSAFE_SWITCHES if _is_on(environ.get(name, ""))]
            wrong += [f"{name} must be https:// in production" for name, url in self._outward() if url.startswith("http:")]
        if bool(self.sms_url) != bool(self.sms_token):
            wrong.append("SMS_URL and SMS_TOKEN belong together")
        if "*" in self.cors_origins:
            wrong.append("CORS_ORIGINS must be an exact list")
        if "*" in self.trusted_hosts:
            wrong.append("TRUSTED_HOSTS must be an exact list")
        return wrong

    def _unsafe_key(self, name: str, key: str, environ: Mapping[str, str]) -> list[str]:
        wrong = []
        if self.production and key == DEVELOPMENT_SECRET:
            wrong.append(f"{name} is the development default")
        if len(key) < MIN_SECRET_LENGTH:
            wrong.append(f"{name} is shorter than {MIN_SECRET_LENGTH} characters")
        if self.production and len(set(key)) < 10:
            wrong.append(f"{name} repeats a few characters")
        if key.split() != [key]:  # the list of former keys would be split there: what this one sealed or indexed were lost
            wrong.append(f"{name} holds white space")
        if key in _other_secrets(environ, but=name):
            wrong.append(f"{name} is another secret's value too")
        return wrong

    def _unsafe_previous(self) -> list[str]:
        """They open or vouch for what the present keys do, so that no weaker one may stand beside them."""
        wrong = []
        former = {
            "SECRET_KEY_PREVIOUS": self.secret_key_previous,
            "LICENCE_KEY_PREVIOUS": self.licence_key_previous,
            "AUDIT_PREVIOUS_SECRETS": self.audit_previous_secrets,
        }
        for name, keys in former.items():
            if any(len(key) < MIN_SECRET_LENGTH for key in keys):
                wrong.append(f"{name} holds one that is shorter than {MIN_SECRET_LENGTH} characters")
            if self.production and DEVELOPMENT_SECRET in keys:
                wrong.append(f"{name} holds the development default")
            wrong += [
                f"{name} holds {present} itself"
                for present, key in {"SECRET_KEY": self.secret_key, "LICENCE_KEY": self.licence_key}.items()
                if key in keys
            ]
        return wrong

    def _outward(self) -> list[tuple[str, str]]:
        return [("SMS_URL", self.sms_url), ("PUBLIC_URL", self.public_url), ("STRIPE_API_BASE", self.stripe_api_base)]

    def _needed(self) -> dict[str, str]:
        return {"SECRET_KEY": self.secret_key, "DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url}


def _other_secrets(environ: Mapping[str, str], *, but: str) -> set[str]:
    """The other secrets of the environment: passwords, and those inside addresses."""
    passwords = re.findall(r"://[^/?#\s]*?:([^/?#\s]+)@", " ".join(environ.get(name, "") for name in _ADDRESSES))
    return {*passwords, *(environ.get(name, "") for name in _SECRETS if name != but)}


def _is_on(raw: str) -> bool:
    return raw.lower() not in {"", "0", "false", "off", "no"}


_ADDRESSES = ("DATABASE_URL", "DATABASE_MIGRATION_URL", "DATABASE_REPLICA_URL", "REDIS_URL", "BROKER_URL", "SMTP_URL")
_SECRETS = (
    "FLEET_ADMIN_PASSWORD", "FLEET_METRICS_TOKEN", "LICENCE_KEY", "SECRET_KEY", "SMS_TOKEN", "STRIPE_API_KEY",
    "STRIPE_WEBHOOK_SECRET",
)  # fmt: skip
_current: Settings | None = None


def use(settings: Settings) -> None:
    """Make these the process's settings: called once, by whatever starts the process."""
    global _current  # noqa: PLW0603 - a process has one configuration, and services must not need Flask to know it
    _current = settings


def current() -> Settings:
    """The process's settings."""
    if _current is None:
        raise ConfigError("no settings in use: the process was not started by app.py or tasks")
    return _current


def names() -> dict[str, Any]:
    """Every environment variable with its default, for the documentation and its test."""
    return {spec.metadata["name"]: spec.default for spec in fields(Settings)}
