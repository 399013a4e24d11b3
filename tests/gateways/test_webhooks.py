"""The gateway of webhooks among receivers, resolvers and servers that mean no good."""

import datetime
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleet.embedded.server import HOST, usable_port
from fleet.gateways.webhooks import NotDelivered, Sender
from tests.receiver import Receiver, dripping, endless, on_the_wire, receiver, saying, silent

# The breakers of hosts take their thresholds from the settings.
pytestmark = pytest.mark.usefixtures("app")

QUICK_S = 0.4
PUBLIC_ADDRESS = "93.184.215.14"


@pytest.fixture
def told() -> Iterator[Receiver]:
    with receiver() as told:
        yield told


def sender(**options: Any) -> Sender:
    return Sender(**{"allow_private": True, "total_s": 5.0, **options})


def port_of(url: str) -> int:
    return urlsplit(url).port or 0


def leading_to(*answers: list[tuple[str, int]]) -> Callable[..., Any]:
    """A resolver that gives these answers one after the other, the last one for ever; it counts how often it was asked."""
    left = list(answers)

    def lookup(host: str, port: int, **_: Any) -> list[Any]:
        lookup.asked.append(host)  # type: ignore[attr-defined]  # functions take attributes; their type does not say so
        places = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]

    lookup.asked = []  # type: ignore[attr-defined]  # as above
    return lookup


def cause(url: str, one: Sender) -> str:
    with pytest.raises(NotDelivered) as failed:
        one.post(url, {}, b"{}")
    return failed.value.cause


class TestPosting:
    def test_a_message_arrives_as_it_was_sent(self, told: Receiver) -> None:
        told.answers = [(202, {"Retry-After": "7"})]
        reply = sender().post(told.url, {"webhook-id": "1"}, b'{"a": 1}')
        assert (reply.status, reply.retry_after) == (202, "7")
        [request] = told.received
        assert (request.path, request.body) == ("/hooks?token=s3cret", b'{"a": 1}')
        assert request.headers["webhook-id"] == "1"
        assert request.headers["Content-Type"] == "application/json"
        assert request.headers["Host"] == f"{HOST}:{port_of(told.url)}"

    def test_a_large_message_arrives_whole(self, told: Receiver) -> None:
        sender().post(told.url, {}, b"x" * 3_000_000)
        assert len(told.received[0].body) == 3_000_000

    def test_a_redirect_is_an_answer_and_leads_nowhere(self, told: Receiver) -> None:
        with receiver() as elsewhere:
            told.answers = [(307, {"Location": elsewhere.url})]
            assert sender().post(told.url, {}, b"{}").status == 307
            assert elsewhere.received == []

    def test_no_proxy_of_the_environment_is_used(self, told: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        with receiver() as proxy:
            for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
            sender().post(told.url, {}, b"{}")
            assert (len(told.received), len(proxy.received)) == (1, 0)

    def test_the_next_address_is_tried_where_one_takes_no_connection(self, told: Receiver) -> None:
        nobody = (HOST, usable_port(None))
        lookup = leading_to([nobody, (HOST, port_of(told.url))])
        assert sender(lookup=lookup).post(told.url, {}, b"{}").status == 204


class TestNames:
    def test_a_name_is_asked_once_and_a_second_answer_changes_nothing(self, told: Receiver) -> None:
        """DNS rebinding: a name that is harmless when it is checked, and somebody else when it is connected to."""
        with receiver() as inner:
            lookup = leading_to([(HOST, port_of(told.url))], [(HOST, port_of(inner.url))])
            sender(lookup=lookup).post("http://rebinding.example:1234/", {}, b"{}")
            assert (len(told.received), len(inner.received)) == (1, 0)
        assert lookup.asked == ["rebinding.example"]  # type: ignore[attr-defined]  # see leading_to
        assert told.received[0].headers["Host"] == "rebinding.example:1234"

    @pytest.mark.parametrize(
        "addresses", [[HOST], [PUBLIC_ADDRESS, HOST], [HOST, PUBLIC_ADDRESS], ["10.0.0.1"], ["169.254.169.254"], ["::1"]]
    )
    def test_a_name_that_leads_inside_is_refused_before_anything_is_connected(
        self, addresses: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))
        one = Sender(allow_private=False, lookup=leading_to([(address, 443) for address in addresses]))
        assert cause("https://innocent.example/", one) == "refused_not_public"

    def test_an_address_that_is_spelled_out_is_checked_too(self) -> None:
        assert cause("https://127.0.0.1/", Sender(allow_private=False)) == "refused_not_public"
        assert cause("http://example.com/", Sender(allow_private=False)) == "refused_https_required"

    def test_a_name_that_nobody_knows(self) -> None:
        def lookup(*_: Any, **__: Any) -> Any:
            raise socket.gaierror(-2, "Name or service not known")

        assert cause("http://nobody.example/", sender(lookup=lookup)) == "unresolved"
        assert cause("http://nobody.example/", sender(lookup=lambda *_, **__: [])) == "unresolved"

    def test_a_resolver_that_hangs_is_left_behind(self) -> None:
        go_on = threading.Event()
        started = time.monotonic()
        assert cause("http://slow.example/", sender(total_s=QUICK_S, lookup=lambda *_, **__: go_on.wait(5))) == "unresolved"
        assert time.monotonic() - started < QUICK_S + 1
        go_on.set()


