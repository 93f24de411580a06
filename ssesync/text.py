"""Text from clients and servers for logs, terminals and errors: without control characters and passwords."""

from __future__ import annotations

import re

__all__ = ["UNSAFE", "escape", "escape_json", "redact", "shown"]

#: Characters that control a terminal (C0, DEL, C1), that reorder or end lines (bidirectional controls, U+2028,
#: U+2029), and that can't be encoded (surrogates). A tab is harmless.
UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# The password before a URL's host (RFC 3986, section 3.2.1), and the values of a query's parameters with such a name.
_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^\s/?#:@]*):[^\s/?#]*@")
_SECRET = re.compile(r"([?&;][^=&;\s#]*(?:password|passwd|secret|token|credential|api_?key)[^=&;\s#]*=)[^&;\s#]*", re.I)


def escape(text: object) -> str:
    r"""``str(text)`` on one line, with control characters as ``\x1b`` or ``\u202e``.

    For every log line and terminal: text from a request can neither begin a line of its own nor control the terminal.
    """
    return UNSAFE.sub(lambda found: _written(ord(found[0])), str(text))


def escape_json(text: str) -> str:
    r"""Escape in JSON text what :func:`escape` does, as ``\u009b``, which leaves its meaning as it is.

    :param text: JSON.
    :return: JSON.
    """
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def redact(text: str) -> str:
    """The text without passwords in the URLs in it: ``redis://user:***@host/0?password=***``."""
    return _SECRET.sub(r"\1***", _USER.sub(r"\1:***@", text))


def shown(what: object, *addresses: str, state: str) -> str:
    """The ``repr()`` of an object that has an address and a state: ``<Reader 'https://host/events' open>``.

    :param what: the object.
    :param addresses: what it reads, writes or serves: an URL, a path, channels. Passwords are left out.
    :param state: its state.
    :return: the text, on one line.
    """
    return " ".join([f"<{type(what).__name__}", *(repr(redact(each)) for each in addresses), f"{state}>"])


def _written(code: int) -> str:
    short = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    return short or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
