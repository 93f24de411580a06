"""Refusing a client: the answer, and the end of its connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..detached.handover import Takeover, takeover_of
from ..detached.last_answer import LastAnswer
from ..producing import Refusal
from ..settings import Settings
from .margins import come_back
from .refusal import is_event_source, retry_field, unavailable_headers
from .registry import streams

__all__ = ["refuse"]


def refuse(
    environ: Mapping[str, Any], settings: Settings, headers: list[tuple[str, str]], why: str, *, counted: bool
) -> tuple[Refusal, Takeover | None]:
    """What a client is answered that can't be served now, and what ends its connection then, where that can be done.

    :param headers: those of the stream.
    :param why: what the client reads with a 503.
    :param counted: whether it is counted as refused already.
    """
    if streams.stopping and is_event_source(environ):
        # With any other status a browser gives up for good, and the next process will serve it. To a client that is
        # none, a 200 without events would be a whole answer.
        return Refusal("200 OK", headers, come_back(settings)), None
    browser = settings.refusal == "auto" and is_event_source(environ)
    seconds = streams.refuse(browser=browser, least=(settings.retry or 0) / 1000, counted=counted)
    if browser:
        answer = Refusal("200 OK", headers, retry_field(seconds))
    else:
        answer = Refusal("503 Service Unavailable", unavailable_headers(seconds), f"{why}\n".encode())
    return answer, takeover_of(environ, settings, answer.body, LastAnswer)
