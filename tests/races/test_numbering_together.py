from typing import Any

from fleet.db import db, transaction
from fleet.services import invoices
from tests.books import DAYS, rental_to_bill
from tests.cast import Cast
from tests.races.together import together

THREADS, ROUNDS = 20, 5


class ChangedMind(Exception):
    pass


def test_invoices_that_are_issued_at_once_have_numbers_without_a_gap_though_some_are_rolled_back(cast: Cast) -> None:
    rental = rental_to_bill(cast)

    def issue_some(thread: int) -> list[Any]:
        kept = []
        for round_ in range(ROUNDS):
            try:
                with transaction():
                    invoice = invoices.issue(cast.agent.actor, rental, [DAYS])
                    if (thread + round_) % 3 == 0:
                        raise ChangedMind
                    kept.append(invoice)
            except ChangedMind:
                pass
        return kept

    issued = [invoice for kept in together(THREADS, issue_some) for invoice in kept]
    kept = THREADS * ROUNDS - sum((thread + round_) % 3 == 0 for thread in range(THREADS) for round_ in range(ROUNDS))
    wanted = [f"INV-{number:06d}" for number in range(1, kept + 1)]
    assert sorted(invoice.number for invoice in issued) == wanted
    assert db.rows("SELECT number FROM invoice ORDER BY number") == [(number,) for number in wanted]
