"""Invoices issued and taken back in any order, in two currencies: the books always add up to what still stands."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from fleet.rules.postings import PostingLine, check_balanced, invoice_issued, reversed_lines
from fleet.rules.pricing import TaxedLine
from tests.rules.strategies import calm, invoices

Issued = tuple[str, tuple[TaxedLine, ...]]


class Ledger(RuleBasedStateMachine):
    """The books are kept by posting alone; beside them stands the plain list of invoices not taken back."""

    standing = Bundle[Issued]("standing")

    def __init__(self) -> None:
        super().__init__()
        self.book: list[tuple[str, PostingLine]] = []
        self.invoices: list[Issued] = []

    @rule(target=standing, currency=st.sampled_from(["EUR", "JPY"]), lines=invoices.map(tuple))
    def issue(self, currency: str, lines: tuple[TaxedLine, ...]) -> Issued:
        self._post(currency, invoice_issued(lines))
        self.invoices.append((currency, lines))
        return currency, lines

    @rule(invoice=consumes(standing))
    def take_back(self, invoice: Issued) -> None:
        currency, lines = invoice
        self._post(currency, reversed_lines(invoice_issued(lines)))
        self.invoices.remove(invoice)

    @invariant()
    def the_trial_balance_is_zero_in_each_currency(self) -> None:
        for currency in ("EUR", "JPY"):
            assert self._balances(currency).total() == 0

    @invariant()
    def receivables_and_tax_are_those_of_the_invoices_that_stand(self) -> None:
        for currency in ("EUR", "JPY"):
            balances = self._balances(currency)
            standing = [line for held, lines in self.invoices if held == currency for line in lines]
            assert balances["1100"] == sum(line.gross_amount for line in standing)
            assert -balances["2200"] == sum(line.tax_amount for line in standing)
            assert -balances["4000"] == sum(line.line.net_amount for line in standing if line.line.type == "rental")

    def _post(self, currency: str, entry: list[PostingLine]) -> None:
        check_balanced(entry)
        self.book += [(currency, line) for line in entry]

    def _balances(self, currency: str) -> Counter[str]:
        """Debits less credits by account."""
        balances: Counter[str] = Counter()
        for held, line in self.book:
            if held == currency:
                balances[line.account] += line.amount if line.side == "debit" else -line.amount
        return balances


TestLedger = Ledger.TestCase
TestLedger.settings = settings(calm, max_examples=40, stateful_step_count=20)
