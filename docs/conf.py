"""How `make docs` builds the site: these Markdown pages by MyST, the reference of Python from the docstrings, in Furo's clothes.

Nothing is fetched. A link to a page, an anchor, a file or one of our own Python names that is not there ends the build.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, not what happens to be installed

from creditguard._version import __version__

project = "creditguard"
author = copyright = "The creditguard developers"  # noqa: A001 - Sphinx's name
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!creditguard\.[A-Z]).*")
]  # other people's types, and private ones: no page has them

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
default_role = "code"
highlight_language = "none"  # a block without a language is output

html_theme = "furo"
html_title = f"creditguard {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6b57", "color-brand-content": "#0b6b57"},
    "dark_css_variables": {"color-brand-primary": "#5fd3b3", "color-brand-content": "#5fd3b3"},
}
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True

_PARAMETER = re.compile(r"\w+ {2,}\S")


def as_rst(lines: list[str]) -> list[str]:
    """A docstring of ours as reStructuredText: what is indented is code, `name    meaning` is a parameter."""
    done: list[str] = []
    in_code = in_parameters = False
    for number, line in enumerate(lines):
        indented = line.startswith("    ")
        in_code = in_code and (indented or not line)
        if in_parameters and indented:
            done.append(f"    {line.strip()}")
        elif line and not indented and (in_parameters or _PARAMETER.match(line)):
            in_parameters = True
            name, _, meaning = line.partition(" ")
            done.append(f":param {name}: {meaning.strip()}")
        else:
            if indented and not in_code and number and not lines[number - 1]:
                in_code = True
                done += [".. code-block:: python", ""]
            in_parameters = False
            done.append(line)
    return done


def _docstring(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:  # noqa: ARG001
    lines[:] = as_rst(lines)


def setup(app: Sphinx) -> None:
    app.add_lexer("cron", TextLexer)
    app.connect("autodoc-process-docstring", _docstring)
