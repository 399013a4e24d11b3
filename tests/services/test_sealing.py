"""What is sealed can be opened with its key, for its thing, unchanged; and in no other way."""

import pytest

from fleet.sealing import SealBroken, seal, unseal

KEY, OTHER_KEY = "a" * 32, "b" * 32


def test_what_is_sealed_can_be_opened() -> None:
    assert unseal(seal(b"secret", about=b"1", secret_key=KEY), about=b"1", secret_key=KEY) == b"secret"


def test_it_looks_different_every_time_and_shows_nothing() -> None:
    one, other = (seal(b"secret", about=b"1", secret_key=KEY) for _ in range(2))
    assert one != other and b"secret" not in one


@pytest.mark.parametrize(("about", "key"), [(b"2", KEY), (b"1", OTHER_KEY)])
def test_it_opens_for_nothing_else(about: bytes, key: str) -> None:
    with pytest.raises(SealBroken):
        unseal(seal(b"secret", about=b"1", secret_key=KEY), about=about, secret_key=key)


def test_a_changed_byte_breaks_it() -> None:
    sealed = seal(b"secret", about=b"1", secret_key=KEY)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(SealBroken):
            unseal(bytes(changed), about=b"1", secret_key=KEY)
    with pytest.raises(SealBroken):
        unseal(b"", about=b"1", secret_key=KEY)


def test_it_names_its_key() -> None:
    one, same, other = (seal(b"x", about=b"1", secret_key=key)[:9] for key in (KEY, KEY, OTHER_KEY))
    assert one == same != other
