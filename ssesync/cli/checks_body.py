"""What the stream itself shows, and when it came."""

from __future__ import annotations

import statistics
from collections import Counter

from ..errors import ContentEncodingError
from .finding import Check, Examination, Finding, advice, ok, problem, unknown
from .scan import Burst, Scan
from .text import bytes_text, duration_text, escape, plural

__all__ = ["BODY_CHECKS"]

# Silence between bursts that no writer of single events causes by chance.
_PAUSE = 1.0
_MANY = 5
_SMALLEST_BUFFER = 512
# So many pieces of one size, each cut in an event, are no chance, however soon they follow each other.
_OFTEN = 3
# nginx and AWS API Gateway's neighbours give up after 60 s, API Gateway after 29, Heroku after 55.
_LONG_SILENCE = 29.0
_KEEP_ALIVE = 15.0
# Go's bufio.Scanner, which many readers use, takes lines of 64 kB.
_LARGE = 64 * 1024
_NO_BUFFER = (
    "Send X-Accel-Buffering: no, or set proxy_buffering off (uwsgi_buffering off) for this location in nginx; "
    "elsewhere switch response buffering off, and compression for text/event-stream."
)


def buffering(seen: Examination) -> Finding:
    """Whether something collects what the application wrote one by one."""
    scan, probe = seen.scan, seen.judged
    signs = _signs(scan, ended=probe.ended_after is not None, watched=seen.watched)
    other = seen.identity
    if seen.encoding and other is not None and other.scan is not scan and other.scan.events > scan.events:
        signs.insert(0, f"{scan.events} of {other.scan.events} events arrived through {seen.encoding}")
    if seen.encoding and scan is not seen.browser.scan:
        return problem(
            "Buffering",
            f"with {seen.encoding} no event arrived, without it {plural(scan.events, 'event')}",
            f"What compresses does not flush. {_NO_BUFFER}",
        )
    if signs:
        return problem("Buffering", "; ".join(signs), _NO_BUFFER)
    crowds = [burst for burst in scan.bursts[1:] if burst.silence >= _PAUSE and burst.events >= _MANY]
    if len(crowds) > 1:
        silence = statistics.median(burst.silence for burst in crowds)
        return advice(
            "Buffering",
            f"{plural(len(crowds), 'time')} {_MANY} events or more came at once after about {duration_text(silence)}",
            f"If the application does not write them together, something collects them. {_NO_BUFFER}",
        )
    if scan.events + scan.comments < 2:
        return unknown("Buffering", "too little came to tell", "Watch longer (--seconds), or while events are sent.")
    return ok(
        "Buffering", f"none: {scan.events + scan.comments:,} events and comments in {plural(len(scan.bursts), 'piece')}"
    )


def _signs(scan: Scan, *, ended: bool, watched: float) -> list[str]:
    """What only a buffer does."""
    signs = []
    crowded = [burst for burst in scan.bursts if burst.silence >= _PAUSE and _keep_alives(burst) > 1]
    if crowded:
        worst = max(crowded, key=_keep_alives)
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
    """How often the same comment comes in it."""
    return max(Counter(burst.comments).values(), default=0)


def keep_alive(seen: Examination) -> Finding:
    """Whether something is sent into a silence, before proxies and clients take it for a dead connection."""
    check, scan = "Keep-alive", seen.scan
    probe = seen.judged
    if not scan.bursts:
        return unknown(check, "nothing came")
    until = seen.watched if probe.ended_after is None else probe.ended_after
    silences = scan.silences(until)
    longest = max(silences)
    remedy = (
        "nginx gives up a connection that is silent for 60 s, Heroku for 55 s, AWS API Gateway for 29 s: send a "
        "comment every 15 s (':keep-alive' and one line end)."
    )
    beats = [burst.silence for burst in scan.bursts[1:] if burst.comments and not burst.events]
    if scan.ping_events:
        name, count = scan.ping_events.most_common(1)[0]
        return advice(
            check,
            f"{plural(count, 'event')} with {escape(name)!r}",
            "Every client takes these for news. A comment (a line that begins with a colon) is seen by none.",
        )
    if longest >= _LONG_SILENCE:
        return problem(check, f"{duration_text(longest)} without a byte", remedy)
    if beats:
        return ok(check, f"a comment after {duration_text(statistics.median(beats))} of silence")
    if longest > _KEEP_ALIVE + 2:
        return advice(check, f"{duration_text(longest)} without a byte", remedy)
    if until < _KEEP_ALIVE + 2:
        return unknown(
            check, f"none in {duration_text(until)}", "Watch for longer than a keep-alive takes: --seconds 35."
        )
    return ok(check, f"none was needed: never silent for more than {duration_text(longest)}")


def blank_line(seen: Examination) -> Finding | None:
    """Whether a comment looks like an event to careless clients."""
    check, scan = "Comments", seen.scan
    if not scan.comments:
        return None
    if scan.lines.blank_after_comment:
        return advice(
            check,
            f"{plural(scan.comments, 'comment')}, {scan.lines.blank_after_comment} with a blank line behind",
            "Some clients (openai-python among them) make an empty event of the blank line: end a comment with one "
            "line end.",
        )
    return ok(check, plural(scan.comments, "comment"))


