"""Checks of arguments that several front ends of the membership attacks take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError


def text(owner: str, name: str, value: Any) -> None:
    """Refuse what is no text; None is let pass."""
    if value is not None and not isinstance(value, str):
        raise InvalidParameterError(check.message(owner, name, "text", value))


def optional_callable(owner: str, name: str, value: Any) -> None:
    """Refuse what cannot be called; None is let pass."""
    if value is not None and not callable(value):
        raise InvalidParameterError(check.message(owner, name, "a callable, or None", value))


def keeping(owner: str, folder: Any, tag: Any, vectorised: Any, batch_size: Any, progress: Any) -> None:
    """Refuse wrong arguments of :func:`train_shadows` that say how and not what."""
    if folder is not None and (
        not isinstance(folder, (str, Path)) or (Path(folder).exists() and not Path(folder).is_dir())
    ):
        raise InvalidParameterError(check.message(owner, "folder", "the path of a folder, or None", folder))
    text(owner, "tag", tag)
    check.choice(owner, "vectorised", vectorised, (True, False, "auto"))
    check.integer(owner, "batch_size", batch_size, 1)
    check.choice(owner, "progress", progress, (True, False))
