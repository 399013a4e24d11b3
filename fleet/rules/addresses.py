"""What is counted as one address."""

import ipaddress
import re

_WITH_PORT = re.compile(r"([^:\[\]]*):[0-9]{1,5}|\[([^\[\]]*)\](?::[0-9]{1,5})?", re.ASCII)


def network_of(address: str) -> str:
    """An address as it is counted: of IPv6 the first 64 bits, for whoever has one of those addresses has all of them.

    The port that some proxies write after it (RFC 7239, 6) does not count.
    """
    if with_port := _WITH_PORT.fullmatch(address):
        address = with_port[1] or with_port[2] or address
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return f"{found.ipv4_mapped}"
    return f"{ipaddress.IPv6Network((found, 64), strict=False)}"
