"""Django REST framework: content negotiation for event stream views. Imported only by projects that use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework.renderers import JSONRenderer

__all__ = ["EventStreamRenderer"]


class EventStreamRenderer(JSONRenderer):  # type: ignore[misc]
    """For views that answer ``Accept: text/event-stream``, which REST framework otherwise answers with 406.

    Put it into the view's ``renderer_classes``. The stream itself needs no rendering; an error response of this
    renderer is JSON, with that content type.
    """

    media_type = "text/event-stream"
    format = "event-stream"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        """Render an error's data as JSON."""
        response = (renderer_context or {}).get("response")
        if response is not None:
            response["Content-Type"] = JSONRenderer.media_type
        body: bytes = super().render(data, JSONRenderer.media_type, renderer_context)
        return body
