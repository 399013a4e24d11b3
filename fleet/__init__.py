"""Vehicle rental: fleet, people, rentals, invoices and the ledger behind them."""
