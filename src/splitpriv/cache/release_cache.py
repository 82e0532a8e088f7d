"""``ReleaseCache``: the symbols of records by id, in the file of the ledger that was charged for them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import nn

from splitpriv.accounting import Ledger, charging
from splitpriv.cache.fingerprint import fingerprint
from splitpriv.cache.memo import Memo, file_of


class ReleaseCache:
    """Remembers what a record has sent, so that it sends the same again and pays once.

    What is stored is keyed by (data set, record id, edge, layers), never by content: the same id gets the same
    symbols back whatever its record now holds, and pays nothing. An edge or layer with other weights or
    settings is another key, and is charged and drawn afresh.

    The cache lives in the file of a ledger, ``Ledger(path=...)``, which is charged with every release that
    goes through it, whether or not it is in force. The order is: charge and reserve the rows (one transaction),
    draw, store the symbols, commit, hand on. Nothing is handed on before it is stored; after a crash in between
    the reserved rows are drawn again under the charge that they have paid. Of two processes that draw one row at the
    same time the first to store it wins, and both hand on what it stored.

    Args:
        path: the file; made, as a ledger without a limit, if there is none.

    Raises:
        LedgerFileError: see :class:`~splitpriv.accounting.Ledger`.

    Does not protect: against linking. Whoever sees two releases of one id sees equal symbols, and knows that they
    are one record's; so a cached release is never anonymous. The file holds ids and labels as they are.

    Source: memoised ("permanent") responses, Erlingsson, Pihur, Korolova 2014; Ding, Kulkarni, Yekhanin 2017.

    Example:
        >>> import tempfile
        >>> model = SplitModel(nn.Linear(8, 16), nn.Linear(16, 3), cut=RandomResponseLDP(epsilon=2.0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = ReleaseCache(folder + "/spent.db")
        ...     first = model.release(torch.randn(2, 8), ids=["a", "b"], cache=cache, progress=False)
        ...     again = model.release(torch.randn(2, 8), ids=["b", "c"], cache=cache, progress=False)
        ...     cache.ledger.epsilon, torch.equal(first[1], again[0]), len(cache)
        (32.0, True, 3)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._ledger = Ledger(path=path)

    @property
    def ledger(self) -> Ledger:
        """The ledger of the same file."""
        return self._ledger

    def __len__(self) -> int:
        """Number of stored rows: one for the symbols of a record under one key, one for its label."""
        book = file_of(self._ledger)
        with charging.lock(), book.reading():
            return int(book.database.all("SELECT count(*) FROM releases WHERE symbols IS NOT NULL")[0][0])

    def memo(self, parts: Sequence[nn.Module | str], dataset: str = "") -> Memo:
        """The rows of one edge and its layers, for one data set.

        Args:
            parts: the modules that records run through, or a text that stands for one.
            dataset: name of the set that the ids belong to.
        """
        return Memo(self._ledger, fingerprint(parts), dataset)

    def __repr__(self) -> str:
        return f"ReleaseCache(path={self._ledger.path!r}, rows={len(self):,})"
