"""The checks of the answer's head. Each takes the examination; ``None`` means that it does not apply."""

from __future__ import annotations

import re

import requests

from ..errors import ContentEncodingError
from ..wire.http import HOP_BY_HOP
from .finding import Check, Examination, Finding, advice, ok, problem, unknown
from .proxies import proxy
from .text import duration_text, plural

__all__ = ["HEAD_CHECKS"]

# Hop-by-hop headers that no server should send with a stream.
_UNEXPECTED = (HOP_BY_HOP | {"proxy-connection"}) - {"connection", "proxy-authorization", "transfer-encoding"}
_COMPRESSION = (
    "What compresses must flush after every event, and many do not. Leave text/event-stream out: in nginx out of "
    "gzip_types, in Django with Content-Encoding: identity on the response (GZipMiddleware), in proxies with "
    "Cache-Control: no-transform."
)
# One media type; a comma may be in a parameter's quotes.
_ONE_TYPE = re.compile(r'(?:[^",]|"[^"]*")*')
_ONCE = ("Cache-Control", "Connection", "Content-Length", "Transfer-Encoding", "X-Accel-Buffering")


def status(seen: Examination) -> Finding:
    """The status, and the redirects that led to it."""
    answer = seen.answer
    text = f"{answer.version} {answer.status} {answer.reason}".strip()
    if not answer.redirects:
        return ok(text)
    text += f" after {plural(len(answer.redirects), 'redirect')} to {answer.url}"
    if answer.url.startswith("http:") and any(url.startswith("https:") for _, url in answer.redirects):
        return problem(f"{text}, from https to http", "Redirect to https addresses only.")
    return advice(text, "Every reconnection goes through the redirect again: give clients the final address.")


def media_type(seen: Examination) -> Finding:
    """The media type and its charset."""
    value = seen.answer.get("Content-Type")
    charset = re.search(r";\s*charset\s*=\s*\"?([^\s\";]+)", value, re.IGNORECASE)
    if charset and charset[1].lower() not in ("utf-8", "utf8"):
        return problem(
            value,
            "Event streams are UTF-8 whatever the charset is: send UTF-8, and Content-Type: text/event-stream; "
            "charset=utf-8.",
        )
    if len(seen.answer.all("Content-Type")) > 1 or not _ONE_TYPE.fullmatch(value):
        return advice(
            f"sent more than once: {value}",
            "Browsers use the last one that is a media type (Fetch standard), other clients refuse the stream: let "
            "either the application or a proxy send it.",
        )
    return ok(value)


def cache_control(seen: Examination) -> Finding:
    """Whether a cache or a proxy may store or change the stream."""
    answer = seen.answer
    value = answer.get("Cache-Control")
    words = {word.strip().lower().partition("=")[0] for word in value.split(",")}
    cached = answer.get("Age") not in ("", "0") or "hit" in answer.get("X-Cache").lower()
    wanted = "Send Cache-Control: no-cache, no-transform."
    if cached or answer.get("CF-Cache-Status").upper() == "HIT":
        return problem(f"{value or 'none'}; the answer comes out of a cache", wanted)
    if not words & {"no-cache", "no-store"}:
        if "max-age" in words or "public" in words:
            return problem(value, f"Caches may keep the stream and serve it again. {wanted}")
        return advice(value or "none", f"Nothing forbids a cache to keep the stream. {wanted}")
    if "no-transform" not in words:
        return advice(value, f"A proxy may still compress the stream, and hold events back for it. {wanted}")
    return ok(value)


def x_accel_buffering(seen: Examination) -> Finding:
    """Whether the header disables nginx's buffering. nginx removes it, so behind an nginx it is not seen."""
    value = seen.answer.get("X-Accel-Buffering")
    if value.strip().lower() == "no":
        return ok(value)
    if "nginx" in seen.answer.get("Server").lower() and not value:
        return unknown("not seen: the answer comes from nginx, which removes it")
    return advice(value or "none", "An nginx in front of this server would buffer events: send X-Accel-Buffering: no.")


def compression(seen: Examination) -> Finding:
    """The answer to a request that accepts compression, as those of browsers do."""
    if isinstance(seen.browser.error, ContentEncodingError):
        return problem(str(seen.browser.error), "Clients that can't decode it get nothing.")
    if seen.unreadable is not None:
        return advice(
            f"as browsers ask for it can't be read here, so the checks are of an answer without: {seen.unreadable}",
            _COMPRESSION,
        )
    if seen.held_back is not None:
        return problem(
            f"no answer at all in {duration_text(seen.held_back)} to a request that accepts it, as browsers do; "
            f"without it an answer after {duration_text(seen.browser.answered_after or 0)}",
            _COMPRESSION,
        )
    identity = seen.identity.answer if seen.identity else None
    unasked = "" if identity is None else identity.get("Content-Encoding").lower()
    if unasked not in ("", "identity"):
        return problem(
            f"{unasked}, though the request has Accept-Encoding: identity",
            "Clients that can't decode it get nothing. Compress only for clients that accept it, and best no event "
            "stream at all.",
        )
    return advice(seen.encoding, _COMPRESSION) if seen.encoding else ok("none, though browsers offer to accept it")


