"""One spelling for what people spell in many ways, so that uniqueness in the database means something.

Each raises ValueError, with a message for the person who typed it, when nothing usable is left.
"""

import re

VIN = re.compile(r"[A-HJ-NPR-Z0-9]{17}", re.ASCII)


def plate(raw: str) -> str:
    """A plate number in capitals, with single spaces inside and none around."""
    return _printable(" ".join(raw.split()).upper(), "plate number")


def vin(raw: str) -> str:
    """A vehicle identification number (ISO 3779): 17 capitals and digits, without I, O and Q, which look like digits.

    The check digit is not looked at: only North America requires one.
    """
    text = raw.strip()
    if not (text.isascii() and VIN.fullmatch(text.upper())):
        raise ValueError("A VIN is 17 letters and digits, without I, O and Q.")
    return text.upper()


def email(raw: str) -> str:
    """An e-mail address in small letters, before and after the @: no two people share one that differs by case.

    Whether it is an address at all is checked where it comes in.
    """
    return _printable(raw.strip().lower(), "e-mail address")


def licence(raw: str) -> str:
    """A driving licence number in capitals and without spaces: cards print them for the eye only."""
    return _printable("".join(raw.split()).upper(), "licence number")


def _printable(text: str, thing: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(f"The {thing} must be made of characters that can be seen.")
    return text
