"""What the database holds of account safety, whoever writes to it."""

from datetime import timedelta
from typing import Any

import peewee
import pytest

from fleet import clock
from fleet.db import db
from fleet.errors import constraint_of
from tests.cast import Cast


def refusal(sql: str, *params: Any) -> str:
    with pytest.raises(peewee.PeeweeException) as caught:
        db.execute_sql(sql, params)
    return constraint_of(caught.value)


TOKEN = """INSERT INTO account_token (token_hash, user_id, purpose, promise_id, created_at, expires_at)
VALUES (%s, %s, %s, %s, %s, %s)"""


@pytest.mark.parametrize(
    ("constraint", "changes"),
    [
        ("account_token_digest", {"digest": b"the token itself, as it was sent to somebody"}),
        ("account_token_purpose", {"purpose": "anything"}),
        ("account_token_lifetime", {"minutes": 31}),
        ("account_token_lifetime", {"minutes": 0}),
        ("account_token_lifetime", {"purpose": "email_verification", "minutes": 24 * 60 + 1}),
    ],
    ids=["clear", "purpose", "too long", "never", "too long to verify"],
)
def test_a_token_is_a_digest_with_a_purpose_and_a_short_life(cast: Cast, constraint: str, changes: dict[str, Any]) -> None:
    values = {"digest": b"d" * 32, "purpose": "password_reset", "minutes": 30, **changes}
    now = clock.now()
    until = now + timedelta(minutes=values["minutes"])
    found = refusal(TOKEN, values["digest"], cast.ana.user_id, values["purpose"], clock.new_id(), now, until)
    assert found == constraint


def test_a_factor_is_in_force_by_a_code_and_its_codes_never_come_back(cast: Cast) -> None:
    about = (cast.agent.user_id,)
    half = "INSERT INTO second_factor (user_id, secret, confirmed_at) VALUES (%s, 's', now())"
    assert refusal(half, *about) == "second_factor_confirmed_by_code"
    db.execute_sql("INSERT INTO second_factor (user_id, secret, confirmed_at, last_step) VALUES (%s, 's', now(), 7)", about)
    assert refusal("UPDATE second_factor SET last_step = 6 WHERE user_id = %s", *about) == "second_factor_steps_grow"
    assert refusal("UPDATE second_factor SET failures = -1 WHERE user_id = %s", *about) == "second_factor_failures"
    undone = "UPDATE second_factor SET last_step = NULL, confirmed_at = NULL WHERE user_id = %s"
    assert refusal(undone, *about) == "second_factor_steps_grow"
    db.execute_sql("UPDATE second_factor SET last_step = 8 WHERE user_id = %s", about)


def test_a_recovery_code_is_a_digest_of_somebody_with_a_factor_and_goes_with_it(cast: Cast) -> None:
    code = "INSERT INTO recovery_code (code_hash, user_id) VALUES (%s, %s)"
    assert refusal(code, b"d" * 32, cast.agent.user_id) == "recovery_code_user_id_fkey"
    db.execute_sql("INSERT INTO second_factor (user_id, secret) VALUES (%s, 's')", (cast.agent.user_id,))
    assert refusal(code, b"ABCD-EFGH", cast.agent.user_id) == "recovery_code_digest"
    db.execute_sql(code, (b"d" * 32, cast.agent.user_id))
    db.execute_sql("DELETE FROM second_factor")
    assert db.rows("SELECT 1 FROM recovery_code") == []
