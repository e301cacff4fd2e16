import sys
from importlib.metadata import version as installed
from importlib.util import find_spec
from inspect import ismodule
from pathlib import Path

from flatmin import core

TRAINERS = {"accelerate", "fastai", "lightning", "skorch", "transformers"}
MISSING = {name for name in TRAINERS if find_spec(name) is None}

sys.path.insert(0, str(Path(__file__).with_name("_ext")))

project = "flatmin"
author = project_copyright = "The flatmin developers"
version = release = installed("flatmin")
html_title = "flatmin: sharpness-aware minimization for PyTorch"

extensions = [
    "methods_table",
    "myst_parser",
    "public_names",
    "sphinx-mathjax-offline",  # formulas without a network: MathJax among the pages
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]

html_theme = "furo"
pygments_dark_style = "github-dark"
html_static_path = ["_static"]
html_css_files = ["flatmin.css"]
html_js_files = ["flatmin.js"]
html_show_sourcelink = False
copybutton_exclude = ".linenos, .gp"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = True
napoleon_use_rtype = False
napoleon_use_ivar = True

# `make links`: addresses of this project that exist from the first release on.
linkcheck_ignore = [
    r"https://(github\.com|raw\.githubusercontent\.com)/flatmin/.*",
    r"https://pypi\.org/project/flatmin/",
]
# Sections of GitHub's pages are made by a script.
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]
linkcheck_timeout = 20
linkcheck_retries = 3

# The documents stand alone: builds do not fetch other projects' inventories.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|collections|pathlib|typing)\..*"),
    ("py:.*", r"flatmin\.conformance\._check\..*"),
]

# Trainers that are not installed; their pages need no more than their names.
autodoc_mock_imports = sorted(MISSING)

# Every public name of these modules has to be on some page.
public_modules = [
    "flatmin",
    "flatmin.averaging",
    "flatmin.conformance",
    "flatmin.core",
    *(f"flatmin.core.{name}" for name in core.__all__ if ismodule(vars(core)[name])),
    "flatmin.diagnostics",
    "flatmin.diagnostics.directions",
    "flatmin.diagnostics.landscape",
    "flatmin.experiments",
    *(f"flatmin.integrations.{name}" for name in sorted(TRAINERS - MISSING)),
    "flatmin.methods",
    "flatmin.optim",
    "flatmin.pictures",
    "flatmin.schedules",
]
