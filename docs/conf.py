"""Sphinx's configuration of the site: `make docs` builds it from the pages in this folder and from the code."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for docs.site, which is not installed

project = "rllib-policy-server"
author = "The rllib-policy-server authors"
copyright = "2026, The rllib-policy-server authors. Apache-2.0"
release = importlib.metadata.version(project)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docs.site.extension"]
exclude_patterns = ["site"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", r".*")]  # the types of signatures: NumPy, Gymnasium and RLlib are no part of this site

html_theme = "furo"
html_title = project
html_copy_source = False
templates_path: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist"]
smartquotes = False  # two dashes before an option stay two dashes
myst_heading_anchors = 3  # so that `page.md#heading` is a link that is checked

default_role = "code"  # docstrings quote names with single backticks, as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
