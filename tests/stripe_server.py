"""A small server that behaves like Stripe where the service touches it: intents, refunds, keys, and its bad days."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import stripe

SECRET = "whsec_of_the_tests"
GOOD_CARD, DECLINED_CARD, CHALLENGED_CARD = "pm_card_visa", "pm_card_chargeDeclined", "pm_card_authenticationRequired"
Json = dict[str, Any]


@dataclass
class Fault:
    """How the next matching call goes wrong: answered with `status`, or late by `delay_s`, before or after its effect; with
    so many blanks before the body, all at once or one each `drip_s`.
    """

    path: str = "/v1/"
    method: str = "POST"
    status: int | None = None
    delay_s: float = 0
    takes_effect: bool = False
    times: int = 1
    blanks: int = 0
    drip_s: float = 0


class Refusal(Exception):
    def __init__(self, status: int, **error: Any) -> None:
        super().__init__(status)
        self.status, self.error = status, error


@dataclass
class Stripe:
    """What this Stripe knows."""

    intents: dict[str, Json] = field(default_factory=dict)
    refunds: dict[str, Json] = field(default_factory=dict)
    keys: dict[str, tuple[Json, int, Json]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    refund_status: str = "succeeded"
    gone: bool = False  # connections end without an answer
    lock: threading.RLock = field(default_factory=threading.RLock)
    numbers: int = 0

    # --- what tests ask ---

    @property
    def charged(self) -> int:
        """How much was taken from cards in all."""
        return sum(intent["amount_received"] for intent in self.intents.values())

    def only_intent(self) -> Json:
        [intent] = self.intents.values()
        return intent

    def goes_wrong(self, **fault: Any) -> None:
        self.faults.append(Fault(**fault))

    def confirm_in_browser(self, intent: Json, card: str = GOOD_CARD) -> None:
        """What the payer's browser does with the client secret."""
        with self.lock, suppress(Refusal):
            self._confirm(intent, card)

    # --- the API ---

    def answer(self, method: str, path: str, form: Json, key: str | None) -> tuple[int, Json]:
        with self.lock:
            if key in self.keys and method == "POST":
                first, status, body = self.keys[key]
                if first == form:
                    return status, body
                message = "Keys for idempotent requests can only be used with the same parameters they were first used with."
                return 400, {"error": {"type": "idempotency_error", "message": message}}
            try:
                status, body = 200, self._route(method, path.split("/")[2:], form)
            except Refusal as refusal:
                status, body = refusal.status, {"error": refusal.error}
            if key and method == "POST":
                self.keys[key] = (form, status, json.loads(json.dumps(body)))
            return status, json.loads(json.dumps(body))

    def _route(self, method: str, parts: list[str], form: Json) -> Json:
        match method, *parts:
            case "POST", "payment_intents":
                return self._create_intent(form)
            case "GET", "payment_intents":
                return self._list(form)
            case "GET", "payment_intents", name:
                return self._known(self.intents, name)
            case "POST", "payment_intents", name, "cancel":
                return self._cancel(self._known(self.intents, name))
            case "POST", "refunds":
                return self._create_refund(form)
            case "GET", "refunds", name:
                return self._known(self.refunds, name)
        raise Refusal(404, type="invalid_request_error", code="resource_missing", message="no such path")

    def _known(self, things: dict[str, Json], name: str) -> Json:
        if name not in things:
            raise Refusal(404, type="invalid_request_error", code="resource_missing", message="no such thing")
        return things[name]

    def _id(self, prefix: str) -> str:
        self.numbers += 1
        return f"{prefix}_{self.numbers:06d}"

    def _create_intent(self, form: Json) -> Json:
        name = self._id("pi")
        intent = {
            "id": name, "object": "payment_intent", "amount": int(form["amount"]), "currency": form["currency"],
            "amount_received": 0, "status": "requires_payment_method", "created": int(time.time()),
            "metadata": {"payment_id": form["metadata[payment_id]"]}, "client_secret": f"{name}_secret",
            "last_payment_error": None, "cancellation_reason": None,
        }  # fmt: skip
        if form.get("confirm") == "true":
            self._confirm(intent, form["payment_method"])
        self.intents[name] = intent
        return intent

    def _confirm(self, intent: Json, card: str) -> None:
        if card == CHALLENGED_CARD:
            intent["status"] = "requires_action"
        elif card == DECLINED_CARD:
            error = {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds", "message": "no"}
            intent["last_payment_error"] = dict(error)
            self.intents[intent["id"]] = intent
            raise Refusal(402, **error, payment_intent={**intent})
        elif not card.startswith("pm_card_"):
            raise Refusal(400, type="invalid_request_error", code="resource_missing", message="No such PaymentMethod")
        else:
            intent.update(status="succeeded", amount_received=intent["amount"])

    def _cancel(self, intent: Json) -> Json:
        if intent["status"] in ("succeeded", "canceled"):
            raise Refusal(400, type="invalid_request_error", code="payment_intent_unexpected_state", message="too late")
        intent.update(status="canceled", cancellation_reason="abandoned")
        return intent

    def _list(self, form: Json) -> Json:
        since, until = int(form.get("created[gte]", 0)), int(form.get("created[lte]", 10**12))
        found = [intent for intent in reversed(self.intents.values()) if since <= intent["created"] <= until]
        if after := form.get("starting_after"):
            found = found[[intent["id"] for intent in found].index(after) + 1 :]
        page = found[: int(form.get("limit", 10))]
        return {"object": "list", "url": "/v1/payment_intents", "data": page, "has_more": len(found) > len(page)}

    def _create_refund(self, form: Json) -> Json:
        intent = self._known(self.intents, form["payment_intent"])
        before = [refund for refund in self.refunds.values() if refund["payment_intent"] == intent["id"]]
        gone = sum(refund["amount"] for refund in before if refund["status"] != "failed")
        if gone + int(form["amount"]) > intent["amount_received"]:
            raise Refusal(400, type="invalid_request_error", code="charge_already_refunded", message="too much")
        refund = {
            "id": self._id("re"), "object": "refund", "amount": int(form["amount"]), "status": self.refund_status,
            "payment_intent": intent["id"], "metadata": {"refund_id": form["metadata[refund_id]"]},
        }  # fmt: skip
        if self.refund_status == "failed":
            refund["failure_reason"] = "expired_or_canceled_card"
        self.refunds[refund["id"]] = refund
        return refund


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def _serve(self, method: str) -> None:
        world: Stripe = self.server.world  # type: ignore[attr-defined]
        if world.gone:
            self.close_connection = True
            return
        url = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        form = {name: values[-1] for name, values in parse_qs(raw or url.query).items()}
        world.calls.append((method, url.path))
        fault = self._fault_of(world, method, url.path)
        key = self.headers.get("Idempotency-Key")
        # What does not take effect is refused before the keys are looked at, as by Stripe's validation and rate limits.
        status, body = 500, {"error": {"type": "api_error", "message": "a bad day"}}
        replayed = False
        if fault is None or fault.takes_effect or fault.status is None:
            replayed = method == "POST" and world.keys.get(key or "", ({},))[0] == form
            answered = world.answer(method, url.path, form, key)
            if fault is None or fault.status is None:
                status, body = answered
        if fault is not None:
            status = fault.status or status
            time.sleep(fault.delay_s)
        self._send(status, body, fault or Fault(), replayed=replayed)

    def _fault_of(self, world: Stripe, method: str, path: str) -> Fault | None:
        with world.lock:
            for fault in world.faults:
                if fault.times and fault.method == method and path.startswith(fault.path):
                    fault.times -= 1
                    return fault
        return None

    def _send(self, status: int, body: Json, fault: Fault, *, replayed: bool) -> None:
        sent = b" " * fault.blanks + json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            if replayed:
                self.send_header("idempotent-replayed", "true")
            self.end_headers()
            for number in range(fault.blanks if fault.drip_s else 0):
                time.sleep(fault.drip_s)
                self.wfile.write(sent[number : number + 1])
            self.wfile.write(sent[fault.blanks if fault.drip_s else 0 :])
        except OSError:
            self.close_connection = True  # whoever asked has gone


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that was killed in the middle of its request."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def stripe_server() -> Iterator[tuple[Stripe, str]]:
    """A Stripe, and the address at which it answers."""
    server = _Server(("127.0.0.1", 0), _Handler)
    world = Stripe()
    server.world = world  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield world, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def event(kind: str, thing: Json, *, name: str | None = None) -> bytes:
    """An event as Stripe sends it."""
    made = {"id": name or f"evt_{kind}_{thing['id']}", "object": "event", "type": kind, "created": int(time.time())}
    return json.dumps({**made, "data": {"object": thing}}).encode()


def signature(payload: bytes, *, secret: str = SECRET, age_s: int = 0) -> str:
    header: str = stripe.WebhookSignature.generate_signature_header(payload.decode(), secret, int(time.time()) - age_s)
    return header


def dispute(intent: Json, status: str = "needs_response", *, fee: int = 1500, name: str = "du_1") -> Json:
    return {
        "id": name, "object": "dispute", "status": status, "payment_intent": intent["id"], "amount": intent["amount"],
        "currency": intent["currency"], "reason": "fraudulent",
        "balance_transactions": [{"object": "balance_transaction", "fee": fee}],
    }  # fmt: skip
