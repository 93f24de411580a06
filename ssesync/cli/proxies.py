"""The proxies between the command and the server: their names, as far as the answer shows them, and their settings."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from .finding import Examination, Finding, advice, ok, unknown
from .probe import Answer
from .text import duration_text, escape

__all__ = ["Proxy", "proxies_of", "proxy", "timeout_settings", "unbuffered"]


@dataclass(frozen=True)
class Proxy:
    """A proxy or a service, the headers that show it, and its settings for event streams."""

    name: str
    #: Header names, each with a pattern that its value has in any case.
    signs: tuple[tuple[str, str], ...] = ()
    #: Setting by which it sends each event at once.
    unbuffered: str = ""
    #: Settings of the time after which it ends a silent stream, with their defaults.
    timeouts: str = ""
    #: Advice that applies whenever its headers are seen.
    advice: str = ""


_HAPROXY = Proxy(
    "HAProxy",
    (("Server", r"^haproxy"),),
    timeouts="HAProxy's timeout client and timeout server",
    advice="HAProxy, which sends no name, needs option http-no-delay, without which it holds each event back for "
    "0.2 s, and option abortonclose, without which it reports a client that left only at the second write after that.",
)
_APACHE = Proxy(
    "Apache",
    (("Via", r"\(apache"),),
    timeouts="Apache's ProxyTimeout (60 s)",
    advice="Apache reports a client that left only at the second write after that: a keep-alive every 5 s limits it to "
    "10 s. Each stream holds one of its threads: set MaxRequestWorkers to more than the number of streams.",
)
_NAMELESS = Proxy("a proxy without a name (gunicorn's Connection header is missing)")
#: Proxies by their headers. Those up to Caddy were tried; docs/guide/proxies.md has the sources of other limits.
PROXIES = (
    Proxy(
        "nginx",
        (("Server", r"nginx|openresty|tengine"),),
        unbuffered="Send X-Accel-Buffering: no, or set proxy_buffering off (uwsgi_buffering off) for this location in "
        "nginx.",
        timeouts="nginx's proxy_read_timeout (60 s)",
    ),
    _HAPROXY,
    _APACHE,
    Proxy(
        "Varnish",
        (("X-Varnish", ""), ("Via", r"\(varnish")),
        unbuffered="In Varnish use return (pipe) in vcl_recv for event streams, and no beresp.do_gzip.",
        timeouts="Varnish's between_bytes_timeout and pipe_timeout (60 s)",
        advice="Varnish reports a client that left only after the third event or keep-alive, and a piped one at once: "
        'in vcl_recv, if (req.http.Accept ~ "text/event-stream") { return (pipe); }.',
    ),
    Proxy(
        "Caddy",
        (("Server", r"caddy"), ("Via", r"caddy")),
        unbuffered="In Caddy set flush_interval -1 in reverse_proxy.",
    ),
    Proxy(
        "Cloudflare", (("CF-Ray", ""), ("Server", r"^cloudflare")), timeouts="Cloudflare's Proxy Read Timeout (100 s)"
    ),
    Proxy("CloudFront", (("X-Amz-Cf-Id", ""), ("Via", r"cloudfront")), timeouts="CloudFront's response timeout (30 s)"),
    Proxy("Heroku", (("Via", r"vegur|heroku"), ("Server", r"^heroku")), timeouts="Heroku's limit of 55 s of silence"),
    Proxy("Envoy", (("Server", r"envoy"), ("X-Envoy-Upstream-Service-Time", ""))),
)
# HAProxy sends with MSG_MORE, for which Linux holds an incomplete packet back for 200 ms. Of events that are less than
# 200 ms apart, two come together then, not more than 400 ms after the two before them.
_HELD = (0.19, 0.4)
_TOGETHER = 2
_ENOUGH = 4
# Characters of a header that are shown.
_LONGEST = 80


def proxies_of(answer: Answer) -> list[Proxy]:
    """Name the proxies that an answer came through.

    :param answer: the head of the answer.
    :return: those that add a header of their own, and those that change the headers of the server. One that does
        neither is not among them.
    """
    return list(_found(answer))


def _found(answer: Answer) -> Iterator[Proxy]:
    named = False
    for each in PROXIES:
        for header, pattern in each.signs:
            if any(re.search(pattern, value, re.IGNORECASE) for value in answer.all(header)):
                named = True
                yield each
                break
    if named:
        return
    for header in ("Via", "X-Cache", "Alt-Svc"):
        if value := answer.get(header):
            yield Proxy(f"a proxy ({header}: {escape(value[:_LONGEST])})")
            return
    # gunicorn sends Server, Date and Connection in this order. Apache passes Server on, and sends Date before it.
    names = [name.lower() for name, _ in answer.headers]
    if answer.get("Server").lower().startswith("gunicorn"):
        if "date" in names[: names.index("server")]:
            yield _APACHE
        elif "connection" not in names:
            yield _NAMELESS


def proxy(seen: Examination) -> Finding | None:
    """The proxies in front of the server, and the settings that they need."""
    found = proxies_of(seen.answer)
    text = ", ".join(each.name for each in found)
    remedies = [each.advice for each in found if each.advice]
    heads = [each.answered_after for each in (seen.browser, seen.identity) if each and each.answered_after is not None]
    late = min(heads, default=0) >= _HELD[0]
    # HAProxy removes the header Connection.
    possible = bool(found) or not seen.answer.all("Connection")
    if late and possible and (usual := _usual_silence(seen)):
        text = f"{text or 'a proxy'}; events come together, every {duration_text(usual)}"
        remedies = remedies or [_HAPROXY.advice]
    if remedies:
        return advice(text, " ".join(remedies))
    if late and _NAMELESS in found:
        return unknown(f"{text}; headers after {duration_text(min(heads))} at least", _HAPROXY.advice)
    return ok(text) if text else None


def _usual_silence(seen: Examination) -> float:
    """Seconds between events that come together as those do that HAProxy holds back; 0 if none do."""
    bursts = seen.scan.bursts[1:]
    several = sum(burst.events + len(burst.comments) >= _TOGETHER for burst in bursts)
    if len(bursts) < _ENOUGH or 2 * several < len(bursts):
        return 0.0
    usual = statistics.median(burst.silence for burst in bursts)
    return usual if _HELD[0] <= usual <= _HELD[1] else 0.0


def unbuffered(seen: Examination, otherwise: str) -> str:
    """Name the settings that stop the proxies in front from collecting events.

    :param seen: the examination.
    :param otherwise: the text where no proxy is known.
    :return: the text.
    """
    return " ".join(each.unbuffered for each in proxies_of(seen.answer) if each.unbuffered) or otherwise


def timeout_settings(seen: Examination) -> str:
    """Name the settings with which the proxies in front end a silent stream.

    :param seen: the examination.
    :return: the text, ``""`` where no proxy is known.
    """
    return ", ".join(each.timeouts for each in proxies_of(seen.answer) if each.timeouts)
