"""The languages of the letters: their words, dates and amounts, from the files in fleet/templates/letters.

Whoever adds a language writes its file and names it in LANGUAGES; a test says what is missing.
"""

import tomllib
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

LANGUAGES = ("en", "de", "fr", "es")
FOLDER = Path(__file__).parents[1] / "templates" / "letters"
# ISO 4217: how many digits follow the point, where it is not two.
_DIGITS = dict.fromkeys(
    ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"), 0
) | dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3)


@dataclass(frozen=True)
class Language:
    """One language, by its tag of BCP 47."""

    tag: str
    words: dict[str, dict[str, Any]]

    def phrase(self, section: str, name: str, **values: str) -> str:
        """A phrase with its blanks filled in. What is filled in is never read as a phrase itself."""
        phrase: str = self.words[section][name]
        return phrase.format(**values)

    def label(self, name: str) -> str:
        label: str = self.words["labels"][name]
        return label

    def money(self, minor_units: int, currency: str) -> str:
        """An amount with its currency: 123456 of EUR is `EUR 1,234.56` in English, of JPY `JPY 123,456`."""
        digits = _DIGITS.get(currency, 2)
        whole, part = divmod(abs(minor_units), 10**digits)
        written = f"{whole:,}".replace(",", self.words["format"]["thousands"])
        if digits:
            written += f"{self.words['format']['point']}{part:0{digits}}"
        sign = "-" if minor_units < 0 else ""
        return self.phrase("format", "money", amount=f"{sign}{written}", currency=currency)

    def percent(self, bps: int) -> str:
        """A rate: 2300 basis points are `23 %`, 550 are `5.5 %`, in English."""
        whole, part = divmod(bps, 100)
        digits = f"{part:02}".rstrip("0")
        return f"{whole}{self.words['format']['point'] if digits else ''}{digits}\u00a0%"

    def day(self, at: datetime, timezone: str) -> str:
        """The date on that branch's calendar: `Tue 01 Dec 2026`."""
        return self._day(at.astimezone(ZoneInfo(timezone)))

    def instant(self, at: datetime, timezone: str) -> str:
        """A time as the clock on that branch's wall shows it: `Tue 01 Dec 2026, 10:00 (Europe/Lisbon)`."""
        local = at.astimezone(ZoneInfo(timezone))
        return self.phrase("format", "instant", date=self._day(local), time=f"{local:%H:%M}", zone=timezone)

    def _day(self, local: datetime) -> str:
        words = self.words["format"]
        written: str = words["day"].format(
            weekday=words["weekdays"][local.weekday()], day=local.day, month=words["months"][local.month - 1], year=local.year
        )
        return written


@cache
def language(tag: str) -> Language:
    """The language of that tag. Raises KeyError for one that is not offered."""
    if tag not in LANGUAGES:
        raise KeyError(tag)
    return Language(tag, tomllib.loads((FOLDER / f"{tag}.toml").read_text(encoding="utf-8")))


def offered(tag: str, default: str) -> Language:
    """The language, or the default where letters are not written in it: profiles are older than some of our languages."""
    return language(tag if tag in LANGUAGES else default)
