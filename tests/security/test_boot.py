"""Production does not start on anything unsafe: it names the variable and keeps the value to itself."""

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from fleet.config import DEVELOPMENT_SECRET, ConfigError, Settings
from fleet.embedded import Databases
from tests.source import ROOT

SECRET = "Zk3v9Qw7Lr2Tn8Xb5Yc1Hd6Jf4Mg0PsA"
SAFE = {
    "FLEET_ENV": "production",
    "SECRET_KEY": SECRET,
    "DATABASE_URL": "postgresql://fleet:pw-of-the-database@db.example/fleet",
    "REDIS_URL": "redis://:pw-of-redis@redis.example/0",
}
HIDDEN = "Hidden-Value-4711"

UNSAFE: dict[str, tuple[str, str]] = {
    "no secret": ("SECRET_KEY", ""),
    "the development secret": ("SECRET_KEY", DEVELOPMENT_SECRET),
    "a short secret": ("SECRET_KEY", HIDDEN),
    "a secret of one character": ("SECRET_KEY", "x" * 64),
    "a secret of a repeated word": ("SECRET_KEY", "changeme" * 8),
    "a short secret of before": ("SECRET_KEY_PREVIOUS", f"{'p' * 40} {HIDDEN}"),
    "the development secret of before": ("SECRET_KEY_PREVIOUS", DEVELOPMENT_SECRET),
    "the same secret before": ("SECRET_KEY_PREVIOUS", SECRET),
    "no database": ("DATABASE_URL", ""),
    "another database": ("DATABASE_URL", f"mysql://root:{HIDDEN}@db.example/fleet"),
    "a file for a database": ("DATABASE_URL", f"sqlite:///{HIDDEN}"),
    "no redis": ("REDIS_URL", ""),
    "limits in memory": ("REDIS_URL", "memory://"),
    "an address that is none": ("REDIS_URL", f"redis://[{HIDDEN}"),
    "a broker in memory": ("BROKER_URL", f"memory://{HIDDEN}"),
    "a limit that is none": ("RATELIMIT_PUBLIC", HIDDEN),
    "every origin": ("CORS_ORIGINS", "*"),
    "every origin among others": ("CORS_ORIGINS", "https://console.example, *"),
    "every host": ("TRUSTED_HOSTS", "*"),
    "every proxy": ("TRUSTED_PROXIES", "*"),
    "a negative number of proxies": ("TRUSTED_PROXIES", "-1"),
    "debugging": ("FLASK_DEBUG", "1"),
    "webhooks to private addresses": ("WEBHOOK_ALLOW_PRIVATE", "true"),
    "a key that is none": ("JWT_PRIVATE_KEY", HIDDEN),
    "old keys that are none": ("JWT_PREVIOUS_KEYS", HIDDEN),
    "old keys that are broken": ("JWT_PREVIOUS_KEYS", f"-----BEGIN PUBLIC KEY-----\n{HIDDEN}\n-----END PUBLIC KEY-----"),
    "an environment that is none": ("FLEET_ENV", HIDDEN),
    "a level that is none": ("LOG_LEVEL", HIDDEN),
    "no threads": ("WEB_THREADS", "0"),
    "no deadline": ("DATABASE_STATEMENT_TIMEOUT_MS", "0"),
    "a deadline in Arabic digits": ("DATABASE_LOCK_TIMEOUT_MS", "٨٠٠"),
    "card payments in the clear": ("STRIPE_API_BASE", f"http://{HIDDEN}.example"),
    "a mail server that is none": ("SMTP_URL", f"http://mail:{HIDDEN}@mail.example"),
}


def refusal(**changes: str) -> str:
    with pytest.raises(ConfigError) as refused:
        Settings.load({**SAFE, **changes})
    return f"{refused.value}"


def test_the_settings_that_the_others_spoil_are_safe() -> None:
    assert Settings.load(SAFE).production


