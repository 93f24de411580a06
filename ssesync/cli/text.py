"""Text for the terminal, without the control characters that a server may send."""

from __future__ import annotations

import json
from typing import Any

from ..client.connect import causes
from ..text import escape, escape_json

__all__ = ["bytes_text", "duration_text", "escape", "escape_json", "excerpt", "json_lines", "plural", "reason"]


def json_lines(text: str, width: int) -> list[str] | None:
    """Lay out JSON in lines. A value that fits on a line stays on one; others are divided, one level at a time.

    :param text: the JSON.
    :param width: the characters of a line, if possible.
    :return: the lines; ``None`` if the text is no object or array, or too long.
    """
    if text.lstrip()[:1] not in ("{", "[") or len(text) > _LONGEST_JSON:
        return None
    try:
        value = json.loads(
            text, object_pairs_hook=_Object, parse_float=_Number, parse_int=_Number, parse_constant=_Number
        )
        return _lay_out(value, width, 0)
    except (ValueError, RecursionError):
        return None


# More is of no use on a terminal; each level is formatted once for each level above it.
_LONGEST_JSON = 100_000


class _Number(str):
    """A number as it was written, so that 1.10 and 12345678901234567890 are not rounded."""


class _Object(list[tuple[str, Any]]):
    """An object's pairs in their order; a name may occur twice."""


def _lay_out(value: Any, width: int, indent: int, before: str = "", after: str = "") -> list[str]:
    spaces = " " * indent
    line = f"{spaces}{before}{_compact(value)}{after}"
    if len(line) <= width or not isinstance(value, list) or not value:
        return [line]
    opening, closing = "{}" if isinstance(value, _Object) else "[]"
    lines = [f"{spaces}{before}{opening}"]
    for at, item in enumerate(value, 1):
        name, each = (f"{_string(item[0])}: ", item[1]) if isinstance(value, _Object) else ("", item)
        lines += _lay_out(each, width, indent + 2, name, "," if at < len(value) else "")
    return [*lines, f"{spaces}{closing}{after}"]


def _compact(value: Any) -> str:
    if isinstance(value, _Object):
        inner = ", ".join(f"{_string(name)}: {_compact(each)}" for name, each in value)
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_compact, value))}]"
    return value if isinstance(value, _Number) else _string(value) if isinstance(value, str) else json.dumps(value)


def _string(value: str) -> str:
    return escape_json(json.dumps(value, ensure_ascii=False))


def bytes_text(size: float) -> str:
    """Format a size.

    :param size: the number of bytes.
    :return: ``512 B``, ``3.4 kB``.
    """
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95 or unit == "GB":
            break
    return f"{size:,.1f} {unit}"


def duration_text(seconds: float) -> str:
    """Format a time span.

    :param seconds: its length.
    :return: ``4 ms``, ``1.2 s``, ``35 s``, ``2:05``, ``1:02:05``.
    """
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def excerpt(body: bytes, content_type: str) -> str:
    """The beginning of a body that is no stream, for the end of a message.

    :param body: the body or its beginning.
    :param content_type: its media type.
    :return: the text, safe to show: ``": no such room"``; ``""`` for HTML and an empty body.
    """
    text = " ".join(body[:2000].decode("utf-8", "replace").split())
    if not text or text.startswith("<") or "html" in content_type.lower():
        return ""
    return f": {escape(text if len(text) <= _EXCERPT else f'{text[:_EXCERPT]}…')}"


_EXCERPT = 160


def plural(count: int, one: str, many: str = "") -> str:
    """Format a number with its noun: ``1 event``, ``2 events``.

    :param count: the number.
    :param one: the singular.
    :param many: the plural, if it is not the singular and an s.
    :return: the text.
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def reason(error: BaseException) -> str:
    """The text of an error's first cause: ``Connection refused``.

    :param error: the error.
    :return: the text, safe to show.
    """
    texts = [getattr(each, "verify_message", "") or getattr(each, "strerror", "") or "" for each in causes(error)]
    return escape(next(filter(None, reversed(texts)), error)) or type(error).__name__
