import pytest

from fleet import passwords
from fleet.errors import Invalid
from tests.cast import PASSWORD

EMAIL = "somebody.long@example.com"


def refusal(password: str) -> str | None:
    try:
        passwords.check(password, email=EMAIL)
    except Invalid as error:
        assert (error.code, error.errors[0].field) == ("weak_password", "password")
        assert password not in str(error) or not password.strip()
        return error.errors[0].code
    return None


def test_twelve_characters_are_enough_and_eleven_are_not() -> None:
    assert refusal("kvx7mwq2ztb") == "too_short"
    assert refusal("kvx7mwq2ztbr") is None


def test_a_character_counts_once_however_many_bytes_it_takes() -> None:
    assert refusal("дюжина слов") == "too_short"
    assert refusal("двенадцать 1") is None


def test_the_longest_password_has_1024_bytes() -> None:
    phrase = "".join(f"{number:04x}" for number in range(256))
    assert refusal(phrase) is None
    assert refusal(phrase + "x") == "too_long"
    assert refusal("ß" * 3 + phrase[:-5]) == "too_long"


def test_no_kind_of_character_is_asked_for() -> None:
    for password in (PASSWORD, "only small letters here", "839201745662", "  spaces around it  "):
        assert refusal(password) is None, password


@pytest.mark.parametrize(
    "password",
    [
        "administrator",
        "Administrator",
        "1q2w3e4r5t6y",
        "qwertyuiop123",
        "password1234",
        "Password2026!",
        "!!!Welcome!!!",
        "letmein123456",
        "passwordpassword",
        "aaaaaaaaaaaa",
        "            ",
        "abcabcabcabc",
        "123456789012",
        "098765432109",
        "stuvwxyzabcd",
        "uytrewqmnbvc",
    ],
)
def test_what_everybody_would_guess_is_refused(password: str) -> None:
    assert refusal(password) == "too_common"


def test_the_e_mail_address_is_no_password() -> None:
    assert refusal(EMAIL.upper()) == "is_email"
    assert refusal("somebody.long") == "is_email"


def test_the_list_of_common_passwords_is_there_and_in_the_spelling_that_is_looked_up() -> None:
    assert len(passwords.COMMON) > 500
    assert all(word == word.casefold().strip() and word for word in passwords.COMMON)
