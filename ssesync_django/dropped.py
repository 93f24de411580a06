"""Ends streams whose response is not sent, because a middleware replaced it, with their request."""

from __future__ import annotations

import weakref

from django.http import HttpRequest

from ssesync import EventStream

__all__ = ["end_with_request"]


def end_with_request(stream: EventStream, request: HttpRequest) -> None:
    """Close a stream, if it is still open, after the response to its request was sent, even if that is another one.

    Django closes the request with the response that it has sent. The traceback of an exception in a middleware may
    reference the view's response: until the next garbage collection, or for good if a debug page keeps it.

    :param stream: the stream.
    :param request: the request.
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
