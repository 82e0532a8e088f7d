"""What crossed the cut: packed symbols, the table that decodes them, and the claims made of them."""

from splitpriv.release.claims import Claims
from splitpriv.release.dataset import Release
from splitpriv.release.packing import bits_for, pack, unpack

__all__ = ["Claims", "Release", "bits_for", "pack", "unpack"]