def framing(seen: Examination) -> Finding:
    """The framing of the body, by which clients find its end."""
    answer = seen.answer
    length, coding = answer.get("Content-Length"), answer.get("Transfer-Encoding").lower()
    if length and coding:
        return problem(
            f"Content-Length: {length} and Transfer-Encoding: {coding}",
            "The two contradict each other (RFC 9112, section 6.3), and proxies may refuse the answer: the "
            "application should set neither.",
        )
    if length:
        return problem(
            f"Content-Length: {length}",
            "A stream has no length: something collected it whole, or the view returns text. Return an iterable, and "
            "remove middleware that reads the whole body (ETag, Content-Length, minifying).",
        )
    if coding:
        return ok(coding)
    remedy = "In nginx, leave chunked_transfer_encoding on."
    if answer.version == "HTTP/1.0":
        remedy = "Let the server answer HTTP/1.1 (under Werkzeug: WSGIRequestHandler.protocol_version = 'HTTP/1.1')."
    return advice(
        f"{answer.version} without chunks: the end of the connection is the end of the stream",
        "Clients can't tell a broken connection from the end, and requests' iter_lines() gives nothing until then. "
        + remedy,
    )


def hop_by_hop(seen: Examination) -> Finding:
    """Headers of the connection that an application must not send."""
    answer = seen.answer
    strange = dict.fromkeys(name for name, _ in answer.headers if name.lower() in _UNEXPECTED)
    if twice := [name for name in _ONCE if len(answer.all(name)) > 1]:
        return problem(
            f"sent twice: {', '.join(twice)}",
            "The server sends these, and so does the application or a proxy: remove them there.",
        )
    if strange:
        return advice(
            ", ".join(f"{name}: {answer.get(name)}" for name in strange),
            "They belong to the connection, not to the answer. PEP 3333 forbids them to applications, HTTP/2 forbids "
            "them altogether.",
        )
    return ok(", ".join(f"Connection: {value}" for value in answer.all("Connection")) or "none")


def first_byte(seen: Examination) -> Finding:
    """The time until a client knows that the stream is open."""
    head, body, browser = seen.browser.answered_after or 0.0, seen.scan.first_byte, seen.browser
    text = f"headers after {duration_text(head)}"
    remedy = (
        "Until then clients are connecting, and proxies may give up: send the first piece of the body, a comment, "
        "at once. Many servers send the headers only with it."
    )
    if body is None:
        if isinstance(browser.error, ContentEncodingError):
            return unknown(f"{text}, and a body that can't be decoded here")
        if browser.ended_after is not None and not browser.cut:
            return problem(f"{text}, and no body", "The stream is empty.")
        return problem(f"{text}, not a byte of the body in {duration_text(seen.watched)}", remedy)
    text += f", the first byte of the body after {duration_text(body)}"
    slow = max(head, body) if seen.judged is browser else head
    return ok(text) if slow < 1 else (problem if slow >= 5 else advice)(text, remedy)


def second_stream(seen: Examination) -> Finding | None:
    """Whether the server answers another client while a stream is open."""
    other, first_took = seen.identity, seen.browser.answered_after or 0
    if other is None:
        return None
    if other.answer is None:
        # A time-out is the end of the watch.
        error = None if isinstance(other.error, requests.Timeout) else other.error
        # The second answer may take as long as the first one, and some more.
        if error is None and seen.watched - first_took < 1 + 4 * first_took:
            return unknown("the watch was too short for an answer")
        return problem(
            f"no answer while the first one was open ({error or 'nothing came'})",
            "Each stream holds a worker, and no other was free: gunicorn --worker-class gthread --threads 32 "
            "(a sync worker serves one stream that is not detached), or limit the streams to fewer than the threads.",
        )
    if not other.answer.is_stream:
        return advice(
            f"{other.answer.status} {other.answer.reason} while the first one was open".replace("  ", " "),
            "If this is not a limit of the application, raise the number of threads.",
        )
    return ok(f"answered after {duration_text(other.answered_after or 0)} while the first one was open")


def head_request(seen: Examination) -> Finding | None:
    """Whether HEAD is answered."""
    if seen.head is None:
        return None
    answer, remedy = seen.head.answer, "Answer with the headers and an empty body"
    if answer is None:
        return problem(
            f"no answer ({seen.head.error or 'nothing came'})", f"{remedy}: monitors and link previews send HEAD."
        )
    text = f"{answer.status} {answer.reason}".strip()
    return problem(text, f"{remedy}.") if answer.status >= 500 else ok(text)


def connections(seen: Examination) -> Finding | None:
    """Whether HTTP/2 is offered: without it a browser can open six streams."""
    if seen.http2 is None:
        return None
    if seen.http2:
        return ok("offered: a browser's streams share one connection")
    return advice(
        "not offered",
        "Browsers open six connections to a host: the seventh tab with a stream waits for ever. Let the proxy in front "
        "speak HTTP/2 (nginx: listen 443 ssl http2; HAProxy: alpn h2,http/1.1; Apache: Protocols h2 http/1.1).",
    )


#: The checks by their names, in the order of the report.
HEAD_CHECKS: dict[str, Check] = {
    "Answer": status,
    "Proxy": proxy,
    "Media type": media_type,
    "Cache-Control": cache_control,
    "X-Accel-Buffering": x_accel_buffering,
    "Compression": compression,
    "Framing": framing,
    "Hop-by-hop": hop_by_hop,
    "First byte": first_byte,
    "Second stream": second_stream,
    "HEAD": head_request,
    "HTTP/2": connections,
}
