"""Text as it may be shown: nothing a server sends reaches the terminal as a control character."""

from __future__ import annotations

import json
from typing import Any

from ..text import UNSAFE, escape

__all__ = ["bytes_text", "duration_text", "escape", "escape_json", "excerpt", "json_lines", "plural", "reason"]


def escape_json(text: str) -> str:
    r"""JSON text with the same characters as ``\u009b``; it means what it meant before."""
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def json_lines(text: str, width: int) -> list[str] | None:
    """JSON laid out in lines of at most ``width`` characters where that can be; ``None`` if it is no object or array.

    What fits on a line stays on one; what does not is opened, one level at a time.
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


# Longer than anyone reads; every level of it is written out once for each level above.
_LONGEST_JSON = 100_000


class _Number(str):
    """A number as it was written: 1.10 and 12345678901234567890 are not to be rounded."""


class _Object(list[tuple[str, Any]]):
    """An object with all its pairs, in their order, be a name twice among them."""


def _lay_out(value: Any, width: int, indent: int, before: str = "", after: str = "") -> list[str]:
    margin = " " * indent
    line = f"{margin}{before}{_compact(value)}{after}"
    if len(line) <= width or not isinstance(value, list) or not value:
        return [line]
    opening, closing = "{}" if isinstance(value, _Object) else "[]"
    lines = [f"{margin}{before}{opening}"]
    for at, item in enumerate(value, 1):
        name, each = (f"{_string(item[0])}: ", item[1]) if isinstance(value, _Object) else ("", item)
        lines += _lay_out(each, width, indent + 2, name, "," if at < len(value) else "")
    return [*lines, f"{margin}{closing}{after}"]


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
    """A size in bytes for people: ``512 B``, ``3.4 kB``."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95 or unit == "GB":
            break
    return f"{size:,.1f} {unit}"


def duration_text(seconds: float) -> str:
    """A time span for people: ``4 ms``, ``1.2 s``, ``35 s``, ``2:05``, ``1:02:05``."""
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
    """The beginning of a body that is no stream, for the end of a sentence: ``": no such room"``, or ``""``."""
    text = " ".join(body[:2000].decode("utf-8", "replace").split())
    if not text or text.startswith("<") or "html" in content_type.lower():
        return ""
    return f": {escape(text if len(text) <= _EXCERPT else f'{text[:_EXCERPT]}…')}"


_EXCERPT = 160


def plural(count: int, one: str, many: str = "") -> str:
    """``1 event``, ``2 events``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def reason(error: BaseException) -> str:
    """Why, without the layers that passed it on: ``Connection refused``."""
    seen: list[BaseException] = []
    pending: list[Any] = [error]
    while pending:
        each = pending.pop(0)
        if isinstance(each, BaseException) and each not in seen:
            seen.append(each)
            pending += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
    for each in reversed(seen):
        text = getattr(each, "verify_message", "") or (getattr(each, "strerror", "") or "")
        if text:
            return escape(str(text))
    return escape(str(error)) or type(error).__name__
