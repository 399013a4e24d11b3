"""Where a webhook may go: what its address may look like, and which addresses of the network are public.

The address is read once, by one strict grammar, and what was read is what is connected to and said in the Host header: two
parsers that differ are how such checks are walked around. Spellings that some libraries understand as something else (`127.1`,
`0x7f.1`, `①②⑦.0.0.1`, `a@b`, `[fe80::1%eth0]`, a trailing dot) are refused rather than understood.
"""

import ipaddress
import re
from dataclasses import dataclass

MAX_LENGTH = 2048
USUAL_PORTS = {"https": 443, "http": 80}
ALLOWED_PORTS = (443, 8443)

_URL = re.compile(r"(https?)://([^/?#\\]*)((?:/[^?#\\]*)?(?:\?[^#\\]*)?)", re.ASCII | re.IGNORECASE)
_UNSAFE = re.compile(r"[^!-~]|[\"<>\\^`{|}]", re.ASCII)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+)(?::([1-9][0-9]{0,4}))?", re.ASCII)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
# WHATWG URL, "ends in a number": such a host is an IPv4 address in one of its many spellings.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_INNER_NAMES = ("localhost", "local", "internal", "onion")

# IANA's registries of special-purpose addresses; whether Python's `is_global` knows them depends on its version.
_NOT_PUBLIC_4 = [
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
]  # fmt: skip
# Only 2000::/3 is handed out as global unicast: what is mapped, translated (NAT64), site-local or unique-local lies outside.
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = [
    ipaddress.IPv6Network(block) for block in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
]


class TargetRefused(ValueError):
    """The address is none that a webhook may go to; `code` and `message` tell a client why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Target:
    """An address that was read and found allowed. `host` is a name, or an IP address without brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == USUAL_PORTS[self.scheme] else f"{host}:{self.port}"


def target_of(url: str, *, allow_private: bool) -> Target:
    """Read the address of a webhook. `allow_private` also lets http, any port, and names of the own network in.

    Raises TargetRefused.
    """
    found = None if len(url) > MAX_LENGTH or _UNSAFE.search(url) else _URL.fullmatch(url)
    if found is None:
        raise TargetRefused("invalid_url", "must be an https URL in ASCII, without a fragment")
    scheme, authority, path = found[1].lower(), found[2], found[3]
    if scheme != "https" and not allow_private:
        raise TargetRefused("https_required", "must be https")
    if "@" in authority:
        raise TargetRefused("user_part", "must not hold a user name or password")
    place = _AUTHORITY.fullmatch(authority)
    if place is None:
        raise TargetRefused("invalid_host", "must name a host, as in https://example.com/hooks")
    port = int(place[2] or USUAL_PORTS[scheme])
    if port > 65535 or (port not in ALLOWED_PORTS and not allow_private):
        raise TargetRefused("port_not_allowed", f"must be on port {' or '.join(map(str, ALLOWED_PORTS))}")
    host = _host(place[1].lower(), allow_private=allow_private)
    return Target(scheme, host, port, path if path.startswith("/") else f"/{path}")


def is_public(address: str) -> bool:
    """Whether this is the address of one machine on the public internet. What cannot be read is not."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in block for block in _NOT_PUBLIC_4)
    return parsed in _PUBLIC_6 and not any(parsed in block for block in _NOT_PUBLIC_6)


def is_one_machine(address: str) -> bool:
    """Whether this is the address of one machine at all: what private targets must still be."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_multicast or parsed.is_unspecified or parsed == ipaddress.IPv4Address("255.255.255.255"))


def _host(written: str, *, allow_private: bool) -> str:
    if written.startswith("["):
        return _literal(written[1:-1], allow_private=allow_private)
    labels = written.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _literal(written, allow_private=allow_private)
    if len(written) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise TargetRefused("invalid_host", "must be a host name in ASCII (punycode), without a dot at its end")
    if not allow_private and (len(labels) == 1 or labels[-1] in _INNER_NAMES):
        raise TargetRefused("not_public", "must be a name of the public internet")
    return written


def _literal(written: str, *, allow_private: bool) -> str:
    try:
        address = str(ipaddress.IPv6Address(written) if ":" in written else ipaddress.IPv4Address(written))
    except ValueError:
        raise TargetRefused("invalid_host", "must be a host name, or an IP address in its usual spelling") from None
    if not (is_one_machine(address) if allow_private else is_public(address)):
        raise TargetRefused("not_public", "must be an address of the public internet")
    return address
