"""Card payments: intent row, call, result row (docs/decisions/0012-a-card-payment-survives-a-time-out.md).

The payment is committed as pending, with its part of the invoice's balance, before the gateway is asked; it is asked outside
of any transaction; what it says is written with all that follows from it. Whoever learns the outcome first (the request, a
webhook, the sweep) settles the payment, and the others find it settled.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from fleet import clock
from fleet.auth import Actor
from fleet.db import atomic, db
from fleet.errors import InProgress, Invalid, PaymentDeclined, Unavailable
from fleet.gateways.cards import CardGateway, CardsUnavailable, Charge, NotShown, Outcome
from fleet.idempotency import KEPT_HOURS, Claim, Given, StoredAnswer
from fleet.models.invoices import invoice_for_update
from fleet.models.payments import CLAIM_PENDING, Payment, payment_for_update
from fleet.services import payments
from fleet.services.payments import Document, Wish

log = logging.getLogger("fleet.card_payments")

# Longer than a call may take, so that nobody else asks meanwhile.
ATTEMPT = timedelta(seconds=30)
# A charge that the gateway does not know by then is made impossible, and one that the payer does not confirm is canceled.
SWEEP_BUDGET_S = 15.0
UNKNOWN_FOR, UNCONFIRMED_FOR = timedelta(minutes=5), timedelta(hours=1)

AnswerOf = Callable[[Document, str | None], StoredAnswer]


def pay(actor: Actor, wish: Wish, *, claim: Claim, answer_of: AnswerOf, cards: CardGateway | None) -> Given:
    """Charge a card for an invoice, exactly once for one key, whatever happens to the gateway or to us on the way.

    Raises NotFound, Conflict `overpayment`, InvalidState, Invalid, InProgress, PaymentDeclined, and Unavailable when the
    outcome is not known: the payment stays pending, the same request finds it again, and the sweep settles it.
    """
    if cards is None:
        raise Invalid("There is no payment gateway here", code="card_payments_disabled")
    outcome = None
    with ExitStack() as place:
        first = _begin(actor, wish, claim, cards, place)
        if isinstance(first, StoredAnswer):
            return Given(first, replayed=True)
        if first.status == "pending":
            outcome = _charged(cards, first)
    return _conclude(actor, first.id, outcome, claim, answer_of)


def _charged(cards: CardGateway, payment: Payment) -> Outcome:
    try:
        return cards.charge(charge_of(payment))
    except CardsUnavailable as away:
        log.warning("card gateway away", extra={"payment_id": payment.id, "cause": f"{away}"})
        _end_attempt(payment.id)
        raise _unavailable(away) from None


def charge_of(payment: Payment) -> Charge:
    """The payment as the gateway is asked about it."""
    return Charge(
        payment_id=payment.id,
        amount=payment.amount,
        currency=payment.currency,
        token=payment.reference,
        asked_at=payment.created_at,
        reference=payment.gateway_reference,
    )


@atomic
def settle(payment_id: UUID, outcome: Outcome) -> Payment:
    """Write what became of a pending payment, and all that follows; one that is settled already stays as it is."""
    invoice = invoice_for_update(Payment.get_by_id(payment_id).invoice_id)
    payment = payment_for_update(payment_id)
    if payment.status != "pending":
        if outcome.state == "captured" and payment.status == "failed":
            log.error("charged though it had failed", extra={"payment_id": payment.id})
        return payment
    now = clock.now()
    reference = payment.gateway_reference or outcome.reference
    if outcome.state == "failed":
        invoice.change(pending_amount=invoice.pending_amount - payment.amount)
        payment.change(
            status="failed", failed_at=now, failure_code=outcome.failure_code, gateway_reference=reference, attempt_ends_at=None
        )
    elif outcome.state == "captured" and _is_what_was_asked(payment, outcome):
        payment.change(status="captured", captured_at=now, gateway_reference=reference, attempt_ends_at=None)
        payments.settle_invoice(invoice, payment)
    else:
        payment.change(gateway_reference=reference, attempt_ends_at=now)
    return payment


def settle_pending(cards: CardGateway, *, limit: int = 50) -> int:
    """Ask the gateway about payments that nobody is asking about, and settle them; returns how many were settled.

    Two sweeps at once share them. Stops when the gateway is away, and after SWEEP_BUDGET_S: whatever is left is due again when
    its lease ends. One that the gateway does not show holds up no other.
    """
    settled, deadline = 0, time.monotonic() + SWEEP_BUDGET_S
    for (payment_id,) in db.rows(CLAIM_PENDING, {"limit": limit, "attempt_s": ATTEMPT.total_seconds()}):
        if time.monotonic() > deadline:
            break
        payment: Payment = Payment.get_by_id(payment_id)
        try:
            outcome = _looked_up(cards, payment)
        except NotShown as lost:
            log.error("charge not shown", extra={"payment_id": payment.id, "cause": f"{lost}"})
            continue
        except CardsUnavailable as away:
            log.warning("card gateway away", extra={"payment_id": payment.id, "cause": f"{away}"})
            break
        if outcome is not None:
            settled += settle(payment.id, outcome).status != "pending"
    return settled


@atomic
def _begin(actor: Actor, wish: Wish, claim: Claim, cards: CardGateway, place: ExitStack) -> StoredAnswer | Payment:
    """The answer that was given before; or the payment of this key, newly written or found, leased to this request.

    Whoever is going to ask the gateway has a place for it before anything is written.
    """
    place.close()  # that of a run that was undone, if this is not the first
    first = claim.take()
    if first is not None:
        return first
    known = _payment_of(claim)
    if known is not None:
        if known.status == "pending":
            _lease(known, cards, place)
        return known
    _take(place, cards)
    invoice = payments.payable_for_update(actor, wish)
    invoice.change(pending_amount=invoice.pending_amount + wish.amount)
    return payments.payment_of(
        actor,
        invoice,
        wish,
        status="pending",
        claim=_name_of(claim),
        request_print=claim.fingerprint,
        attempt_ends_at=clock.now() + ATTEMPT,
    )


def _payment_of(claim: Claim) -> Payment | None:
    """The payment that an earlier request with this key began. A key is forgotten after a day, like all others."""
    found: Payment | None = Payment.get_or_none(Payment.claim == _name_of(claim))
    if found is None:
        return None
    if found.created_at < clock.now() - timedelta(hours=KEPT_HOURS):
        found.change(claim=None, request_print=None)
        return None
    if not claim.made(bytes(found.request_print or b"")):
        raise Invalid("The key was used for another request", code="idempotency_key_reused")
    return found


def _lease(payment: Payment, cards: CardGateway, place: ExitStack) -> None:
    if payment.attempt_ends_at is not None and payment.attempt_ends_at > clock.now():
        raise InProgress()
    _take(place, cards)
    payment.change(attempt_ends_at=clock.now() + ATTEMPT)


def _take(place: ExitStack, cards: CardGateway) -> None:
    try:
        place.enter_context(cards.place())
    except CardsUnavailable as away:
        raise _unavailable(away) from None


@atomic
def _end_attempt(payment_id: UUID) -> None:
    """The next one need not wait until the lease is over."""
    payment = payment_for_update(payment_id)
    if payment.status == "pending":
        payment.change(attempt_ends_at=clock.now())


def _conclude(actor: Actor, payment_id: UUID, outcome: Outcome | None, claim: Claim, answer_of: AnswerOf) -> Given:
    payment, answer = _write(actor, payment_id, outcome, claim, answer_of)
    if payment.status == "failed":
        raise PaymentDeclined(payment.id, payment.failure_code or "refused")
    return Given(answer, replayed=False)


@atomic
def _write(
    actor: Actor, payment_id: UUID, outcome: Outcome | None, claim: Claim, answer_of: AnswerOf
) -> tuple[Payment, StoredAnswer]:
    """The result and its answer. One that waits for the payer is not kept: it holds a secret, and changes when they act."""
    payment: Payment = settle(payment_id, outcome) if outcome else Payment.get_by_id(payment_id)
    secret = outcome.client_secret if outcome and payment.status == "pending" else None
    answer = answer_of(payments.shown(actor, payment.id), secret)
    if payment.status not in ("pending", "failed"):
        claim.keep(answer)
    return payment, answer


def _looked_up(cards: CardGateway, payment: Payment) -> Outcome | None:
    charge = charge_of(payment)
    found = cards.find(charge)
    age = clock.now() - payment.created_at
    if found is None:
        return _made_impossible(cards, charge) if age > UNKNOWN_FOR else None
    if found.state == "waiting" and age > UNCONFIRMED_FOR:
        return cards.void(replace(charge, reference=found.reference))
    return found


def _made_impossible(cards: CardGateway, charge: Charge) -> Outcome | None:
    outcome = cards.void(charge)
    if outcome is None:
        log.warning("charge neither found nor made impossible", extra={"payment_id": charge.payment_id})
    return outcome


def _is_what_was_asked(payment: Payment, outcome: Outcome) -> bool:
    """Never count money that is not there: another amount stays pending until somebody has looked at it."""
    same = (outcome.amount, outcome.currency) == (payment.amount, payment.currency)
    if not same:
        log.error("another amount was charged than was asked for", extra={"payment_id": payment.id})
    return same


def _name_of(claim: Claim) -> bytes:
    return hashlib.sha256("\n".join(claim.names).encode()).digest()


def _unavailable(away: CardsUnavailable) -> Unavailable:
    return Unavailable("The payment gateway is away", retry_after_s=max(1, round(away.retry_after_s)))
