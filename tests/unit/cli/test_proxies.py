"""The proxies that an answer's headers show. tests/proxies has real ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ssesync.cli import checks_body, proxies
from ssesync.cli.finding import Examination
from ssesync.cli.probe import Answer
from ssesync.cli.scan import Scan

from ...cases import each_case

GUNICORN = [("Server", "gunicorn"), ("Date", "today"), ("Connection", "close")]
EVENT = b"data: x\n\n"


def answer_with(headers: list[tuple[str, str]]) -> Answer:
    return Answer(200, "OK", "HTTP/1.1", headers, "http://127.0.0.1/", [])


def examined(headers: list[tuple[str, str]], *bursts: tuple[float, int], head: float = 0.0) -> Examination:
    """What was seen of a stream with so many events at each time, whose head came after some time."""
    scan = Scan()
    for at, count in bursts:
        scan.feed(at, EVENT * count)
    probe: Any = SimpleNamespace(scan=scan, answered_after=head, ended_after=None, error=None, cut=False)
    return Examination(probe, answer_with(headers), None, None, "", None, None, 4)


@each_case(
    "headers, names",
    [
        (GUNICORN, []),
        ([], []),
        ([("Server", "nginx/1.22.1")], ["nginx"]),
        ([("Server", "openresty")], ["nginx"]),
        ([("Server", "Caddy"), ("Server", "gunicorn")], ["Caddy"]),
        ([("Server", "cloudflare"), ("CF-Ray", "8a"), ("Via", "1.1 Caddy")], ["Caddy", "Cloudflare"]),
        ([("X-Varnish", "32770"), ("Via", "1.1 varnish (Varnish/7.1)")], ["Varnish"]),
        ([("Via", "1.1 varnish"), ("X-Served-By", "cache-fra-1")], ["a proxy (Via: 1.1 varnish)"]),
        ([("Via", "1.1 vegur")], ["Heroku"]),
        ([("Via", "1.1 ab.cloudfront.net (CloudFront)")], ["CloudFront"]),
        ([("X-Envoy-Upstream-Service-Time", "3")], ["Envoy"]),
        ([("Via", "1.1 squid\x1b[2J (squid/6)")], ["a proxy (Via: 1.1 squid\\x1b[2J (squid/6))"]),
        ([("X-Cache", "MISS")], ["a proxy (X-Cache: MISS)"]),
        ([("Alt-Svc", 'h3=":443"')], ['a proxy (Alt-Svc: h3=":443")']),
        ([("Date", "today"), ("Server", "gunicorn"), ("Connection", "Keep-Alive")], ["Apache"]),
        (GUNICORN[:2], ["a proxy without a name (gunicorn's Connection header is missing)"]),
    ],
)
def test_proxies_are_named_by_headers_that_they_add_move_and_remove(headers: list[tuple[str, str]], names: list[str]):
    assert [each.name for each in proxies.proxies_of(answer_with(headers))] == names


def finding_of(seen: Examination) -> tuple[str, str, str] | None:
    finding = proxies.proxy(seen)
    return finding and (finding.level, finding.seen, finding.remedy)


HELD = [(0.3 + 0.25 * number, 5) for number in range(8)]
REMEDY = proxies._HAPROXY.advice


def test_a_server_without_a_proxy_has_no_finding():
    assert finding_of(examined(GUNICORN, *HELD)) is None
    assert finding_of(examined(GUNICORN, *HELD, head=0.21)) is None
    assert finding_of(examined([], (0.3, 1), (1.3, 1), head=0.3)) is None


def test_events_that_come_together_after_a_late_head_are_held_back():
    together = "events come together, every 250 ms"
    assert finding_of(examined([], *HELD, head=0.21)) == ("advice", f"a proxy; {together}", REMEDY)
    nameless = proxies._NAMELESS.name
    assert finding_of(examined(GUNICORN[:2], *HELD, head=0.21)) == ("advice", f"{nameless}; {together}", REMEDY)
    assert finding_of(examined(GUNICORN[:2], *HELD)) == ("ok", nameless, "")
    late = ("unknown", f"{nameless}; headers after 210 ms at least", REMEDY)
    assert finding_of(examined(GUNICORN[:2], (0.21, 1), (1.3, 1), head=0.21)) == late


def test_a_named_proxy_has_its_own_settings_in_the_remedies():
    nginx = examined([("Server", "nginx")], *[(float(3 * at), 9) for at in range(5)])
    assert "proxy_buffering off" in checks_body.buffering(nginx).remedy
    assert "proxy_read_timeout" in proxies.timeout_settings(nginx)
    varnish = examined([("X-Varnish", "3")], *[(float(3 * at), 9) for at in range(5)])
    assert "return (pipe)" in checks_body.buffering(varnish).remedy
    found = finding_of(varnish)
    assert found is not None
    assert found[:2] == ("advice", "Varnish")
    assert "return (pipe)" in found[2]
