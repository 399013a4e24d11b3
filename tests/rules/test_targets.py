"""Where a webhook may go, and the many spellings by which somebody tries to get elsewhere."""

import pytest

from fleet.rules.targets import TargetRefused, is_one_machine, is_public, target_of

ALLOWED = {
    "https://example.com": ("example.com", 443, "/"),
    "https://example.com/": ("example.com", 443, "/"),
    "https://hooks.EXAMPLE.com:8443/a/b?c=d&e=%20": ("hooks.example.com", 8443, "/a/b?c=d&e=%20"),
    "https://example.com?token=1": ("example.com", 443, "/?token=1"),
    "https://example.com/@user": ("example.com", 443, "/@user"),
    "https://xn--bcher-kva.example/": ("xn--bcher-kva.example", 443, "/"),
    "https://93.184.215.14/": ("93.184.215.14", 443, "/"),
    "https://[2606:4700:4700::1111]/": ("2606:4700:4700::1111", 443, "/"),
    "HTTPS://example.com/": ("example.com", 443, "/"),
    "https://1password.com/": ("1password.com", 443, "/"),
    "https://0x7f.example/": ("0x7f.example", 443, "/"),
}
REFUSED = {
    "http://example.com/": "https_required",
    "ftp://example.com/": "invalid_url",
    "//example.com/": "invalid_url",
    "example.com": "invalid_url",
    "https:example.com": "invalid_url",
    "https:///example.com": "invalid_host",
    "https://": "invalid_host",
    "https://example.com/#here": "invalid_url",
    "https://example.com\\@evil.example/": "invalid_url",
    "https://example.com/a b": "invalid_url",
    "https://example.com/\r\nX-Evil: 1": "invalid_url",
    "https://example.com/\x00": "invalid_url",
    " https://example.com/": "invalid_url",
    "https://exam\tple.com/": "invalid_url",
    "https://bücher.example/": "invalid_url",
    "https://user@example.com/": "user_part",
    "https://user:secret@example.com/": "user_part",
    "https://example.com:443@evil.example/": "user_part",
    "https://@example.com/": "user_part",
    "https://example.com./": "invalid_host",
    "https://.example.com/": "invalid_host",
    "https://exa..mple.com/": "invalid_host",
    "https://-example.com/": "invalid_host",
    "https://exam_ple.com/": "invalid_host",
    "https://exam%70le.com/": "invalid_host",
    "https://example.com:/": "invalid_host",
    "https://example.com:0443/": "invalid_host",
    "https://example.com:443:443/": "invalid_host",
    "https://example.com:22/": "port_not_allowed",
    "https://example.com:80/": "port_not_allowed",
    "https://example.com:99999/": "port_not_allowed",
    "https://localhost/": "not_public",
    "https://db.localhost/": "not_public",
    "https://intranet/": "not_public",
    "https://printer.local/": "not_public",
    "https://metadata.google.internal/": "not_public",
    "https://127.0.0.1/": "not_public",
    "https://169.254.169.254/latest/meta-data/": "not_public",
    "https://10.0.0.1/": "not_public",
    "https://127.1/": "invalid_host",
    "https://2130706433/": "invalid_host",
    "https://0x7f000001/": "invalid_host",
    "https://0x7f.1/": "invalid_host",
    "https://0177.0.0.1/": "invalid_host",
    "https://127.0.0.0x1/": "invalid_host",
    "https://127.0.0.1./": "invalid_host",
    "https://①②⑦.0.0.1/": "invalid_url",
    "https://127。0。0。1/": "invalid_url",
    "https://[::1]/": "not_public",
    "https://[::]/": "not_public",
    "https://[::ffff:127.0.0.1]/": "not_public",
    "https://[::ffff:93.184.215.14]/": "not_public",
    "https://[64:ff9b::7f00:1]/": "not_public",
    "https://[fe80::1%25eth0]/": "invalid_host",
    "https://[fe80::1%eth0]/": "invalid_host",
    "https://[::1/": "invalid_host",
    "https://::1/": "invalid_host",
    "https://[127.0.0.1]/": "not_public",
    "https://" + "a" * 64 + ".com/": "invalid_host",
    "https://example.com/" + "a" * 2048: "invalid_url",
}


@pytest.mark.parametrize(("url", "read"), ALLOWED.items(), ids=ALLOWED)
def test_an_address_of_the_public_internet_is_read(url: str, read: tuple[str, int, str]) -> None:
    target = target_of(url, allow_private=False)
    assert (target.host, target.port, target.path) == read


@pytest.mark.parametrize(("url", "code"), REFUSED.items(), ids=[url[:50] for url in REFUSED])
def test_any_other_is_refused(url: str, code: str) -> None:
    with pytest.raises(TargetRefused) as refused:
        target_of(url, allow_private=False)
    assert refused.value.code == code


@pytest.mark.parametrize("url", ["http://127.0.0.1:5000/x", "http://localhost/", "https://receiver:9000/", "http://[::1]:80/"])
def test_private_addresses_are_for_those_who_allow_them(url: str) -> None:
    with pytest.raises(TargetRefused):
        target_of(url, allow_private=False)
    assert target_of(url, allow_private=True)


@pytest.mark.parametrize("url", ["http://127.1/", "http://a@localhost/", "http://localhost./", "http://224.0.0.1/", "http://0.0.0.0/"])
def test_odd_spellings_are_refused_even_then(url: str) -> None:
    with pytest.raises(TargetRefused):
        target_of(url, allow_private=True)


def test_the_host_header_names_the_port_where_it_is_not_the_usual_one() -> None:
    told = {url: target_of(url, allow_private=True).authority for url in ("https://a.example:443", "http://a.example:443")}
    assert list(told.values()) == ["a.example", "a.example:443"]
    assert target_of("https://[2606:4700::1]:8443", allow_private=False).authority == "[2606:4700::1]:8443"


PUBLIC = ["1.1.1.1", "93.184.215.14", "172.32.0.1", "100.128.0.1", "192.0.1.1", "2606:4700:4700::1111", "2a00:1450::1"]
NOT_PUBLIC = [
    "0.0.0.0", "0.1.2.3", "10.1.1.1", "100.64.0.1", "127.0.0.1", "127.255.255.255", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1",
    "::ffff:127.0.0.1", "::ffff:1.1.1.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1",
    "2002:7f00:1::", "3fff::1", "5f00::1", "fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
    "not an address", "",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_none_of_the_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "x"])
def test_what_is_no_machine_is_no_target_at_all(address: str) -> None:
    assert not is_one_machine(address)
