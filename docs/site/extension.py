"""The part of Sphinx's build that is ours: directives whose text comes from the code, and docstrings as Sphinx reads them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from docs.site import command_lines, errors, protocol, settings

GENERATORS: dict[str, Callable[[str], str]] = {
    "settings": settings.markdown,
    "protocol": protocol.markdown,
    "errors": errors.markdown,
    "reasons": errors.reasons_markdown,
    "command-line": command_lines.markdown,
}
"""What makes the Markdown of each directive, from the directive's argument."""


class Generated(SphinxDirective):
    """A directive that stands for Markdown which is made from the code when the site is built."""

    optional_arguments = 1
    has_content = False

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the generated Markdown."""
        text = GENERATORS[self.name]("".join(self.arguments))
        parent = nodes.section()
        parent.document = self.state.document
        self.state.nested_parse(StringList(text.splitlines(), source=f"<{self.name}>"), 0, parent, match_titles=True)
        return list(parent.children)


def as_sphinx_reads_it(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Make a docstring's `Example:` a literal block, which it is, rather than text."""
    text = re.sub(r"^(\s*)Example:$", r"\1Example::\n", "\n".join(lines), flags=re.MULTILINE)
    lines[:] = [line for line in text.split("\n") if not line.strip().startswith("```")]


def reading_again(app: Sphinx, env: Any, added: Any, changed: Any, removed: Any) -> list[str]:
    """Name the pages that hold generated text: the code may have changed where they have not."""
    folder = Path(env.srcdir)
    return [page for page in env.found_docs if page.startswith("reference/") and (folder / f"{page}.md").exists()]


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx of it."""
    for name in GENERATORS:
        app.add_directive(name, Generated)
    app.connect("autodoc-process-docstring", as_sphinx_reads_it, priority=100)  # before napoleon
    app.connect("env-get-outdated", reading_again)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
