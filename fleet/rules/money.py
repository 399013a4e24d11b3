"""Amounts: whole minor units of an ISO 4217 currency, bounded, never a float. Explained in docs/money.md."""

MAX_AMOUNT = 10**12
"""The most that one amount may be, in minor units; sums of many still fit PostgreSQL's bigint."""

FULL_RATE_BPS = 10_000
"""A rate of 100 percent, in basis points."""

_ISO_4217 = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY
COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR
ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK
MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF
SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU
UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""
CURRENCIES = frozenset(_ISO_4217.split())
"""The codes of ISO 4217 that people pay with in 2026: no funds, metals, test codes or withdrawn currencies."""


class AmountTooLarge(ValueError):
    """An amount, or a sum of amounts, is beyond MAX_AMOUNT."""


def is_currency(code: str) -> bool:
    """Whether the code is an active ISO 4217 currency, in capitals as the standard writes it."""
    return code in CURRENCIES


def amount(value: int) -> int:
    """The value itself, once it is known to be an amount: whole, not negative, at most MAX_AMOUNT minor units.

    Raises AmountTooLarge above the bound, and ValueError for what is no amount at all.
    """
    if type(value) is not int or value < 0:
        raise ValueError(f"an amount is a whole number of minor units and not negative, not {value!r}")
    if value > MAX_AMOUNT:
        raise AmountTooLarge(f"an amount is at most {MAX_AMOUNT} minor units")
    return value


def round_half_up(numerator: int, denominator: int) -> int:
    """The quotient to the nearest whole number; an exact half goes up in size, that is away from zero.

    5/2 is 3 and -5/2 is -3, so that a credit note rounds to exactly what its invoice charged.
    Raises ValueError unless the denominator is positive.
    """
    if denominator <= 0:
        raise ValueError("the denominator must be positive")
    size = (2 * abs(numerator) + denominator) // (2 * denominator)
    return -size if numerator < 0 else size


def tax_on(net: int, rate_bps: int) -> int:
    """The tax on one line's net amount, in minor units: rounded once, on the line, half up (away from zero).

    The rate is in basis points (1900 is 19 percent). Raises ValueError unless it is within 0 and 100 percent.
    """
    if not 0 <= rate_bps <= FULL_RATE_BPS:
        raise ValueError(f"a tax rate is 0 to {FULL_RATE_BPS} basis points, not {rate_bps}")
    return round_half_up(net * rate_bps, FULL_RATE_BPS)
