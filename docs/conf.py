"""Sphinx. Build with ``sphinx-build -W -b html docs docs/_build/html``; it needs no network."""

from __future__ import annotations

import sys
from pathlib import Path

import django
from django.conf import settings

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# REST framework, which ssesync_django.drf is for, can't be imported without settings.
settings.configure(INSTALLED_APPS=["ssesync_django"], USE_TZ=True)
django.setup()

import ssesync  # noqa: E402

project = "ssesync"
author = "the ssesync authors"
copyright = "the ssesync authors"
version = release = ssesync.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"ssesync {release}"
html_copy_source = False

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 90

# Every cross reference of ours must lead somewhere. Those into other projects would need their inventories, and so
# the network; they are named here instead.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|contextlib|contextvars|enum|threading|types|typing|http|_typeshed|io|ssl|wsgiref)\..*"),
    (r"py:.*", r"(flask|werkzeug|django|rest_framework|requests|urllib3)\..*"),
    (r"py:class", r"(Callable|Iterable|Iterator|Mapping|AsyncIterator|AbstractContextManager|TracebackType|Any)"),
    # Sets of options and type variables, which the pages tell of in words.
    (r"py:class", r"(Unpack|NoReturn|Request|RunKeywords|\w+Options|P|ssesync\.event\.E)"),
    (r"py:class", r"ssesync_(flask|django)\.views\.(P|R|V|StreamDecorator|WriterDecorator)"),
    (r"py:class", r"(WSGIEnvironment|StartResponse|HttpRequest|JSONRenderer|AppConfig|Flask|View|Source|Scope)"),
    (r"py:class", r"(SourceFactory|Connection|Streamable|Producing|Refusal|Runs|RunRecord|Production)"),
    (r"py:class", r"ssesync\.(producing|server|detached|channels|json_encoder)\..*"),
]