class TestBadServers:
    @pytest.mark.parametrize("talk", [dripping, silent], ids=["dripping", "silent"])
    def test_one_that_takes_its_time_gets_no_more_than_the_deadline(self, talk: Any) -> None:
        with on_the_wire(talk) as url:
            started = time.monotonic()
            assert cause(url, sender(total_s=QUICK_S)) == "timed_out"
            assert time.monotonic() - started < QUICK_S + 1

    def test_one_that_does_not_read_gets_no_more_than_the_deadline(self) -> None:
        with on_the_wire(lambda _: time.sleep(3)) as url:
            started = time.monotonic()
            with pytest.raises(NotDelivered, match="timed_out"):
                sender(total_s=QUICK_S).post(url, {}, b"x" * 50_000_000)
            assert time.monotonic() - started < QUICK_S + 1

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            (b"", "bad_answer"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "bad_answer"),
            (b"HTTP/1.1 abc OK\r\n\r\n", "bad_answer"),
            (b"HTTP/1.1 200 " + b"a" * 70_000 + b"\r\n\r\n", "bad_answer"),
            (b"HTTP/1.1 100 Continue\r\n\r\n" * 3000, "bad_answer"),
        ],
        ids=["nothing", "another protocol", "no status", "a long line", "going on for ever"],
    )
    def test_one_that_speaks_no_http(self, answer: bytes, expected: str) -> None:
        with on_the_wire(saying(answer)) as url:
            assert cause(url, sender()) == expected

    def test_one_whose_headers_never_end(self) -> None:
        with on_the_wire(endless) as url:
            assert cause(url, sender()) == "bad_answer"

    def test_one_that_hangs_up(self) -> None:
        def hang_up(connection: socket.socket) -> None:
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        with on_the_wire(hang_up) as url:
            assert cause(url, sender()) == "connection_lost"

    def test_one_that_is_not_there(self) -> None:
        assert cause(f"http://{HOST}:{usable_port(None)}/", sender()) == "not_connected"


# --- TLS --------------------------------------------------------------------------------------------------------------


def certified(name: str, directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(what a server of this name speaks with, what a client trusts): a certificate that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "both.pem").write_bytes(private + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / "both.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


@contextmanager
def speaking_tls(server: ssl.SSLContext) -> Iterator[tuple[int, list[str | None]]]:
    """(port, the names that clients asked for) of a server that answers 204."""
    names: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: names.append(name)

    def talk(connection: socket.socket) -> None:
        with server.wrap_socket(connection, server_side=True) as encrypted:
            saying(b"HTTP/1.1 204 No Content\r\n\r\n")(encrypted)

    with on_the_wire(talk) as url:
        yield port_of(url), names


class TestTls:
    def test_the_name_is_kept_though_the_address_is_connected_to(self, tmp_path: Path) -> None:
        server, trusted = certified("hooks.example.com", tmp_path)
        with speaking_tls(server) as (port, names):
            one = sender(context=trusted, lookup=leading_to([(HOST, port)]))
            assert one.post("https://hooks.example.com/", {}, b"{}").status == 204
        assert names == ["hooks.example.com"]

    def test_a_server_of_another_name_gets_nothing(self, tmp_path: Path) -> None:
        server, trusted = certified("other.example.com", tmp_path)
        with speaking_tls(server) as (port, _):
            one = sender(context=trusted, lookup=leading_to([(HOST, port)]))
            assert cause("https://hooks.example.com/", one) == "tls_failed"

    def test_a_certificate_that_nobody_trusts(self, tmp_path: Path) -> None:
        server, _ = certified("hooks.example.com", tmp_path)
        with speaking_tls(server) as (port, _):
            assert cause("https://hooks.example.com/", sender(lookup=leading_to([(HOST, port)]))) == "tls_failed"

    def test_a_handshake_that_never_ends(self) -> None:
        with on_the_wire(silent) as url:
            lookup = leading_to([(HOST, port_of(url))])
            started = time.monotonic()
            assert cause("https://hooks.example.com/", sender(total_s=QUICK_S, lookup=lookup)) == "timed_out"
            assert time.monotonic() - started < QUICK_S + 1
