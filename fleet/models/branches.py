"""Where vehicles are picked up and brought back, and the tax that is due there."""

import peewee
from playhouse.postgres_ext import BinaryJSONField

from fleet import cache
from fleet.models.base import Listing, Model, Versioned


class TaxCode(Model):
    """A rate of tax, in basis points."""

    code = peewee.TextField(primary_key=True)
    name = peewee.TextField()
    rate_bps = peewee.IntegerField()


class Branch(Versioned):
    """A rental office, with the time zone that its days are counted in and the currency that it charges."""

    cached_in = cache.BRANCHES
    code = peewee.TextField()
    name = peewee.TextField()
    timezone = peewee.TextField()
    currency = peewee.TextField()
    tax_code = peewee.TextField(default="NONE")
    address = peewee.TextField(null=True)
    phone = peewee.TextField(null=True)
    email = peewee.TextField(null=True)
    opening_hours = BinaryJSONField(default=dict)


BRANCHES = Listing(
    columns={
        name: f"branch.{name}"
        for name in (
            "id", "code", "name", "timezone", "currency", "tax_code", "address", "phone", "email", "opening_hours",
            "version", "created_at", "updated_at",
        )
    },
    source="branch",
    key="branch.id",
)  # fmt: skip
