"""The documentation site: `make docs` builds it into build/docs."""

import re

import docutils.nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.util import logging

import lra_jax

project = "lra_jax"
author = copyright = "The lra_jax developers"
version = release = lra_jax.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["notes"]  # the lab book's history, for readers of the repository
html_theme = "furo"
html_math_renderer = "mathml"  # browsers show it themselves, without a network
html_title = "lra_jax"
# Equations and commands in plain text are in blocks without a language.
highlight_language = "none"
smartquotes_action = "D"  # dashes alone: ' is a derivative

# Markdown, as GitHub shows it. Headings have GitHub's anchors. A link to a file that is
# no page of the site gives that file as a download: it works on GitHub and here,
# wherever the repository is.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # shapes say more, and are in the text
add_module_names = False
napoleon_attr_annotations = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Returns"]  # as a text: what is before a colon is no type
default_role = "literal"  # `code` in a docstring, as in Markdown


def _to_rest(app, what, name, obj, options, lines):
    """Docstrings are plain text: equations are indented, | is a norm, "H." no list."""
    del app, what, name, obj, options
    found, above = [], ""
    for number, line in enumerate(lines):
        after_gap = number > 0 and not lines[number - 1]
        # An indented block below a paragraph keeps its lines; sections have no gap.
        if line.startswith("    ") and after_gap and not above.startswith(" "):
            found += ["::", ""]
        if not line.startswith("    "):
            line = re.sub(r"\|(?=[^`]*(`[^`]*`[^`]*)*$)", r"\|", line)
        line = re.sub(r"^(\s+\w+)_: ", r"\1\\_: ", line)  # lambda_ is no reference
        found.append(re.sub(r"^(\s+\w+: [A-Za-z])\.", r"\1\\.", line))
        above = line or above
    lines[:] = found


def _without_functions(app, what, name, obj, options, signature, returns):
    """A default that is a function has no text of its own."""
    del app, what, name, obj, options
    found = signature and re.sub(r"=\(<function .*?False\)|=<.*?>", "=...", signature)
    return found, returns


def _download(app, docname, source):
    """A link to ../NAME.md gives the file, as one to any other file does."""
    del app, docname
    source[0] = re.sub(r"\]\((?=\.\./[^)]*\.md\))", "](path:", source[0])


# What GitHub's renderer knows and docutils' does not.
_COMMANDS = {"dots": r"\ldots", "texttt": r"\text"}


def _mathml(as_block):
    """What writes an equation into a page, as MathML."""

    def visit(self, node):
        text = node.astext().strip()
        names = "|".join(_COMMANDS)
        known = rf"\\({names})(?![a-zA-Z])"
        text = re.sub(known, lambda match: _COMMANDS[match[1]], text)
        try:
            found = latex2mathml.tex2mathml(text, as_block=as_block)
        except MathError as error:
            logging.getLogger(__name__).warning("%s: %s", error, text, location=node)
            found = self.encode(text)
        kind = ("div", "span")[not as_block]
        self.body.append(f'<{kind} class="math">{found}</{kind}>')
        raise docutils.nodes.SkipNode

    return visit


def setup(app):
    """Sphinx calls this once."""
    inline, block = (_mathml(False), None), (_mathml(True), None)
    app.add_html_math_renderer("mathml", inline, block)
    app.connect("source-read", _download)
    app.connect("autodoc-process-docstring", _to_rest, priority=1)
    app.connect("autodoc-process-signature", _without_functions)
