"""`python -m tests.privacy_page` writes docs/security/privacy.md from the table; a house test holds the two together."""

from collections.abc import Iterator
from datetime import timedelta

from fleet.rules.privacy import TABLES, Fate, Kind, Table
from tests.source import ROOT

PAGE = ROOT / "docs" / "security" / "privacy.md"
_HEAD = """# What is stored of whom, and for how long

Written by `python -m tests.privacy_page` from `fleet/rules/privacy.py`, which also drives what is masked in logs and in the
audit log. `tests/test_house_privacy.py` fails when a column of the database is missing there, when retention says otherwise,
and when an export or an erasure does not do what stands here.

Kinds: **public** for everybody who may sign in; **internal** of the business, naming people by their ids at most; **personal**
of a person; **sensitive** of a person, and shown to few of those who see the rest (licence number and birth date: the person,
agents, managers, admins); **secret** opens something. An id of a customer leads to nobody once that customer is erased.

Of those who work here the account, the sessions and what they did are stored. Their account is emptied by an admin's change and
deactivation; what they did stays theirs in the audit log and the books.

"""


def lasting(kept: timedelta) -> str:
    """A time as people say it."""
    if kept >= timedelta(days=1):
        return f"{kept.days} day{'s' if kept.days > 1 else ''}"
    return f"{kept.seconds // 60} minutes"


def retention(table: Table) -> str:
    """How long a row is kept."""
    return f"{lasting(table.kept)} after {table.since}" if table.kept else table.since


def rows() -> Iterator[str]:
    """The page but for its head."""
    yield "## Personal data\n\n| column | kind | in the export as | at an erasure | why |\n|---|---|---|---|---|"
    for name, table in TABLES.items():
        for column, held in table.people.items():
            place = f"`{held.export}`" if held.export else "not in it"
            fate = f"goes {retention(table)}" if held.fate is Fate.EXPIRES else held.fate.value
            yield f"| `{name}.{column}` | {held.kind} | {place} | {fate} | {held.why} |"
    yield "\n## Secrets\n\n| column | how it lies |\n|---|---|"
    for name, table in TABLES.items():
        yield from (f"| `{name}.{column}` | a digest, which opens nothing |" for column in table.hidden.split())
        yield from (f"| `{name}.{column}` | encrypted (AES-256-GCM) under `SECRET_KEY` |" for column in table.sealed.split())
    yield "\n## Retention\n\n| table | kept | personal or secret | internal or public |\n|---|---|---|---|"
    for name, table in TABLES.items():
        close = [column for column, kind in table.kinds() if kind not in {Kind.PUBLIC, Kind.INTERNAL}]
        yield f"| `{name}` | {retention(table)} | {len(close) or ''} | {len(list(table.kinds())) - len(close)} |"


def page() -> str:
    """What the page has to say."""
    return _HEAD + "\n".join(rows()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
