"""The checks of the stream, and of the times of its bytes. ``None`` means that a check does not apply."""

from __future__ import annotations

import statistics
from collections import Counter

from ..errors import ContentEncodingError
from .finding import Check, Examination, Finding, advice, ok, problem, unknown
from .proxies import timeout_settings, unbuffered
from .scan import Burst, Scan
from .text import bytes_text, duration_text, escape, plural

__all__ = ["BODY_CHECKS"]

# Silence between bursts that no writer of single events causes by chance.
_PAUSE = 1.0
_MANY = 5
_SMALLEST_BUFFER = 512
# So many pieces of one size, each cut in an event, are no chance, however soon they follow each other.
_OFTEN = 3
# nginx and other AWS services give up after 60 s, API Gateway after 29, Heroku after 55.
_LONG_SILENCE = 29.0
_KEEP_ALIVE = 15.0
# Go's bufio.Scanner, which many readers use, takes lines of 64 kB.
_LARGE = 64 * 1024
_NO_BUFFER = (
    "Send X-Accel-Buffering: no, or set proxy_buffering off (uwsgi_buffering off) for this location in nginx; "
    "elsewhere switch response buffering off, and compression for text/event-stream."
)


def buffering(seen: Examination) -> Finding:
    """Whether a proxy or the server collects events that the application wrote one by one."""
    scan, other = seen.scan, seen.identity
    if seen.encoding and scan is not seen.browser.scan:
        return problem(
            f"with {seen.encoding} no event arrived, without it {plural(scan.events, 'event')}",
            f"What compresses does not flush. {unbuffered(seen, _NO_BUFFER)}",
        )
    signs = _signs(scan, ended=seen.judged.ended_after is not None, watched=seen.watched)
    if seen.encoding and other is not None and other.scan.events > scan.events:
        signs.insert(0, f"{scan.events} of {other.scan.events} events arrived through {seen.encoding}")
    if signs:
        return problem("; ".join(signs), unbuffered(seen, _NO_BUFFER))
    large = [burst for burst in scan.bursts[1:] if burst.silence >= _PAUSE and burst.events >= _MANY]
    if len(large) > 1:
        silence = duration_text(statistics.median(burst.silence for burst in large))
        return advice(
            f"{plural(len(large), 'time')} {_MANY} events or more came at once after about {silence}",
            f"If the application does not write them together, something collects them. {unbuffered(seen, _NO_BUFFER)}",
        )
    count = scan.events + scan.comments
    if count < 2:
        return unknown("too few events came", "Watch longer (--seconds), or while events are sent.")
    return ok(f"none: {count:,} events and comments in {plural(len(scan.bursts), 'piece')}")


def _signs(scan: Scan, *, ended: bool, watched: float) -> list[str]:
    """Signs that only a buffer causes."""
    signs = []
    collected = [burst for burst in scan.bursts if burst.silence >= _PAUSE and _keep_alives(burst) > 1]
    if collected:
        worst = max(collected, key=_keep_alives)
        signs.append(f"{_keep_alives(worst)} keep-alives came at once after {duration_text(worst.silence)} of silence")
    torn = [
        (burst.size, silence)
        for burst, silence in zip(scan.bursts, scan.silences(watched), strict=True)
        if not burst.whole and burst.size >= _SMALLEST_BUFFER
    ]
    size, times = Counter(size for size, _ in torn).most_common(1)[0] if torn else (0, 0)
    if times < _OFTEN:
        torn = [(size, silence) for size, silence in torn if silence >= _PAUSE / 2]
    if torn:
        wait = duration_text(max(silence for _, silence in torn))
        signs.append(
            f"{plural(len(torn), 'time')} the bytes stopped in the middle of an event, for up to {wait}; "
            f"{size:,} of them came at once"
        )
    if ended and len(scan.bursts) == 1 and scan.events > 1 and scan.bursts[0].at >= 2 * _PAUSE:
        signs.append(f"all {plural(scan.events, 'event')} came at the end, {duration_text(scan.bursts[0].at)} late")
    return signs


def _keep_alives(burst: Burst) -> int:
    """How often the most frequent comment is in it."""
    return max(Counter(burst.comments).values(), default=0)


def keep_alive(seen: Examination) -> Finding:
    """Whether a keep-alive is sent during silence, before proxies and clients give up the connection."""
    scan, ended = seen.scan, seen.judged.ended_after
    if not scan.bursts:
        return unknown("nothing came")
    until = seen.watched if ended is None else ended
    longest = max(scan.silences(until))
    without = f"{duration_text(longest)} without a byte"
    remedy = (
        "nginx gives up a connection that is silent for 60 s, Heroku for 55 s, AWS API Gateway for 29 s: send a "
        "comment every 15 s (':keep-alive' and one line end)."
    )
    beats = [burst.silence for burst in scan.bursts[1:] if burst.comments and not burst.events]
    if scan.ping_events:
        name, count = scan.ping_events.most_common(1)[0]
        return advice(
            f"{plural(count, 'event')} with {escape(name)!r}",
            "Clients handle these as events, and ignore comments (lines that begin with a colon). Only pages need "
            "events, as their scripts see no comments.",
        )
    if longest >= _LONG_SILENCE:
        return problem(without, remedy)
    if beats:
        return ok(f"a comment after {duration_text(statistics.median(beats))} of silence")
    if longest > _KEEP_ALIVE + 2:
        return advice(without, remedy)
    if until < _KEEP_ALIVE + 2:
        return unknown(f"none in {duration_text(until)}", "Watch for longer than a keep-alive takes: --seconds 35.")
    return ok(f"none was needed: never silent for more than {duration_text(longest)}")


