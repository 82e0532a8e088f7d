"""What has been spent: one release, one record, a whole process."""

from splitpriv.accounting.charging import charge, current
from splitpriv.accounting.ledger import Ledger
from splitpriv.accounting.pricing import Price, price
from splitpriv.accounting.simulation import simulating, simulation
from splitpriv.accounting.spend import Spend
from splitpriv.accounting.total import epsilon_total

__all__ = [
    "Ledger",
    "Price",
    "Spend",
    "charge",
    "current",
    "epsilon_total",
    "price",
    "simulating",
    "simulation",
]
