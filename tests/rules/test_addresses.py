"""What is counted as one address."""

import pytest

from fleet.rules.addresses import network_of


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("unknown", "unknown"),
        ("203.0.113.7:5678", "203.0.113.7"),
        ("[2001:db8:1:2:3:4:5:6]:5678", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:3:4:5:6]", "2001:db8:1:2::/64"),
        ("[2001", "[2001"),
        ("a:b:c", "a:b:c"),
        ("", ""),
    ],
)
def test_of_ipv6_a_whole_network_is_one(address: str, counted_as: str) -> None:
    assert network_of(address) == counted_as
