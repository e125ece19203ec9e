"""Bookkeeping: what the bookkeeper does with budgets and alerts, between ledger and store, which know nothing of each
other."""