def blank_line(seen: Examination) -> Finding | None:
    """Whether a comment has a blank line, of which some clients make an event."""
    text, blank = plural(seen.scan.comments, "comment"), seen.scan.lines.blank_after_comment
    if not seen.scan.comments:
        return None
    if blank:
        return advice(
            f"{text}, {blank} with a blank line behind",
            "Some clients (openai-python among them) make an empty event of the blank line: end a comment with one "
            "line end.",
        )
    return ok(text)


def events(seen: Examination) -> Finding:
    """The number of events by type, and the size of the longest."""
    scan, longest = seen.scan, bytes_text(seen.scan.lines.longest_event)
    types = ", ".join(f"{count:,} {escape(name)}" for name, count in scan.types.most_common(4))
    more = len(scan.types) - 4
    text = f"{scan.events:,}: {types}" + (f" and {plural(more, 'other type')}" if more > 0 else "")
    if scan.too_large:
        return problem(
            f"{text if scan.events else 'none complete'}; one has more than {longest}",
            "Clients hold a whole event in memory, and most have a limit: send where to fetch the data instead.",
        )
    if not scan.events:
        return unknown(f"none in {duration_text(seen.watched)}", "Watch longer, or while events are sent.")
    if scan.lines.longest_event > _LARGE:
        return advice(
            f"{text}; the longest has {longest}",
            "Many clients refuse lines of more than 64 kB: send where to fetch the data instead, or split it.",
        )
    return ok(text)


def encoded_twice(seen: Examination) -> Finding | None:
    """Whether data is an event that was encoded already."""
    count = seen.scan.encoded_twice
    if not count:
        return None
    return problem(
        f"{count:,} of {plural(seen.scan.events, 'event')} {'has' if count == 1 else 'have'} an encoded event for data "
        "('data: …')",
        "The application encodes events, and the server encodes them again: give the data alone; with ssesync, "
        "Event.parse(text) for events that another library has encoded.",
    )


def ids(seen: Examination) -> Finding:
    """Whether a client that reconnects can resume after its last event."""
    scan, resume = seen.scan, seen.resume
    if not scan.events:
        return unknown("no event came")
    if not scan.lines.events_with_id:
        return advice(
            "none",
            "A client that reconnects misses the events sent meanwhile. Give events an id, and resume after "
            "Last-Event-ID.",
        )
    text = f"{scan.lines.events_with_id:,} of {plural(scan.events, 'event')}"
    if resume is None or resume.answer is None:
        return ok(text)
    text += f"; asked to resume after {escape(seen.resumed_from)!r}"
    if resume.answer.status == 204:
        return ok(f"{text}, the server answers 204: there is no more")
    if not resume.answer.is_stream:
        return problem(
            f"{text}, the server answers {resume.answer.status}",
            "A client that reconnects gives up for good: accept Last-Event-ID.",
        )
    again = resume.scan.ids
    if not again:
        return ok(f"{text}, nothing came yet")
    if again[0] == scan.ids[0] or seen.resumed_from in again:
        return problem(
            f"{text}, the stream begins again with {escape(again[0])!r}",
            "A client that reconnects gets events twice: read Last-Event-ID and begin after it.",
        )
    if len(scan.ids) > 1 and again[0] == scan.ids[1]:
        return ok(f"{text}, the stream does")
    return ok(f"{text}, the stream continues with {escape(again[0])!r}")


def retry(seen: Examination) -> Finding:
    """The reconnection time."""
    value = seen.scan.retry
    if value is None:
        # A constant would be no better: it is the same for all clients, too. This library, which sends none by default,
        # gives each client a random time when it ends a stream.
        return ok("none: browsers wait for 3 to 5 s")
    if value < 500:
        return advice(f"{value} ms", "When the server restarts, all clients reconnect at once: send at least 1000.")
    if value > 60_000:
        return advice(f"{value:,} ms", "Clients stay away so long after every break.")
    return ok(f"{value:,} ms")


def encoding(seen: Examination) -> Finding:
    """Whether it is UTF-8, without a byte order mark."""
    lines = seen.scan.lines
    if lines.not_utf8 is not None:
        return problem(
            f"byte {lines.not_utf8:,} is none",
            "Clients show a replacement character or stop reading: encode as UTF-8, and cut no character in two.",
        )
    if lines.bom:
        return advice("begins with a byte order mark", "Some clients lose the first event to it: leave it out.")
    return ok("yes") if lines.size else unknown("nothing came")


def ending(seen: Examination) -> Finding:
    """How the stream ended, if it did."""
    probe = seen.browser
    if probe.cut:
        return ok(f"watched no further than {bytes_text(probe.scan.size)}")
    if probe.ended_after is None:
        return ok("open for as long as it was watched")
    after = duration_text(probe.ended_after)
    if isinstance(probe.error, ContentEncodingError):
        return unknown("not known, as the body can't be decoded here")
    if probe.error is not None:
        return problem(
            f"broke after {after}: {escape(probe.error)}",
            "The server or a proxy cut it off: look at worker timeouts (gunicorn --timeout under sync workers) and "
            f"{timeout_settings(seen) or 'proxy read timeouts'}.",
        )
    if probe.scan.lines.in_event:
        return problem(
            f"ended after {after}, in the middle of an event, which clients drop",
            "End every event with a blank line.",
        )
    return ok(f"the server ended the stream after {after}; browsers reconnect, unless it answers 204 then")


#: The checks by their names, in the order of the report.
BODY_CHECKS: dict[str, Check] = {
    "Events": events,
    "Data": encoded_twice,
    "Buffering": buffering,
    "Keep-alive": keep_alive,
    "Comments": blank_line,
    "Event IDs": ids,
    "retry:": retry,
    "UTF-8": encoding,
    "End": ending,
}
