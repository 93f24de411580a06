"""``doctor`` through each proxy: it names the proxy where that shows, and the setting that it needs."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from ssesync.cli.probe import Answer
from ssesync.cli.proxies import proxies_of
from tests.unit.cli.runs import run

from .fronts import Front

PATH = "/flask/sources/generator"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("nginx", ["nginx"]),
        ("haproxy", ["a proxy without a name (gunicorn's Connection header is missing)"]),
        ("apache", ["Apache"]),
        ("caddy", ["Caddy"]),
    ],
)
def test_a_proxy_is_found_by_the_headers_of_the_answer(
    front_of: Callable[[str], Front], name: str, found: list[str]
) -> None:
    with front_of(name).connect() as wire:
        response = wire.get(PATH, Accept="text/event-stream", Connection="keep-alive")
        answer = Answer(response.status, "", response.version, response.headers, "", [])
        assert [proxy.name for proxy in proxies_of(answer)] == found, response.headers


def test_varnish_is_found_where_it_does_not_pipe(front_of: Callable[[str], Front]) -> None:
    with front_of("varnish").connect() as wire:
        response = wire.get(PATH, Accept="*/*")
        answer = Answer(response.status, "", response.version, response.headers, "", [])
        assert [proxy.name for proxy in proxies_of(answer)] == ["Varnish"]


def test_an_haproxy_that_holds_events_back_gets_its_remedy(front_of: Callable[[str], Front]) -> None:
    """The stream has an event every 50 ms, which HAProxy makes four or five every 250 ms.

    On a machine that is so busy that the events themselves are late, the next time is better.
    """
    for _ in range(5):
        done = run("doctor", f"{front_of('haproxy by default').url}{PATH}", "--json", "--seconds", "2")
        [finding] = [each for each in json.loads(done.stdout)["findings"] if each["check"] == "Proxy"]
        if finding["level"] == "advice":
            break
    assert "events come together" in finding["seen"]
    assert "option http-no-delay" in finding["remedy"]
