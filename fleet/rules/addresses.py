"""What is counted as one address."""

import ipaddress


def network_of(address: str) -> str:
    """An address as it is counted: of IPv6 the first 64 bits, for whoever has one of those addresses has all of them."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return f"{found.ipv4_mapped}"
    return f"{ipaddress.IPv6Network((found, 64), strict=False)}"
