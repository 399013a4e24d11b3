"""The paper of an invoice: for the letter that brings it, and for whoever may see the invoice.

The amounts, dates and lines are those of the issue and never change. Whom it is addressed to, their language and the branch
are as they stand now, so that an erased customer's name is on no paper any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from fleet import config
from fleet.auth import Actor
from fleet.db import db
from fleet.errors import InvalidState, NotFound
from fleet.gateways import pdf
from fleet.models import notifications as models
from fleet.models.base import Condition
from fleet.models.invoices import INVOICES, invoices_seen_by
from fleet.rules import invoice_sheets
from fleet.rules.invoice_sheets import Sheet
from fleet.rules.languages import Language, offered
from fleet.rules.letters import InvoiceTold, LineTold


@dataclass(frozen=True, slots=True)
class Told:
    """An issued invoice with whom it goes to and in whose name."""

    customer_id: UUID
    email: str
    phone: str
    erased: bool
    by_email: Sequence[str] | None
    by_sms: Sequence[str] | None
    language: Language
    buyer: tuple[str, ...]
    seller: tuple[str, ...]
    told: InvoiceTold

    @property
    def sheet(self) -> Sheet:
        """What stands on its paper."""
        return invoice_sheets.sheet(self.told, self.language, seller=self.seller, buyer=self.buyer)


def told(invoice_id: UUID) -> Told | None:
    """What is told of an issued invoice; None for one that is not there or is a draft."""
    rows = db.recurring(models.INVOICE_TOLD, (invoice_id,))
    if not rows:
        return None
    customer_id, first_name, email, phone, tag, erased, by_email, by_sms, last_name, address, *rest = rows[0]
    branch, facts = rest[:4], rest[4:]
    language = offered(tag, config.current().default_language)
    facts.append(tuple(LineTold(*line) for line in db.recurring(models.INVOICE_LINES_TOLD, (invoice_id,))))
    return Told(
        customer_id=customer_id,
        email=email,
        phone=phone,
        erased=erased,
        by_email=by_email,
        by_sms=by_sms,
        language=language,
        buyer=tuple(part for part in (f"{first_name} {last_name}", address) if part),
        seller=_seller(language, branch),
        told=InvoiceTold(first_name, *facts),
    )


def sheet_seen(actor: Actor, invoice_id: UUID) -> Sheet:
    """The paper of an invoice that the actor may see. Raises NotFound, and InvalidState for a draft."""
    found = INVOICES.first([invoices_seen_by(actor), Condition("invoice.id = %s", (invoice_id,))])
    if found is None:
        raise NotFound()
    known = told(invoice_id)
    if known is None:
        raise InvalidState("The invoice is a draft: it has no number and no document yet")
    return known.sheet


def drawn(sheet: Sheet) -> bytes:
    """The sheet as PDF; the same sheet gives the same bytes."""
    return pdf.render(sheet)


def _seller(language: Language, branch: Sequence[str | None]) -> tuple[str, ...]:
    settings = config.current()
    tax_id = f"{language.label('tax_id')}: {settings.seller_tax_id}" if settings.seller_tax_id else None
    return tuple(part for part in (settings.seller_name, settings.seller_address, tax_id, *branch) if part)
