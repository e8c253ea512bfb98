"""How Sphinx builds these pages: `make docs`."""

from typing import Any

from sphinx.application import Sphinx

from remctl import __version__

project = "remctl-cffi"
project_copyright = "the remctl-cffi authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "py:obj"
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"remctl-cffi {version}"
html_show_copyright = False
html_show_sphinx = False


def adapt(_app: Sphinx, what: str, _name: str, _object: object, _options: Any, lines: list[str]) -> None:
    """Keep napoleon from reading "word: text" as a type, and named tuples from describing members by number."""
    if what in ("attribute", "property"):
        lines[:] = [] if lines[:1] and lines[0].startswith("Alias for field number") else ["..", "", *lines]


def setup(app: Sphinx) -> None:
    """Connect `adapt`, before napoleon."""
    app.connect("autodoc-process-docstring", adapt, priority=400)
