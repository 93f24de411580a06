"""What the head of the answer says."""

from __future__ import annotations

import re

from ..errors import ContentEncodingError
from ..wire.http import HOP_BY_HOP
from .finding import Check, Examination, Finding, advice, ok, problem, unknown
from .text import duration_text, plural

__all__ = ["HEAD_CHECKS"]

# Hop-by-hop headers that no server is to send with a stream.
_UNEXPECTED = (HOP_BY_HOP | {"proxy-connection"}) - {"connection", "proxy-authorization", "transfer-encoding"}
_COMPRESSION = (
    "What compresses must flush after every event, and many do not. Leave text/event-stream out: in nginx out of "
    "gzip_types, in Django with Content-Encoding: identity on the response (GZipMiddleware), in proxies with "
    "Cache-Control: no-transform."
)
# One media type; a comma may stand in a parameter's quotes.
_ONE_TYPE = re.compile(r'(?:[^",]|"[^"]*")*')
_ONCE = ("Cache-Control", "Connection", "Content-Length", "Transfer-Encoding", "X-Accel-Buffering")


def status(seen: Examination) -> Finding:
    """The status, and what redirects led to it."""
    answer = seen.answer
    text = f"{answer.version} {answer.status} {answer.reason}".strip()
    if not answer.redirects:
        return ok("Answer", text)
    led = f"{text} after {plural(len(answer.redirects), 'redirect')} to {answer.url}"
    if answer.url.startswith("http:") and any(url.startswith("https:") for _, url in answer.redirects):
        return problem("Answer", f"{led}, from https to http", "Redirect to https addresses only.")
    return advice("Answer", led, "Every reconnection goes through the redirect again: let clients ask there.")


def media_type(seen: Examination) -> Finding:
    """The media type and its charset."""
    value = seen.answer.get("Content-Type")
    charset = re.search(r";\s*charset\s*=\s*\"?([^\s\";]+)", value, re.IGNORECASE)
    if charset and charset[1].lower() not in ("utf-8", "utf8"):
        return problem(
            "Media type",
            value,
            "Event streams are UTF-8 whatever the charset says: send UTF-8, and Content-Type: text/event-stream; "
            "charset=utf-8.",
        )
    if len(seen.answer.all("Content-Type")) > 1 or not _ONE_TYPE.fullmatch(value):
        return advice(
            "Media type",
            f"said more than once: {value}",
            "Browsers go by the last one that is a media type (Fetch standard), other clients refuse the stream: the "
            "application or a proxy sends it, not both.",
        )
    return ok("Media type", value)


def cache_control(seen: Examination) -> Finding:
    """Whether something in between may store or change the stream."""
    answer = seen.answer
    value = answer.get("Cache-Control")
    words = {word.strip().lower().partition("=")[0] for word in value.split(",")}
    cached = answer.get("Age") not in ("", "0") or "hit" in answer.get("X-Cache").lower()
    wanted = "Send Cache-Control: no-cache, no-transform."
    if cached or answer.get("CF-Cache-Status").upper() == "HIT":
        return problem("Cache-Control", f"{value or 'none'}; the answer comes out of a cache", wanted)
    if not words & {"no-cache", "no-store"}:
        if "max-age" in words or "public" in words:
            return problem("Cache-Control", value, f"Caches may keep the stream and serve it again. {wanted}")
        return advice("Cache-Control", value or "none", f"Nothing forbids a cache to keep the stream. {wanted}")
    if "no-transform" not in words:
        return advice(
            "Cache-Control", value, f"A proxy may still compress the stream, and hold events back for it. {wanted}"
        )
    return ok("Cache-Control", value)


def x_accel_buffering(seen: Examination) -> Finding:
    """Whether an nginx is told not to buffer. It takes the header for itself, so behind one it is not seen."""
    check, value = "X-Accel-Buffering", seen.answer.get("X-Accel-Buffering")
    if value.strip().lower() == "no":
        return ok(check, value)
    if "nginx" in seen.answer.get("Server").lower() and not value:
        return unknown(check, "not seen: nginx, which answered, keeps it to itself")
    return advice(
        check, value or "none", "An nginx in front of this server would collect events: send X-Accel-Buffering: no."
    )


def compression(seen: Examination) -> Finding:
    """What the server does when it is asked as browsers ask."""
    if isinstance(seen.browser.error, ContentEncodingError):
        return problem("Compression", str(seen.browser.error), "Clients that can't decode it get nothing.")
    if seen.unreadable is not None:
        return advice(
            "Compression",
            f"as browsers ask, which this command can't follow, so it has asked without: {seen.unreadable}",
            _COMPRESSION,
        )
    if seen.held_back is not None:
        return problem(
            "Compression",
            f"no answer at all in {duration_text(seen.held_back)} to a request that accepts it, as browsers do; "
            f"without it an answer after {duration_text(seen.browser.answered_after or 0)}",
            _COMPRESSION,
        )
    identity = seen.identity.answer if seen.identity else None
    unasked = "" if identity is None else identity.get("Content-Encoding").lower()
    if unasked not in ("", "identity"):
        return problem(
            "Compression",
            f"{unasked}, though the request says Accept-Encoding: identity",
            "Clients that can't read it get nothing. Compress only for clients that accept it, and best no event "
            "stream at all.",
        )
    if not seen.encoding:
        return ok("Compression", "none, though browsers offer to accept it")
    return advice(
        "Compression",
        seen.encoding,
        _COMPRESSION,
    )


