"""``doctor URL``: diagnoses a stream, and names the remedies."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from ..errors import ContentEncodingError
from ..text import redact
from .checks_body import BODY_CHECKS
from .checks_head import HEAD_CHECKS
from .finding import Examination, Finding, Level, problem
from .options import Request, request_options
from .probe import BROWSER_ENCODINGS, Probe, http2_offered
from .scan import Scan
from .screen import LiveConsole, exiting_on_signals, is_terminal
from .text import bytes_text, duration_text, escape, excerpt, plural, reason

__all__ = ["doctor"]

# Seconds within which a second request must be answered.
_PROMPT = 5.0
# Seconds to wait for the first event of a resumed stream.
_RESUME = 3.0
_STYLES: dict[Level, str] = {"ok": "green", "advice": "yellow", "problem": "bold red", "unknown": "dim"}

_EPILOG = """\b
Exit status:
  0  no problem, but perhaps advice
  1  at least one problem
  2  the command line is invalid
  3  no server answers at this URL
130  interrupted by Ctrl-C
"""


@click.command(epilog=_EPILOG)
@request_options
@click.option(
    "--seconds", type=click.FloatRange(min=0.1, max=3600), default=35.0, show_default=True, metavar="SECONDS",
    help="How long to watch. 35 sees two keep-alives that are 15 s apart.",
)  # fmt: skip
@click.option("--head", is_flag=True, help="Send a HEAD request too. Some servers keep a thread busy with it for ever.")
@click.option("--json", "as_json", is_flag=True, help="Write the findings as one JSON object.")
def doctor(seconds: float, head: bool, as_json: bool, **options: Any) -> None:
    """Diagnose the event stream at URL.

    Requests the stream as a browser does, and watches it for a while; meanwhile requests it once more without
    compression, and once more to resume after the first event ID. It reads no more than a few megabytes.
    """
    request = Request.from_options(options)
    with exiting_on_signals():
        with _progress(seconds) as show:
            started = time.monotonic()
            browser = Probe(request, encodings=BROWSER_ENCODINGS, idle_timeout=seconds)
            examination = _examine(browser, request, seconds, head=head, show=show)
            took = time.monotonic() - started
        findings = _findings(examination or browser, seconds)
        reached = examination is not None or browser.answer is not None or browser.error is None
        levels = Counter(finding.level for finding in findings.values())
        status = 3 if not reached else 1 if levels["problem"] else 0
        if as_json:
            _write_json(request.url, browser, findings, took, status)
        else:
            _write(request.url, examination, findings)
    sys.exit(status)


def _examine(
    browser: Probe, request: Request, seconds: float, *, head: bool, show: Callable[[Probe], None]
) -> Examination | None:
    """Watch until the time is over or the stream has ended; ``None`` if there is no event stream."""
    identity = resume = head_probe = unreadable = None
    resumed_from = ""
    while browser.age < seconds:
        if browser.over:
            if unreadable is not None or not isinstance(browser.error, ContentEncodingError):
                break
            unreadable = browser.error
            browser, identity = Probe(request, idle_timeout=seconds), None
        show(browser)
        browser.wait(min(0.1, seconds - browser.age))
        if browser.answer is None and identity is None and browser.age > min(_PROMPT, seconds / 2):
            identity = Probe(request, idle_timeout=seconds - browser.age)
        if browser.answer is None or browser.over:
            continue
        if not browser.answer.is_stream:
            # The beginning of an error's body arrives soon or never.
            seconds = min(seconds, (browser.answered_after or 0) + 2)
            continue
        left = seconds - browser.age
        if identity is None:
            identity = Probe(request, idle_timeout=left)
        if head and head_probe is None:
            head_probe = Probe(request, idle_timeout=min(_PROMPT, left), method="HEAD")
        if identity.answer is not None and (identity.scan.events or not browser.answer.get("Content-Encoding")):
            identity.stop()
        if resume is None and len(browser.scan.ids) > 1 and not browser.scan.too_large:
            resumed_from = browser.scan.ids[0]
            with contextlib.suppress(ValueError):
                resume = Probe(request, idle_timeout=min(_RESUME, left), last_event_id=resumed_from)
        if resume is not None and (resume.scan.ids or resume.age > _RESUME):
            resume.stop()
    held_back = None
    if browser.answer is None and browser.error is None and identity is not None and identity.answer is not None:
        held_back = browser.age
        browser.stop()
        browser, identity = identity, None
    watched = browser.age if browser.ended_after is None else browser.ended_after
    show(browser)
    for probe in (browser, identity, resume, head_probe):
        if probe is not None:
            probe.stop()
    answer = browser.answer
    if answer is None or not answer.is_stream:
        return None
    http2 = http2_offered(answer.url, timeout=_PROMPT)
    return Examination(
        browser, answer, identity, resume, resumed_from, head_probe, http2, watched, held_back, unreadable
    )


def _findings(seen: Examination | Probe, seconds: float) -> dict[str, Finding]:
    if isinstance(seen, Examination):
        found = {name: check(seen) for name, check in {**HEAD_CHECKS, **BODY_CHECKS}.items()}
        return {name: finding for name, finding in found.items() if finding is not None}
    answer = seen.answer
    if answer is None and seen.error is not None:
        finding = problem(f"none: {reason(seen.error)}", "Check the address, and that the server listens there.")
    elif answer is None:
        finding = problem(
            f"none within {duration_text(seconds)}, not even a status",
            "Something holds the answer back: a proxy that buffers (in nginx proxy_buffering off, or X-Accel-"
            "Buffering: no from the application), a view that works before its first piece (send a comment at "
            "once), or a server whose workers are all busy (gunicorn --worker-class gthread --threads 32).",
        )
    else:
        media_type = answer.get("Content-Type")
        begins = excerpt(seen.excerpt, media_type)
        if answer.status == 200:
            remedy = "Browsers refuse the stream for good: send Content-Type: text/event-stream."
            return {"Media type": problem(f"{media_type or 'none'}{begins}", remedy)}
        remedy = "A stream is answered with 200; other statuses are errors."
        if answer.status == 204:
            remedy = "After 204 clients do not reconnect: there is no stream to read."
        finding = problem(f"{answer.status} {answer.reason}, {media_type or 'without a media type'}{begins}", remedy)
    return {"Answer": finding}


@contextlib.contextmanager
def _progress(seconds: float) -> Iterator[Callable[[Probe], None]]:
    """Draw a progress bar, on a terminal."""
    console = LiveConsole(stderr=True)
    if not is_terminal(console):
        yield lambda probe: None
        return
    columns = (TextColumn("Watching"), BarColumn(30), TextColumn("{task.fields[progress]}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=seconds, progress="connecting")

        def show(probe: Probe) -> None:
            text = "connecting"
            if probe.answer is not None:
                text = f"{min(probe.age, seconds):.0f} of {seconds:g} s, {_counts(probe.scan)}"
            progress.update(task, completed=probe.age, progress=text)

        yield show


def _summary(seen: Examination | None, findings: dict[str, Finding]) -> str:
    levels = Counter(finding.level for finding in findings.values())
    named = ", ".join(name for name, finding in findings.items() if finding.level == "problem")
    text = f"{plural(levels['problem'], 'problem')}: {named}" if named else "No problem"
    if levels["advice"]:
        text += f"; {levels['advice']} piece{'s' if levels['advice'] > 1 else ''} of advice"
    if seen is not None:
        text += f". Seen in {duration_text(seen.watched)}: {_counts(seen.scan)}"
    return f"{text}."


def _counts(scan: Scan) -> str:
    return f"{plural(scan.events, 'event')}, {plural(scan.comments, 'comment')}, {bytes_text(scan.size)}"


def _write(url: str, seen: Examination | None, findings: dict[str, Finding]) -> None:
    console = Console(highlight=False)
    columns = Column(no_wrap=True), Column(no_wrap=True), Column(overflow="fold")
    table = Table.grid(*columns, padding=(0, 2, 0, 0))
    for name, finding in findings.items():
        faint = "dim" if finding.level == "unknown" else ""
        table.add_row(
            Text(finding.level, _STYLES[finding.level]), Text(name, faint or "bold"), Text(escape(finding.seen), faint)
        )
        if finding.remedy:
            table.add_row("", "", Text(f"→ {escape(finding.remedy)}", faint or "cyan"))
    with console.capture() as drawn:
        console.print(
            Text(f"{escape(redact(url))}\n", "bold"), table, Text(f"\n{_summary(seen, findings)}", "bold"), sep="\n"
        )
    # The table is drawn to the full width; copied lines must not end in blanks.
    click.echo("\n".join(line.rstrip() for line in drawn.get().split("\n")), nl=False, color=console.is_terminal)


def _write_json(url: str, browser: Probe, findings: dict[str, Finding], took: float, status: int) -> None:
    scan, answer = browser.scan, browser.answer
    report = {
        "url": redact(url),
        "exit_status": status,
        "seconds": round(took, 3),
        "status": answer and answer.status,
        "headers": answer and answer.headers,
        "headers_after": browser.answered_after and round(browser.answered_after, 4),
        "first_byte_after": None if scan.first_byte is None else round(scan.first_byte, 4),
        "events": scan.events,
        "comments": scan.comments,
        "bytes": scan.size,
        "findings": [
            {"check": name, "level": each.level, "seen": each.seen, "remedy": each.remedy}
            for name, each in findings.items()
        ],
    }
    click.echo(json.dumps(report, indent=2))
