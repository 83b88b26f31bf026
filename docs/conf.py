"""The site: lessons from nbs/, reference from docstrings, results from their stored files.

`make docs` builds it into docs/_build/html without a network; `_ext/` holds what is our own.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import ftlearn  # noqa: E402

project, author, copyright = "ftlearn", "ftlearn contributors", "2026 onwards, ftlearn contributors"
version = release = ftlearn.__version__
extensions = ["myst_nb", "numpydoc", "sphinx.ext.autodoc", "sphinx_design", "sphinx_copybutton"]
extensions += ["course", "formulas", "papers", "reference", "results"]  # docs/_ext

nitpicky = True
default_role = "code"
exclude_patterns = ["_build", "_ext", "_static"]
nb_code_prompt_hide = "Hide it"
nb_execution_mode = "off"  # `make run` has run them; the site shows what is stored
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
numpydoc_show_class_members = False
copybutton_exclude = ".linenos, .gp, .go"
copybutton_selector = "div.highlight:not(.no-copy) pre"

html_theme = "pydata_sphinx_theme"
html_title = "ftlearn"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_js_files = ["site.js"]
html_favicon = "_static/icon.svg"
html_math_renderer = "mathml"
html_show_sourcelink = False
toc_object_entries_show_parents = "hide"
html_copy_source = False
html_context = {"default_mode": "auto"}
html_sidebars = {"index": [], "gallery": []}
html_theme_options = {
    "logo": {
        "text": "ftlearn",
        "alt_text": "ftlearn, the first page",
        "image_light": "_static/icon.svg",
        "image_dark": "_static/icon.svg",
    },
    "navbar_align": "left",
    "icon_links": [
        {
            "name": "Source",
            "url": "https://github.com/ftlearn/ftlearn",
            "icon": "fa-brands fa-github",
        }
    ],
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