def framing(seen: Examination) -> Finding:
    """How clients find the end of the body."""
    answer = seen.answer
    length, coding = answer.get("Content-Length"), answer.get("Transfer-Encoding").lower()
    if length and coding:
        return problem(
            "Framing",
            f"Content-Length: {length} and Transfer-Encoding: {coding}",
            "The two contradict each other (RFC 9112, section 6.3), and proxies may refuse the answer: the "
            "application sets neither.",
        )
    if length:
        return problem(
            "Framing",
            f"Content-Length: {length}",
            "A stream has no length: something collected it whole, or the view returns text. Return an iterable, and "
            "take out middleware that reads the whole body (ETag, Content-Length, minifying).",
        )
    if coding:
        return ok("Framing", coding)
    return advice(
        "Framing",
        f"{answer.version} without chunks: the end of the connection is the end of the stream",
        "A connection that breaks can't be told from an end, and requests' iter_lines() gives nothing until then. "
        + (
            "Let the server answer HTTP/1.1 (under Werkzeug: WSGIRequestHandler.protocol_version = 'HTTP/1.1')."
            if answer.version == "HTTP/1.0"
            else "In nginx, leave chunked_transfer_encoding on."
        ),
    )


def hop_by_hop(seen: Examination) -> Finding:
    """Headers that are the server's affair, in the hands of the application."""
    answer = seen.answer
    strange = dict.fromkeys(name for name, _ in answer.headers if name.lower() in _UNEXPECTED)
    twice = [name for name in _ONCE if len(answer.all(name)) > 1]
    if twice:
        return problem(
            "Hop-by-hop",
            f"sent twice: {', '.join(twice)}",
            "The server sends these, and so does the application or a proxy: take them out there.",
        )
    if strange:
        return advice(
            "Hop-by-hop",
            ", ".join(f"{name}: {answer.get(name)}" for name in strange),
            "They belong to the connection, not to the answer. WSGI forbids them to applications (PEP 3333), HTTP/2 "
            "to everybody.",
        )
    return ok("Hop-by-hop", ", ".join(f"Connection: {value}" for value in answer.all("Connection")) or "none")


def first_byte(seen: Examination) -> Finding:
    """How long a client does not know whether the stream is open."""
    head = seen.browser.answered_after or 0.0
    body = seen.scan.first_byte
    remedy = (
        "Clients count as connecting until then, and proxies may give up: have the first piece of the body, a comment, "
        "go out at once. Many servers send the headers only with it."
    )
    if body is None:
        text = f"headers after {duration_text(head)}, not a byte of the body in {duration_text(seen.watched)}"
        if isinstance(seen.browser.error, ContentEncodingError):
            return unknown("First byte", f"headers after {duration_text(head)}, and a body that can't be decoded here")
        if seen.browser.over and not seen.browser.cut and seen.browser.ended_after is not None:
            return problem("First byte", f"headers after {duration_text(head)}, and no body", "The stream is empty.")
        return problem("First byte", text, remedy)
    text = f"headers after {duration_text(head)}, the first byte of the body after {duration_text(body)}"
    slow = max(head, body) if seen.judged is seen.browser else head
    return ok("First byte", text) if slow < 1 else (problem if slow >= 5 else advice)("First byte", text, remedy)


def second_stream(seen: Examination) -> Finding | None:
    """Whether the server answers somebody else while a stream is open."""
    check, other = "Second stream", seen.identity
    if other is None:
        return None
    if other.answer is None:
        # As long as the first one took, and some more.
        if not other.error and seen.watched - (seen.browser.answered_after or 0) < 1 + 4 * (
            seen.browser.answered_after or 0
        ):
            return unknown(check, "the watch was too short for an answer")
        return problem(
            check,
            f"no answer while the first one was open ({other.error or 'nothing came'})",
            "Each stream holds a worker, and there was none left: gunicorn --worker-class gthread --threads 32 "
            "(sync workers serve one stream each), or limit the streams below the threads.",
        )
    if not other.answer.is_stream:
        return advice(
            check,
            f"{other.answer.status} {other.answer.reason} while the first one was open".replace("  ", " "),
            "If this is a limit that is meant, well; else raise it, or the number of threads.",
        )
    return ok(check, f"answered after {duration_text(other.answered_after or 0)} while the first one was open")


def head_request(seen: Examination) -> Finding | None:
    """Whether HEAD is answered."""
    check, probe = "HEAD", seen.head
    if probe is None:
        return None
    if probe.answer is None:
        return problem(
            check,
            f"no answer ({probe.error or 'nothing came'})",
            "Monitors and link previews ask so: answer with the headers and an empty body.",
        )
    text = f"{probe.answer.status} {probe.answer.reason}".strip()
    if probe.answer.status >= 500:
        return problem(check, text, "Answer with the headers and an empty body.")
    return ok(check, text)


def connections(seen: Examination) -> Finding | None:
    """How many streams a browser can open."""
    if seen.http2 is None:
        return None
    if seen.http2:
        return ok("HTTP/2", "offered: a browser's streams share one connection")
    return advice(
        "HTTP/2",
        "not offered",
        "Browsers open six connections to a host: the seventh tab with a stream waits for ever. Let the proxy in front "
        "speak HTTP/2 (nginx: listen 443 ssl http2).",
    )


HEAD_CHECKS: tuple[Check, ...] = (
    status, media_type, cache_control, x_accel_buffering, compression, framing, hop_by_hop, first_byte, second_stream,
    head_request, connections,
)  # fmt: skip
