"""Asynchronous producers in Django's views: with the view's language, one's own for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
from django.http import Http404
from django.test import RequestFactory
from django.utils import timezone, translation

from ssesync import from_async
from ssesync_django import EventStreamResponse, event_stream


@pytest.mark.django_db  # close() looks at the connections that other tests have made
def test_each_has_the_language_and_time_zone_of_its_view_while_others_run() -> None:
    both: list[str] = []

    async def produce(name: str) -> AsyncIterator[Any]:
        yield [translation.get_language(), timezone.get_current_timezone_name()]
        both.append(name)
        while len(both) < 2:
            await asyncio.sleep(0.001)
        with translation.override("fr"):
            await asyncio.sleep(0.01)
        yield [translation.get_language(), timezone.get_current_timezone_name()]

    request = RequestFactory().get("/")
    responses = []
    for language, zone in (("de", "Europe/Berlin"), ("es", "Europe/Madrid")):
        with translation.override(language), timezone.override(zone):
            responses.append(EventStreamResponse(from_async(produce(language)), request=request, threaded=True))
    data = [b"".join(response).decode() for response in responses]
    assert data[0] == ":ok\n" + 2 * 'data: ["de","Europe/Berlin"]\n\n'
    assert data[1] == ":ok\n" + 2 * 'data: ["es","Europe/Madrid"]\n\n'
    for response in responses:
        response.close()


def test_with_the_decorator_and_djangos_encoder() -> None:
    @event_stream
    def view(request: Any) -> Any:
        async def produce() -> AsyncIterator[Any]:
            await asyncio.sleep(0)
            yield {"at": datetime(2026, 7, 28), "path": request.path}

        return from_async(produce)

    response = view(RequestFactory().get("/a"))
    assert b"".join(response) == b':ok\ndata: {"at":"2026-07-28T00:00:00","path":"/a"}\n\n'


def test_an_exception_before_the_first_event_is_the_views() -> None:
    async def produce() -> AsyncIterator[str]:
        await asyncio.sleep(0.3)
        raise Http404
        yield "never"

    with pytest.raises(Http404):
        EventStreamResponse(from_async(produce), request=RequestFactory().get("/"))
