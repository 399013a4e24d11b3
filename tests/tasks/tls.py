"""A Redis that speaks TLS: a small proxy before the embedded one, which cannot, with a certificate made for the test."""

import datetime
import ipaddress
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleet.embedded.server import HOST


def certificate(directory: Path) -> Path:
    """A self-signed certificate of this host, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "redis.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


class Proxy:
    """Takes TLS connections and passes on what they say. `connections` counts those that came to an understanding."""

    def __init__(self, to_port: int, pem: Path) -> None:
        self.connections = 0
        self._to_port = to_port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with (
            suppress(OSError),
            socket.create_connection((HOST, self._to_port)) as inside,
            self._context.wrap_socket(raw, server_side=True) as outside,
        ):
            self.connections += 1
            while self._pass_on(outside, inside):
                pass

    def _pass_on(self, outside: ssl.SSLSocket, inside: socket.socket) -> bool:
        # What TLS has decrypted already does not show in select.
        ready = [outside] if outside.pending() else select.select([outside, inside], [], [])[0]
        for source in ready:
            said = source.recv(65536)
            if not said:
                return False
            (inside if source is outside else outside).sendall(said)
        return True


@contextmanager
def tls_proxy(to_port: int, pem: Path) -> Iterator[Proxy]:
    proxy = Proxy(to_port, pem)
    try:
        yield proxy
    finally:
        proxy.close()
