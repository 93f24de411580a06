"""The JSON encoder of this integration."""

from __future__ import annotations

from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.utils.functional import Promise

from ssesync import json_default

__all__ = ["dump_json"]


class _Encoder(DjangoJSONEncoder):
    """Django's encoder, and what it can't encode by :func:`ssesync.json_default`."""

    def default(self, o: Any) -> Any:
        """Convert a value for which JSON has no notation."""
        return json_default(o, own=super().default)


# Made once: json.dumps() makes one in each call that has options.
_ENCODER = _Encoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def dump_json(value: Any) -> str:
    """Encode as JSON with Django's encoder; NaN, which is not JSON, is refused."""
    if isinstance(value, Promise):
        return str(value)  # a lazy translation is text
    return _ENCODER.encode(value)
