"""Posting a message to an address that a stranger chose, without becoming the stranger's hand in our own network (SSRF).

The name is resolved once; every address that it has must be public; the connection goes to one of those very addresses, with
the name only in TLS and in the Host header. So a name that answers differently the second time is never asked a second time.
No answer's body is read, and all of it ends at one deadline (fleet.gateways.wire). Each host has a breaker.
"""

import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

from fleet import breakers, deadline
from fleet.gateways import wire
from fleet.gateways.wire import Addresses, Lookup
from fleet.rules.targets import Target, TargetRefused, is_one_machine, is_public, target_of

TOTAL_S, CONNECT_S, RESOLVE_S = 10.0, 3.0, 2.0
MOST_ANSWER_BYTES = 64 * 1024


class NotDelivered(Exception):
    """A message did not get through. `cause` is one of a few words, without address or answer, so that it may be kept."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Reply:
    """How the receiver answered."""

    status: int
    retry_after: str | None


def addresses_of(
    target: Target, *, allow_private: bool, timeout_s: float = RESOLVE_S, lookup: Lookup | None = None
) -> Addresses:
    """Where a target's name leads, all of it allowed.

    Raises NotDelivered (`unresolved`), TargetRefused when any of the addresses is not public: a name with both kinds is one
    whose next answer may be the other kind.
    """
    within_s = deadline.least(timeout_s) or 0.0
    found = wire.lookups_for_strangers.find(target.host, target.port, timeout_s=within_s, lookup=lookup)
    if not found:
        raise NotDelivered("unresolved")
    allowed = is_one_machine if allow_private else is_public
    if not all(allowed(place[0]) for _, place in found):
        raise TargetRefused("not_public", "must lead to addresses of the public internet only")
    return found


class Sender:
    """Sends messages; one connection each, so that nothing of one receiver is left for the next."""

    def __init__(
        self,
        *,
        allow_private: bool,
        total_s: float = TOTAL_S,
        lookup: Lookup | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._total_s = total_s
        self._lookup = lookup
        self._context = context or ssl.create_default_context()

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Post a JSON body. Whatever status comes back is a Reply. Raises NotDelivered, and breakers.Open for its host."""
        try:
            target = target_of(url, allow_private=self._allow_private)
        except TargetRefused as error:
            raise NotDelivered(f"refused_{error.code}") from None
        breaker = breakers.of_host(target.authority, is_failure=is_outage)
        return breaker.call(self._post, target, headers, body)

    def _post(self, target: Target, headers: Mapping[str, str], body: bytes) -> Reply:
        ends_at = time.monotonic() + self._total_s
        try:
            places = addresses_of(
                target, allow_private=self._allow_private, timeout_s=min(RESOLVE_S, self._total_s), lookup=self._lookup
            )
            with self._connected(target, places, ends_at) as connection:
                wire.send(connection, _request(target, headers, body), ends_at)
                told = wire.answer(
                    connection, ends_at, method="POST", read_s=self._total_s, most_bytes=MOST_ANSWER_BYTES, wants_body=False
                )
                return Reply(told.status, told.headers.get("Retry-After"))
        except TargetRefused as error:
            raise NotDelivered(f"refused_{error.code}") from None
        except wire.NotConnected:
            raise NotDelivered("not_connected") from None
        except TimeoutError:
            raise NotDelivered("timed_out") from None
        except ssl.SSLError:
            raise NotDelivered("tls_failed") from None
        except http.client.HTTPException:
            raise NotDelivered("bad_answer") from None
        except OSError:
            raise NotDelivered("connection_lost") from None

    def _connected(self, target: Target, places: Addresses, ends_at: float) -> socket.socket:
        """A connection to an address that was checked, not to the name."""
        connection = wire.connected(places, ends_at, connect_s=CONNECT_S)
        return connection if target.scheme == "http" else wire.secured(connection, self._context, target.host, ends_at)


def is_outage(kind: type[BaseException], error: BaseException) -> bool:
    """Whether a failed call says that its host is away. An answer is none, however bad: it is its endpoint's, and a host has
    many people's."""
    return isinstance(error, NotDelivered) and error.cause in _OUTAGES


_OUTAGES = {"unresolved", "not_connected", "timed_out", "tls_failed", "connection_lost"}


def _request(target: Target, headers: Mapping[str, str], body: bytes) -> bytes:
    """The request's bytes. Nothing in them comes from outside but the address, whose grammar has no space and no line break."""
    lines = {
        "Host": target.authority,
        "User-Agent": "fleet-webhooks/1",
        "Content-Type": "application/json",
        "Connection": "close",
        **headers,
    }
    return wire.request("POST", target.path, lines, body)