@pytest.mark.parametrize(("name", "value"), UNSAFE.values(), ids=UNSAFE.keys())
def test_production_refuses(name: str, value: str) -> None:
    said = refusal(**{name: value})
    assert name in said
    assert HIDDEN not in said and "pw-of" not in said and SECRET not in said
    assert not value or value in {"*", "1", "0", "-1", "true", "false"} or value not in said


def test_production_refuses_one_value_for_two_secrets() -> None:
    assert "SECRET_KEY" in refusal(FLEET_ADMIN_PASSWORD=SECRET)
    assert "SECRET_KEY" in refusal(DATABASE_URL=f"postgresql://fleet:{SECRET}@db.example/fleet")
    assert "SECRET_KEY" in refusal(REDIS_URL=f"redis://:{SECRET}@redis.example/0")


@pytest.mark.parametrize("name", ["SECRET_KEY", "LICENCE_KEY"])
@pytest.mark.parametrize("blank", ["\n", " and more"])
def test_a_key_with_white_space_is_refused_as_it_could_never_be_a_former_one(name: str, blank: str) -> None:
    assert f"{name} holds white space" in refusal(**{name: f"a-key-of-the-tests-0123456789-abcdefgh{blank}"})


def test_everything_that_is_wrong_is_told_at_once() -> None:
    said = refusal(SECRET_KEY="short", CORS_ORIGINS="*", LOG_LEVEL="LOUD", DATABASE_URL="")
    assert all(name in said for name in ("SECRET_KEY", "CORS_ORIGINS", "LOG_LEVEL", "DATABASE_URL"))
    # Whatever a former key sealed is taken for whole: a published or guessed one lets anybody write the audit log anew.
    said = refusal(AUDIT_PREVIOUS_SECRETS=f"{HIDDEN} {DEVELOPMENT_SECRET}")
    for wrong in ("holds one that is shorter", "holds the development default"):
        assert f"AUDIT_PREVIOUS_SECRETS {wrong}" in said and HIDDEN not in said


def test_development_is_for_those_who_set_nothing_but_the_databases() -> None:
    bare = {"FLEET_ENV": "development", "DATABASE_URL": SAFE["DATABASE_URL"], "REDIS_URL": SAFE["REDIS_URL"]}
    assert Settings.load(bare).secret_key == DEVELOPMENT_SECRET


def test_whoever_says_nothing_of_the_environment_gets_production() -> None:
    with pytest.raises(ConfigError, match="SECRET_KEY"):
        Settings.load({"DATABASE_URL": SAFE["DATABASE_URL"], "REDIS_URL": SAFE["REDIS_URL"]})


PROCESSES = {
    "web": ["-c", "import wsgi"],
    "relay": ["-m", "tasks.relay"],
    "worker": ["-m", "celery", "--app", "tasks", "worker", "--pool", "solo"],
    "beat": ["-m", "celery", "--app", "tasks", "beat", "--schedule", "/dev/null"],
    "flower": ["-m", "tasks.flower"],
    "a command": ["-m", "flask", "--app", "wsgi", "db", "status"],
}


def start(arguments: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True, timeout=60
    )


@pytest.mark.slow
@pytest.mark.parametrize("arguments", PROCESSES.values(), ids=PROCESSES.keys())
def test_no_process_starts_on_an_unsafe_setting(arguments: list[str]) -> None:
    ended = start(arguments, {**SAFE, "SECRET_KEY": HIDDEN})
    assert ended.returncode != 0
    assert "SECRET_KEY" in ended.stdout + ended.stderr
    assert HIDDEN not in ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["web", "relay", "worker", "beat"])
def test_no_process_starts_as_a_superuser_of_the_database(name: str, databases: Databases) -> None:
    ended = start(PROCESSES[name], {**SAFE, "DATABASE_URL": databases.superuser_url, "REDIS_URL": databases.redis_url})
    assert ended.returncode != 0
    said = ended.stdout + ended.stderr
    assert "DATABASE_URL is a superuser" in said
    assert databases.superuser_url not in said
