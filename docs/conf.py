"""Sphinx configuration. Nothing is fetched from a network, when building or when reading."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import splitpriv

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "splitpriv"
author = "The splitpriv developers"
copyright = "The splitpriv developers"
version = release = splitpriv.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
html_math_renderer = "mathml"
exclude_patterns = ["_build"]

# Pages name things as users do: sp.LaplaceLDP is splitpriv.LaplaceLDP.
add_module_names = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
maximum_signature_line_length = 110
python_display_short_literal_types = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Shape"]

# A reference to a name of this project that does not exist is an error; others are not looked up.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!splitpriv).*"),
    # Inner types that signatures of public names mention.
    (r"py:class", r"splitpriv\.mechanisms\.inverse\.InverseTable"),
    (r"py:class", r"splitpriv\.mechanisms\.bit_slices\.BitSlices"),
    (r"py:class", r"splitpriv\.mechanisms\.blocks\.Scratch"),
    (r"py:class", r"splitpriv\.release\.collect\.Packed"),
    (r"py:class", r"splitpriv\.release\.mapped\.MappedRows"),
]

html_theme = "furo"
html_title = "splitpriv"
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["splitpriv.css"]

SHAPE = re.compile(r"(?<!`)(\((?:[\w ]+, )*\*\w+(?:, \*?\w+)*\))(?!`)")
NOTE = re.compile(r"^(Does not \w+|Source)(?=[ :])")


def adapt(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Read docstrings as they are written: shapes as code, notes with their first words in bold."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[number] = NOTE.sub(r"**\1**", SHAPE.sub(r"``\1``", line))
    if what in ("attribute", "property"):
        lines[:0] = ["..", ""]  # a comment, or napoleon takes what stands before a colon for the type


def setup(app: Any) -> None:
    """Called by Sphinx; before napoleon's own hook, whose priority is 500."""
    app.connect("autodoc-process-docstring", adapt, priority=400)
