import random

from fleet.db import db
from fleet.services import ledger, reconciliation
from tests.books import entry_by_hand, issued
from tests.cast import Cast
from tests.races.together import together


def test_workers_with_overlapping_batches_post_each_invoice_once_and_none_of_them_fails(cast: Cast) -> None:
    invoice_ids = [issued(cast).id for _ in range(60)]

    def post_shuffled(seed: int) -> int:
        batch = random.Random(seed).sample(invoice_ids, 40)
        return ledger.post_invoices(batch)

    new = together(8, post_shuffled)
    posted = db.one("SELECT count(*) FROM journal_entry WHERE source_type = 'invoice'")
    assert (sum(new),) == posted
    ledger.post_invoices(invoice_ids)
    assert reconciliation.prove().holds


def test_many_who_take_an_entry_back_at_once_take_it_back_once(cast: Cast) -> None:
    path = f"/v1/ledger/entries/{entry_by_hand(('1000', 'debit', 5), ('3000', 'credit', 5))}"
    answers = together(8, lambda _: cast.accountant.post(f"{path}/reverse").status_code)
    assert sorted(answers) == [201] + [409] * 7
    assert reconciliation.prove().holds
