from importlib.metadata import version as installed

project = "flatmin"
author = "The flatmin developers"
version = release = installed("flatmin")
html_title = "flatmin: sharpness-aware minimization for PyTorch"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
html_theme = "furo"
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = True
napoleon_use_rtype = False
napoleon_use_ivar = True

# The documents stand alone: builds do not fetch other projects' inventories.
nitpick_ignore_regex = [("py:.*", r"(torch|collections|pathlib|typing)\..*")]
