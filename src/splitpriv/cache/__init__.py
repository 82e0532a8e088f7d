"""Memoised releases: what a record sent once is what it sends again."""

from splitpriv.cache.memo import Memo
from splitpriv.cache.release_cache import ReleaseCache

__all__ = ["Memo", "ReleaseCache"]