def events(seen: Examination) -> Finding:
    """What came."""
    scan = seen.scan
    types = ", ".join(f"{count:,} {escape(name)}" for name, count in scan.types.most_common(4))
    more = len(scan.types) - 4
    text = f"{scan.events:,}: {types}" + (f" and {plural(more, 'other type')}" if more > 0 else "")
    if scan.too_large:
        return problem(
            "Events",
            f"{text if scan.events else 'none complete'}; one has more than {bytes_text(scan.lines.longest_event)}",
            "Clients hold a whole event in memory, and most have a limit: send what to fetch instead.",
        )
    if not scan.events:
        return unknown("Events", f"none in {duration_text(seen.watched)}", "Watch longer, or while events are sent.")
    if scan.lines.longest_event > _LARGE:
        return advice(
            "Events",
            f"{text}; the longest has {bytes_text(scan.lines.longest_event)}",
            "Many clients refuse lines of more than 64 kB: send what to fetch instead, or split it.",
        )
    return ok("Events", text)


def encoded_twice(seen: Examination) -> Finding | None:
    """Whether data is an event that was encoded already."""
    scan = seen.scan
    if not scan.encoded_twice:
        return None
    return problem(
        "Data",
        f"{scan.encoded_twice:,} of {plural(scan.events, 'event')} {'has' if scan.encoded_twice == 1 else 'have'} an "
        "encoded event for data ('data: …')",
        "The application encodes events, and what serves them does so again: hand over the data alone; with ssesync, "
        "Event.parse(text) for what another library has encoded.",
    )


def ids(seen: Examination) -> Finding:
    """Whether a client that comes back can go on where it was."""
    check, scan, resume = "Event IDs", seen.scan, seen.resume
    if not scan.events:
        return unknown(check, "no event came")
    if not scan.lines.events_with_id:
        return advice(
            check,
            "none",
            "Who reconnects misses what was sent meanwhile. Give events an id, and go on behind Last-Event-ID.",
        )
    text = f"{scan.lines.events_with_id:,} of {plural(scan.events, 'event')}"
    if resume is None or resume.answer is None:
        return ok(check, text)
    asked = f"{text}; asked to go on behind {escape(seen.resumed_from)!r}"
    if resume.answer.status == 204:
        return ok(check, f"{asked}, the server says that there is no more")
    if not resume.answer.is_stream:
        return problem(
            check,
            f"{asked}, the server answers {resume.answer.status}",
            "Who reconnects is turned away for good: accept Last-Event-ID.",
        )
    again = resume.scan.ids
    if not again:
        return ok(check, f"{asked}, nothing came yet")
    if again[0] == scan.ids[0] or seen.resumed_from in again:
        return problem(
            check,
            f"{asked}, the stream begins again with {escape(again[0])!r}",
            "Who reconnects gets events twice: read Last-Event-ID and begin behind it.",
        )
    if len(scan.ids) > 1 and again[0] == scan.ids[1]:
        return ok(check, f"{asked}, the stream does")
    return ok(check, f"{asked}, the stream goes on with {escape(again[0])!r}")


def retry(seen: Examination) -> Finding:
    """When clients come back."""
    check, value = "retry:", seen.scan.retry
    if value is None:
        return advice(
            check, "none", "Browsers choose, between 1 and 5 s, all the same: send retry: once, such as 3000."
        )
    if value < 500:
        return advice(check, f"{value} ms", "When the server restarts, all clients are back at once: at least 1000.")
    if value > 60_000:
        return advice(check, f"{value:,} ms", "Clients stay away so long after every break.")
    return ok(check, f"{value:,} ms")


def encoding(seen: Examination) -> Finding:
    """Whether it is UTF-8, without a byte order mark."""
    scan = seen.scan
    if scan.lines.not_utf8 is not None:
        return problem(
            "UTF-8",
            f"byte {scan.lines.not_utf8:,} is none",
            "Clients show a replacement character or stop reading: encode as UTF-8, and cut no character in two.",
        )
    if scan.lines.bom:
        return advice(
            "UTF-8", "begins with a byte order mark", "Some clients lose the first event to it: leave it out."
        )
    return ok("UTF-8", "yes") if scan.size else unknown("UTF-8", "nothing came")


def ending(seen: Examination) -> Finding:
    """How the stream ended, if it did."""
    probe = seen.browser
    if probe.cut:
        return ok("End", f"watched no further than {bytes_text(probe.scan.size)}")
    if probe.ended_after is None:
        return ok("End", "open for as long as it was watched")
    after = duration_text(probe.ended_after)
    if isinstance(probe.error, ContentEncodingError):
        return unknown("End", "not watched for, as the body can't be decoded here")
    if probe.error is not None:
        return problem(
            "End",
            f"broke after {after}: {escape(str(probe.error))}",
            "The server or a proxy cut it off: look at worker timeouts (gunicorn --timeout under sync workers) and "
            "proxy read timeouts.",
        )
    if probe.scan.lines.in_event:
        return problem(
            "End",
            f"ended after {after}, in the middle of an event, which clients drop",
            "Every event ends with a blank line.",
        )
    return ok("End", f"the server ended the stream after {after}; browsers come back, unless it answers 204 then")


BODY_CHECKS: tuple[Check, ...] = (
    events, encoded_twice, buffering, keep_alive, blank_line, ids, retry, encoding, ending,
)  # fmt: skip
