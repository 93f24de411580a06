"""Streams whose response is not sent, as a middleware put another one in its place, end with their request."""

from __future__ import annotations

import weakref

from django.http import HttpRequest

from ssesync import EventStream

__all__ = ["end_with_request"]


def end_with_request(stream: EventStream, request: HttpRequest) -> None:
    """End a stream, if it has not ended by then, when the response to its request was sent, be it another one.

    Django closes the request with whichever response it has sent. What a middleware raised may hold the response that
    the view has made: until garbage is collected, or for good where a page for debugging keeps it.
    """
    request = getattr(request, "_request", request)  # Django REST framework wraps it
    reference, close = weakref.ref(stream), request.close

    def close_both() -> None:
        vars(request).pop("close", None)  # or the request would keep itself alive
        close()
        alive = reference()
        if alive is not None:
            alive.close()

    request.close = close_both  # type: ignore[method-assign]
