"""The answer to a client that can't be served now, and the end of its connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..producing import Refusal
from ..settings import Settings
from .detaching import Takeover, last_answer_of
from .framing import make_trailer
from .refusal import is_event_source, retry_field, unavailable_headers
from .registry import streams

__all__ = ["refuse"]


def refuse(
    environ: Mapping[str, Any], settings: Settings, headers: list[tuple[str, str]], why: str, *, counted: bool
) -> tuple[Refusal, Takeover | None]:
    """Make the answer to a client that can't be served now.

    :param environ: the WSGI environ of its request.
    :param settings: the stream's.
    :param headers: those of the stream.
    :param why: the text of a 503.
    :param counted: whether it is counted as refused already.
    :return: the answer, and an object that ends the connection after it, or ``None`` if that is not possible.
    """
    if streams.stopping and is_event_source(environ):
        # The next process will serve a browser, which would give up for good on any other status. For any other client
        # a 200 without events would be a complete answer.
        return Refusal("200 OK", headers, make_trailer(settings)), None
    browser = settings.refusal == "auto" and is_event_source(environ)
    seconds = streams.refuse(browser=browser, least=(settings.retry or 0) / 1000, counted=counted)
    if browser:
        answer = Refusal("200 OK", headers, retry_field(seconds))
    else:
        answer = Refusal("503 Service Unavailable", unavailable_headers(seconds), f"{why}\n".encode())
    return answer, last_answer_of(environ, settings, answer.body)
