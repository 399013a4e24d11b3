"""/v1/customers"""

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from flask import Blueprint, g
from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from fleet.blueprints.invoices import InvoiceView
from fleet.blueprints.payments import PaymentView
from fleet.http import Answer, answer, if_match, operation, page_answer, shape
from fleet.models.people import Customer
from fleet.paging import page
from fleet.parsing import Day, Email, Id, Input, Line, PageQuery, View
from fleet.rules import text
from fleet.rules.priorities import Priority
from fleet.services import people

bp = Blueprint("customers", __name__, url_prefix="/v1/customers")


def _licence(raw: str) -> str:
    try:
        return text.licence(raw)
    except ValueError as error:
        raise PydanticCustomError("invalid_licence", f"{error}") from None


Licence = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64), AfterValidator(_licence)]
Language = Annotated[Literal["en", "de", "fr", "es"], Field(description="The language of letters to the customer (BCP 47)")]
Beginning = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
Status = Literal["active", "deactivated"]


class CustomerView(View):
    """Licence number and birth date are null for who may see the customer but not those, such as accountants."""

    id: UUID
    user_id: UUID | None
    first_name: str
    last_name: str
    email: str
    phone: str
    driver_license_number: str | None
    driver_license_expiry: date
    address: str | None
    date_of_birth: date | None
    language: str
    status: Status
    erased_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime


class CreateCustomer(Input):
    first_name: Line
    last_name: Line
    email: Email
    phone: Line
    driver_license_number: Licence
    driver_license_expiry: Day
    address: Line | None = None
    date_of_birth: Day | None = None
    language: Annotated[Language | None, Field(description="DEFAULT_LANGUAGE, if left out")] = None
    user_id: Annotated[Id | None, Field(description="Staff only: the account that may act for this customer")] = None


class ChangeCustomer(Input):
    first_name: Line = ""
    last_name: Line = ""
    email: Email = ""
    phone: Line = ""
    driver_license_number: Licence = ""
    driver_license_expiry: Day = date.max
    address: Line | None = None
    date_of_birth: Day | None = None
    language: Language = "en"
    user_id: Annotated[Id | None, Field(description="Staff only: the account that may act for this customer")] = None


class CustomerQuery(PageQuery):
    q: Annotated[Beginning | None, Field(description="How a name or an e-mail address begins")] = None
    status: Status | None = None


class ExportView(View):
    exported_at: datetime
    complete: bool
    profile: CustomerView
    account: dict[str, Any] | None
    rentals: list[dict[str, Any]]
    invoices: list[InvoiceView]
    payments: list[PaymentView]
    notifications: list[dict[str, Any]]
    sessions: list[dict[str, Any]]
    api_keys: list[dict[str, Any]]
    notification_preferences: dict[str, Any] | None


def _shape(customer: Customer | dict[str, Any]) -> dict[str, Any]:
    return shape(CustomerView, people.seen(g.actor, customer))


@bp.get("")
@operation("customers.read", query=CustomerQuery, answer=CustomerView, listed=True)
def index(query: CustomerQuery) -> Answer:
    """List customers."""
    return page_answer(page(query, people.listed, _shape, actor=g.actor, q=query.q, status=query.status))


@bp.post("")
@operation(
    "customers.create_own",
    body=CreateCustomer,
    answer=CustomerView,
    status=201,
    idempotent=True,
    identity=True,
    problems=("duplicate",),
)
def create(body: CreateCustomer) -> Answer:
    """Take a customer in. A user with the role customer creates one profile, their own."""
    customer = people.create(g.actor, **body.model_dump())
    return answer(_shape(customer), 201, version=customer.version, location=f"{bp.url_prefix}/{customer.id}")


@bp.get("/<uuid:customer_id>")
@operation("customers.read", answer=CustomerView)
def show(customer_id: UUID) -> Answer:
    """Show a customer."""
    customer = people.shown(g.actor, customer_id)
    return answer(_shape(customer), version=customer["version"])


@bp.patch("/<uuid:customer_id>")
@operation(
    "customers.update",
    body=ChangeCustomer,
    answer=CustomerView,
    if_match=True,
    idempotent=True,
    identity=True,
    problems=("duplicate", "invalid_state"),
)
def change(customer_id: UUID, body: ChangeCustomer) -> Answer:
    """Change a customer's profile."""
    customer = people.change(g.actor, customer_id, expected_version=if_match(), changes=body.changes())
    return answer(_shape(customer), version=customer.version)


@bp.post("/<uuid:customer_id>/deactivate")
@operation(
    "customers.deactivate", answer=CustomerView, if_match=True, idempotent=True, identity=True, problems=("invalid_state",)
)
def deactivate(customer_id: UUID) -> Answer:
    """Take no new rentals from a customer; those that stand go on."""
    customer = people.deactivate(g.actor, customer_id, expected_version=if_match(required=False))
    return answer(_shape(customer), version=customer.version)


@bp.get("/<uuid:customer_id>/export")
@operation("customers.export", answer=ExportView, cost=5, priority=Priority.DEFERRABLE)
def export(customer_id: UUID) -> Answer:
    """Give out everything that is stored about a customer."""
    found = people.exported(g.actor, customer_id)
    invoices = [shape(InvoiceView, invoice) for invoice in found["invoices"]]
    payments = [shape(PaymentView, payment) for payment in found["payments"]]
    return answer({**found, "profile": _shape(found["profile"]), "invoices": invoices, "payments": payments})


@bp.post("/<uuid:customer_id>/erase")
@operation(
    "customers.erase", answer=CustomerView, if_match=True, idempotent=True, identity=True, problems=("invalid_state",)
)
def erase(customer_id: UUID) -> Answer:
    """Forget the person and keep the books.

    Refused while a hold, a reservation or a rental stands. The personal fields become neutral, the sessions of the
    customer end and their account closes; rentals, invoices and the ledger stay.
    """
    customer = people.erase(g.actor, customer_id, expected_version=if_match(required=False))
    return answer(_shape(customer), version=customer.version)
