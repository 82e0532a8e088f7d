"""What has been spent: one release, one record, a whole process."""

from splitpriv.accounting.calibration import calibrate
from splitpriv.accounting.charging import charge, current
from splitpriv.accounting.composition import compose
from splitpriv.accounting.ledger import Ledger
from splitpriv.accounting.pld import Bounds
from splitpriv.accounting.pricing import Price, price
from splitpriv.accounting.shuffle import epsilon_shuffled, shuffled
from splitpriv.accounting.simulation import simulating, simulation
from splitpriv.accounting.spend import Spend
from splitpriv.accounting.total import delta_total, epsilon_total

__all__ = [
    "Bounds",
    "Ledger",
    "Price",
    "Spend",
    "calibrate",
    "charge",
    "compose",
    "current",
    "delta_total",
    "epsilon_shuffled",
    "epsilon_total",
    "price",
    "shuffled",
    "simulating",
    "simulation",
]
